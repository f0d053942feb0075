package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// sender sends a request that has content, while the answer is waited for: an origin may answer before it has read everything.
type sender struct {
	c    *Conn
	done chan struct{}

	mu   sync.Mutex
	err  error // set before done is closed; nil: all was sent
	came bool  // the head of the answer
}

// send begins to send req.
func send(c *Conn, req *http.Request) *sender {
	s := &sender{c: c, done: make(chan struct{})}
	out := req.WithContext(req.Context())
	go func() {
		defer close(s.done)
		source, sink := &watched{r: req.Body}, &watched{w: c.nc}
		out.Body = readCloser{source, req.Body}
		err := write(out, sink)
		if source.err != nil {
			err = source.err // net/http hides it
		}
		if err != nil {
			s.failed(err, sink.err != nil && source.err == nil)
		}
	}()
	return s
}

// write sends req to w. A panic of its content becomes an error: it would end the program.
func write(req *http.Request, w io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the request's content panicked: %v", p)
		}
	}()
	bw := writers.Get().(*bufio.Writer)
	bw.Reset(w)
	defer func() {
		bw.Reset(nil)
		writers.Put(bw)
	}()
	if err := req.Write(bw); err != nil {
		return err
	}
	return bw.Flush()
}

// failed ends the connection: at once where the content is at fault, else when the origin has had time to say why it takes no more.
func (s *sender) failed(err error, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	switch {
	case !refused:
		_ = s.c.end(err)
	case !s.came:
		_ = s.c.nc.SetReadDeadline(time.Now().Add(grace)) // it fails where the connection has ended
	}
}

// headCame notes that the head of the answer has come, or that err is why not, and returns the reason.
func (s *sender) headCame(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came = true
	switch {
	case s.err == nil:
		return err
	case err != nil:
		return errors.Join(s.err, err)
	}
	return s.c.nc.SetReadDeadline(time.Time{})
}

// sent says whether the request has been sent, or is in a moment.
func (s *sender) sent() bool {
	select {
	case <-s.done:
	default:
		timer := time.NewTimer(lastWords)
		defer timer.Stop()
		select {
		case <-s.done:
		case <-timer.C:
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil
}

// watched notes what went wrong with a reader or a writer.
type watched struct {
	r   io.Reader
	w   io.Writer
	err error
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// Write implements io.Writer.
func (w *watched) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// readCloser reads by one and closes by the other.
type readCloser struct {
	io.Reader
	io.Closer
}
