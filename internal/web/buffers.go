package web

import (
	"io"
	"sync"
)

// sendBuffers are for copying to and from connections.
var sendBuffers = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// onlyReader and onlyWriter keep io.CopyBuffer from ways around the buffer, where the watch would see nothing.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
