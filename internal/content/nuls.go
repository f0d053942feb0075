package content

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"lazaret/internal/spool"
)

// nuls emits a text without its NUL bytes: clients have left them out, and with them text whose characters begin to be wide
// somewhere in its middle can be read.
func (f *finder) nuls(b *spool.Blob, mediaType string) error {
	if !isText(mediaType) {
		return nil
	}
	has, err := hasNUL(b)
	if err != nil || !has {
		return err
	}
	w := f.Writer()
	_, err = io.Copy(w, &withoutNUL{b.NewReader()})
	return f.EmitPart(w, Part{Path: "without NUL bytes", Type: mediaType, Guess: true}, err)
}

// isText says whether clients take objects of a type for text, those without a type included.
func isText(mediaType string) bool {
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	if mediaType == "" || strings.HasPrefix(mediaType, "text/") {
		return true
	}
	for _, word := range []string{"javascript", "ecmascript", "json", "xml", "svg", "html"} {
		if strings.Contains(mediaType, word) {
			return true
		}
	}
	return false
}

func hasNUL(b *spool.Blob) (bool, error) {
	if text, ok := b.Bytes(); ok {
		return bytes.IndexByte(text, 0) >= 0, nil
	}
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	for at := int64(0); ; at += int64(len(*buf)) {
		n, err := b.ReadAt(*buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if bytes.IndexByte((*buf)[:n], 0) >= 0 {
			return true, nil
		}
		if n < len(*buf) {
			return false, nil
		}
	}
}

// withoutNUL leaves NUL bytes out.
type withoutNUL struct{ r io.Reader }

// Read implements io.Reader.
func (w *withoutNUL) Read(p []byte) (int, error) {
	for {
		n, err := w.r.Read(p)
		kept := 0
		for _, c := range p[:n] {
			if c != 0 {
				p[kept] = c
				kept++
			}
		}
		if kept > 0 || err != nil || len(p) == 0 {
			return kept, err
		}
	}
}
