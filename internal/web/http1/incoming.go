package http1

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// arriving is how long an answer waits for the rest of the request's content, so that the connection can go on. Most clients
	// send it together with the head; one that waits for the answer before it sends any gets it then.
	arriving = 250 * time.Millisecond
	// arrivingMost is how much of it is read.
	arrivingMost = 256 << 10
)

// Passes notes that content, a request's body, goes on to an origin as it comes, also beside the answer, until it is closed: what is not
// read of it yet belongs to the origin. For any other reader it does nothing.
func Passes(content io.Reader) {
	if in, ok := content.(*incoming); ok {
		in.passing.Store(true)
	}
}

// incoming is the content of a request. The answer that comes before its end ends the connection, unless the rest comes at once.
type incoming struct {
	c       *serving
	w       *response
	length  int64 // -1: not known
	expects bool  // the client waits for 100 before it sends anything
	closed  atomic.Bool
	passing atomic.Bool // see Passes

	mu       sync.Mutex    // held by who reads
	original *http.Request // as net/http knows it
	request  *http.Request // as the Handler knows it
	taken    int64         // bytes
	begun    bool          // somebody has wanted to read, and with that sent 100
	end      error         // why there is no more to read; io.EOF: all was read
}

// Read implements io.Reader.
func (in *incoming) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if in.end != nil {
		return 0, in.end
	}
	first := !in.begun
	if in.begun = true; first && in.expects {
		in.w.goAhead()
	}
	return in.read(p)
}

// read reads from the connection. The lock is held.
func (in *incoming) read(p []byte) (int, error) {
	n, err := in.original.Body.Read(p)
	in.taken += int64(n)
	if in.end = err; err != nil {
		in.request.Trailer = in.original.Trailer // it is complete now
		if errors.Is(err, io.EOF) {
			in.c.look.free.Store(true)
		}
	}
	return n, err
}

// Close implements io.Closer. What is left of the content is looked after when the answer has been given.
func (in *incoming) Close() error {
	in.closed.Store(true)
	return nil
}

// arrives waits for what is left of the content before the head of an answer is sent, where that may come at once and is of use. It says
// whether the connection can go on with what follows; closes says that it ends anyway.
func (in *incoming) arrives(closes bool) bool {
	if !in.mu.TryLock() {
		return false // it is still on its way to the origin
	}
	defer in.mu.Unlock()
	switch {
	case in.end != nil:
		return errors.Is(in.end, io.EOF)
	case in.passing.Load() && !in.closed.Load():
		return false // between two reads
	case in.expects && !in.begun, in.length-in.taken > arrivingMost, closes:
		return false
	}
	nc := in.c.v.Conn
	if nc.SetReadDeadline(time.Now().Add(arriving)) != nil {
		return false
	}
	buf := make([]byte, 4<<10)
	for most := in.taken + arrivingMost; in.end == nil && in.taken <= most; {
		_, in.end = in.read(buf)
	}
	if in.end == nil {
		in.end = errors.New("more content than is read after an answer")
	}
	return errors.Is(in.end, io.EOF) && nc.SetReadDeadline(time.Time{}) == nil
}

// whole says whether the content was read to its end.
func (in *incoming) whole() bool {
	if !in.mu.TryLock() {
		return false
	}
	defer in.mu.Unlock()
	return errors.Is(in.end, io.EOF)
}

// retire ends the content: nothing more of it is read. It says false where something is being read at this moment.
func (in *incoming) retire() bool {
	in.closed.Store(true)
	if !in.mu.TryLock() {
		return false
	}
	defer in.mu.Unlock()
	if in.end == nil {
		in.end = http.ErrBodyReadAfterClose
	}
	return true
}
