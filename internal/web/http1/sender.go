package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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
	// What req has for content is taken now: whoever asks may give it another one, for the next attempt, before the sender runs.
	out, from := req.WithContext(req.Context()), &source{body: req.Body}
	out.Body = from
	go func() {
		defer close(s.done)
		to := &sink{nc: c.nc}
		err := write(out, to)
		if broken := from.broken.Load(); broken != nil {
			s.failed(*broken, false) // net/http hides it
		} else if err != nil {
			s.failed(err, to.failed)
		}
	}()
	return s
}

// write sends req to w.
func write(req *http.Request, w io.Writer) error {
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

// source is the content of a request. net/http may read it by a goroutine of its own, also after it has given up on the request, and a
// panic there would end the program.
type source struct {
	body   io.ReadCloser
	broken atomic.Pointer[error] // what went wrong with it
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (n int, err error) {
	defer s.note(&err)
	return s.body.Read(p)
}

// Close implements io.Closer.
func (s *source) Close() (err error) {
	defer s.note(&err)
	return s.body.Close()
}

// note keeps the error of a call that ends, and makes one of a panic.
func (s *source) note(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the request's content panicked: %v", p)
	}
	if *err != nil && !errors.Is(*err, io.EOF) {
		broken := *err
		s.broken.CompareAndSwap(nil, &broken)
	}
}

// pieces are what content is copied by: a piece is one write, and over TLS two records.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// sink is the connection that a request goes out by.
type sink struct {
	nc     net.Conn
	failed bool
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.nc.Write(p)
	s.failed = s.failed || err != nil
	return n, err
}

// ReadFrom implements io.ReaderFrom: the buffer for the head is not the size for content.
func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	piece := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(piece)
	return io.CopyBuffer(struct{ io.Writer }{s}, r, piece[:])
}
