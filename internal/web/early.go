package web

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// net/http does some things by itself around a handler, for which it knows no time: it reads up to 256 KiB of what was not read
// of a request's content, before the head of the answer or after the answer, so that the connection can go on; it sends what is
// left in its buffers. Whoever sends nothing, or takes nothing, would have his connection for ever.

const (
	// arriving is how long an answer waits for the rest of the request's content, so that the connection can go on. Most clients
	// send it together with the head; one that waits for the answer before it sends any gets it then.
	arriving = 250 * time.Millisecond
	// arrivingMost is how much of it is read: as much as net/http does.
	arrivingMost = 256 << 10
	// lingering is how long a connection is read from after its last answer, by default, so that the answer is not lost by the
	// reset that unread bytes cause (RFC 9112, 9.6).
	lingering = 2 * time.Second
)

// bounded has everything end in time that net/http does by itself after h.
func (s *Server) bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stall := s.settings.Load().StallTimeout.Std()
		if r.ProtoMajor != 1 {
			h.ServeHTTP(w, r)
			if r.Context().Err() == nil {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(stall)) // of this stream alone
			}
			return
		}
		c, rc := clientOf(r.Context()), http.NewResponseController(w)
		var e *early
		if r.Body != nil && r.Body != http.NoBody {
			e = newEarly(w, r, stall)
			w, r = e, e.request
		}
		visit := c.visit
		s.lookouts.enter(visit)
		answered := false
		defer func() {
			if c.taken.Load() {
				visit.look.gone()
				return // somebody else has the connection
			}
			_ = rc.SetWriteDeadline(time.Now().Add(stall)) // net/http takes it back for the next answer
			s.lookouts.leave(visit)                        // TLS may have something to answer to what is read
			if e == nil {
				return
			}
			until := longAgo // an answer that was broken off ends the connection
			if answered {
				e.settle()
				until = time.Now().Add(s.lingering)
			}
			if !e.whole() {
				_ = rc.SetReadDeadline(until)
			}
		}()
		h.ServeHTTP(w, r)
		answered = true
	})
}

// early is the writer of an answer to a request that has content, and reads that content. The answer that comes before the end
// of the content ends the connection, unless the rest comes at once.
type early struct {
	http.ResponseWriter
	request  *http.Request // for the handler: its body is read by way of this
	original *http.Request // as net/http knows it
	expects  bool          // the client waits for 100 before it sends anything
	stall    time.Duration // for sending that
	settled  sync.Once
	closed   atomic.Bool
	passing  atomic.Bool // see passes

	mu    sync.Mutex // held by who reads
	taken int64      // bytes
	begun bool       // somebody has wanted to read, and with that sent 100
	end   error      // why there is no more to read; io.EOF: all was read
}

func newEarly(w http.ResponseWriter, r *http.Request, stall time.Duration) *early {
	e := &early{ResponseWriter: w, original: r, request: r.WithContext(r.Context()), stall: stall}
	e.expects = r.ProtoAtLeast(1, 1) && r.Header.Get("Expect") != ""
	e.request.Body = e
	return e
}

// Read implements io.Reader for the content.
func (e *early) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if e.end != nil {
		return 0, e.end
	}
	first := !e.begun
	e.begun = true
	if first && e.expects {
		rc := http.NewResponseController(e.ResponseWriter)
		_ = rc.SetWriteDeadline(time.Now().Add(e.stall)) // for the 100; it fails where the connection has ended
		defer rc.SetWriteDeadline(time.Time{})           //nolint:errcheck // as above
	}
	n, err := e.original.Body.Read(p)
	e.taken += int64(n)
	if e.end = err; err != nil {
		e.request.Trailer = e.original.Trailer // it is complete now
	}
	return n, err
}

// Close implements io.Closer for the content. What is left of it is net/http's affair, which knows a time for it.
func (e *early) Close() error {
	e.closed.Store(true)
	return nil
}

// passes notes that content, a request's body, goes on to the origin as it comes, also beside the answer, until it is closed: what is
// not read of it yet belongs to the origin.
func passes(content io.Reader) {
	if e, ok := content.(*early); ok {
		e.passing.Store(true)
	}
}

// WriteHeader implements http.ResponseWriter.
func (e *early) WriteHeader(status int) {
	if status >= http.StatusOK {
		e.settle()
	}
	e.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (e *early) Write(p []byte) (int, error) {
	e.settle()
	return e.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (e *early) FlushError() error {
	e.settle()
	return http.NewResponseController(e.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (e *early) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// settle decides whether the connection can go on after the answer, whose head is about to be sent. With "Connection: close"
// net/http does not read before it.
func (e *early) settle() {
	e.settled.Do(func() {
		if !e.arrives() {
			e.Header().Set("Connection", "close")
		}
	})
}

// arrives waits for what is left of the content, where that may come at once and is of use.
func (e *early) arrives() bool {
	if !e.mu.TryLock() {
		return false // it is still on its way to the origin
	}
	defer e.mu.Unlock()
	switch {
	case e.end != nil:
		return errors.Is(e.end, io.EOF)
	case e.passing.Load() && !e.closed.Load():
		return false // between two reads
	case e.expects && !e.begun, e.original.ContentLength-e.taken > arrivingMost, e.Header().Get("Connection") == "close":
		return false
	}
	// At the end of the content net/http sets another deadline.
	if http.NewResponseController(e.ResponseWriter).SetReadDeadline(time.Now().Add(arriving)) != nil {
		return false
	}
	if _, e.end = io.CopyN(io.Discard, e.original.Body, arrivingMost+1); e.end == nil {
		e.end = errors.New("more content than is read after an answer")
	}
	return errors.Is(e.end, io.EOF)
}

// whole says whether the content was read to its end.
func (e *early) whole() bool {
	if !e.mu.TryLock() {
		return false
	}
	defer e.mu.Unlock()
	return errors.Is(e.end, io.EOF)
}
