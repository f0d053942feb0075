// Package http1 has both sides of HTTP/1.1 connections (RFC 9112): Server answers a client's requests, and Conn is for requests to an
// origin, each on one goroutine. What a message looks like is net/http's affair, which reads requests and answers, and writes the
// requests. Its own Transport has two goroutines for each connection, between which every request changes hands six times, and its Server
// one more for each request; that cost more than all the rest of a small one.
package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"sync"
	"time"

	"lazaret/internal/idle"

	"golang.org/x/net/http/httpguts"
)

// Conn is an HTTP/1.1 connection to an origin, for one request at a time. It has no goroutine and no buffer while it is idle.
type Conn struct {
	nc      net.Conn
	tcp     *net.TCPConn  // below nc; nil: what the other side does while the connection is idle is not seen
	watcher *idle.Watcher // nil: it is not watched while it is idle
	max     int64
	left    int64 // what the head that is being read may still take; the reader's own

	mu     sync.Mutex
	busy   bool
	err    error // why it cannot be used any more
	asleep *sleeper
	unused func() // called once when nothing is under way any more; nil: nobody minds
}

// New returns a connection over nc, over which TLS has been agreed on where it is used, that takes answers with heads of at most maxHead
// bytes. tcp is the TCP connection below nc, or nc itself, or nil where there is none; watcher is for Watch.
func New(nc net.Conn, tcp *net.TCPConn, watcher *idle.Watcher, maxHead int64) *Conn {
	return &Conn{nc: nc, tcp: tcp, watcher: watcher, max: maxHead}
}

// Error is why a request has no answer.
type Error struct {
	Err      error
	Wrote    bool // some of the request may have reached the origin
	Answered bool // some of an answer has come
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap is for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

var (
	errBusy     = errors.New("a request is under way on this connection already")
	errAsleep   = errors.New("the connection is being watched")
	errUnread   = errors.New("the answer was not read to its end")
	errUnasked  = errors.New("the origin sent something that was not asked for")
	errEnded    = errors.New("the origin ends the connection with its answer")
	errUnsent   = errors.New("the answer was there before the request had been sent")
	errSwitched = errors.New("the connection is used for another protocol")
)

// Err returns why the connection cannot be used any more, nil when it can as far as is known.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Busy says whether a request is under way.
func (c *Conn) Busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// Close ends the connection, and with it what is under way.
func (c *Conn) Close() error {
	_ = c.end(net.ErrClosed) // the caller knows why
	return nil
}

// CloseIdle ends the connection as soon as nothing is under way.
func (c *Conn) CloseIdle() {
	c.mu.Lock()
	if c.busy {
		c.unused = func() { _ = c.Close() } // never fails
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	_ = c.Close() // never fails
}

// end marks the connection as unusable and closes it. It returns the first reason that there was.
func (c *Conn) end(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		if c.asleep != nil && c.asleep.watch.Stop() {
			c.asleep = nil
		}
		// An origin that asks TLS for replies and takes none holds up what TLS needs to close, without a limit of its own.
		_ = c.nc.SetWriteDeadline(time.Now().Add(farewell))
		go c.nc.Close() //nolint:errcheck // closing TLS may wait for the other side; there is nobody to tell
	}
	return c.err
}

// release notes that nothing is under way any more.
func (c *Conn) release() {
	c.mu.Lock()
	c.busy = false
	unused := c.unused
	c.unused = nil
	c.mu.Unlock()
	if unused != nil {
		unused()
	}
}

// enter begins a request.
func (c *Conn) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.busy:
		return errBusy
	case c.asleep != nil:
		return errAsleep
	}
	c.busy = true
	return nil
}

var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}
)

// head reads from the connection within what the head of an answer may take.
type head struct{ c *Conn }

// Read implements io.Reader.
func (h head) Read(p []byte) (int, error) {
	if h.c.left <= 0 {
		return 0, fmt.Errorf("the head of the answer is larger than %d bytes", h.c.max)
	}
	n, err := h.c.nc.Read(p[:min(int64(len(p)), h.c.left)])
	h.c.left -= int64(n)
	return n, err
}

// RoundTrip sends a request and returns its answer, whose body must be read to its end or closed; it need not be read before the next
// request where it has none. Informational answers are given to inform before that, whose error ends the connection; nil: they are
// dropped. The error is an *Error around the cause of the request's context where that has ended. The content of a request is sent
// while the answer is waited for; when the origin answers before all was sent, the connection ends with that answer.
func (c *Conn) RoundTrip(req *http.Request, inform func(status int, header textproto.MIMEHeader) error) (*http.Response, error) {
	if err := sound(req); err != nil {
		closeBody(req)
		return nil, &Error{Err: err}
	}
	if err := c.enter(); err != nil {
		closeBody(req)
		return nil, &Error{Err: err}
	}
	x := &exchange{c: c, req: req}
	x.stop = context.AfterFunc(req.Context(), func() { _ = c.end(context.Cause(req.Context())) })
	resp, err := x.run(inform)
	if err == nil {
		return resp, nil
	}
	x.stop()
	failed := &Error{Err: c.end(err), Wrote: x.wrote, Answered: x.answered}
	c.release()
	return nil, failed
}

// sound says what of a request cannot be sent.
func sound(req *http.Request) error {
	if !httpguts.ValidHeaderFieldName(req.Method) { // both are tokens
		return fmt.Errorf("%q is no method", req.Method)
	}
	for _, h := range []http.Header{req.Header, req.Trailer} {
		for name, values := range h {
			if !httpguts.ValidHeaderFieldName(name) {
				return fmt.Errorf("%q is no name of a field", name)
			}
			for _, v := range values {
				if !httpguts.ValidHeaderFieldValue(v) {
					return fmt.Errorf("the value of the field %q has characters that must not be in it", name)
				}
			}
		}
	}
	return nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // nothing was read from it
	}
}

// exchange is one request and its answer.
type exchange struct {
	c        *Conn
	req      *http.Request
	stop     func() bool // ends the watch over the request's context
	br       *bufio.Reader
	sender   *sender // nil: the request has no content
	wrote    bool
	answered bool
}

func (x *exchange) run(inform func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	if x.req.Body != nil && x.req.Body != http.NoBody {
		x.wrote, x.sender = true, send(x.c, x.req)
	} else if err := x.write(); err != nil {
		return nil, err
	}
	x.br = readers.Get().(*bufio.Reader)
	x.br.Reset(head{x.c})
	resp, err := x.read(inform)
	if x.sender != nil {
		err = x.sender.headCame(err)
	}
	if err != nil {
		return nil, err
	}
	x.c.left = 1<<63 - 1
	return resp, x.body(resp)
}

// write sends a request that has no content.
func (x *exchange) write() error {
	bw := writers.Get().(*bufio.Writer)
	bw.Reset(x.c.nc)
	defer func() {
		bw.Reset(nil)
		writers.Put(bw)
	}()
	x.wrote = true // a long head goes out in pieces
	if err := x.req.Write(bw); err != nil {
		return err
	}
	return bw.Flush()
}

// read returns the head of the final answer.
func (x *exchange) read(inform func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	x.c.left = x.c.max
	if _, err := x.br.Peek(1); err != nil {
		return nil, fmt.Errorf("the origin has not answered: %w", err)
	}
	x.answered = true
	for {
		resp, err := http.ReadResponse(x.br, x.req) //nolint:bodyclose // the caller closes it; closing net/http's own would read on
		if err != nil {
			return nil, fmt.Errorf("the origin's answer cannot be read: %w", err)
		}
		if resp.StatusCode < 100 || resp.StatusCode > 199 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
		if inform == nil {
			continue // all of them together are no larger than one head
		}
		if err := inform(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
			return nil, err
		}
		x.c.left = x.c.max
	}
}

// body puts the way to the answer's content into place.
func (x *exchange) body(resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols && httpguts.HeaderValuesContainsToken(resp.Header["Connection"], "upgrade"):
		if !x.stop() {
			return context.Cause(x.req.Context())
		}
		if x.sender != nil && !x.sender.sent() {
			return errUnsent // what is left of the request would be taken for the other protocol
		}
		resp.Body = &switched{br: x.br, nc: x.c.nc}
		x.c.mu.Lock()
		x.c.err = errSwitched
		x.c.mu.Unlock()
		x.c.release()
	case resp.Body == http.NoBody || x.req.Method == http.MethodHead || resp.ContentLength == 0:
		resp.Body = http.NoBody
		x.finish(resp)
	default:
		resp.Body = &content{x: x, resp: resp, r: resp.Body}
	}
	return nil
}

// finish ends an exchange whose answer was read to its end.
func (x *exchange) finish(resp *http.Response) {
	stopped := x.stop()
	switch {
	case !stopped:
		_ = x.c.end(context.Cause(x.req.Context()))
	case resp.Close || x.req.Close || resp.StatusCode < 200:
		_ = x.c.end(errEnded)
	case x.br.Buffered() > 0:
		_ = x.c.end(errUnasked)
	case x.sender != nil && !x.sender.sent():
		_ = x.c.end(errUnsent)
	default:
		x.br.Reset(nil)
		readers.Put(x.br)
	}
	x.br = nil
	x.c.release()
}

// content is the body of an answer.
type content struct {
	x    *exchange
	resp *http.Response
	r    io.Reader

	mu   sync.Mutex // held by who reads
	end  error      // what further reads return
	once sync.Once  // the exchange ends once
}

// Read implements io.Reader.
func (b *content) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		return 0, b.end
	}
	n, err := b.r.Read(p)
	if err == nil {
		return n, nil
	}
	b.once.Do(func() {
		if errors.Is(err, io.EOF) {
			b.x.finish(b.resp)
			return
		}
		err = b.broken(err)
	})
	b.end = err
	return n, err
}

// broken ends the exchange because its content could not be read, and returns why: where the request's context has ended, by the
// context's cause.
func (b *content) broken(err error) error {
	if cause := b.x.req.Context().Err(); cause != nil {
		err = context.Cause(b.x.req.Context())
	}
	b.x.stop()
	_ = b.x.c.end(err)
	b.x.c.release()
	return err
}

// Close implements io.Closer. A connection whose answer was not read to its end is of no use any more. It may be called while
// something is being read.
func (b *content) Close() error {
	b.once.Do(func() {
		b.x.stop()
		_ = b.x.c.end(errUnread)
		b.x.c.release()
	})
	return nil
}

// switched is a connection after the switch to another protocol: what had been read ahead comes first.
type switched struct {
	br *bufio.Reader
	nc net.Conn
}

// Read implements io.Reader.
func (s *switched) Read(p []byte) (int, error) { return s.br.Read(p) }

// Write implements io.Writer.
func (s *switched) Write(p []byte) (int, error) { return s.nc.Write(p) }

// Close implements io.Closer.
func (s *switched) Close() error { return s.nc.Close() }

// grace is how long an answer is waited for when the origin takes nothing more of the request, and how long a request may take to be
// sent when its answer is there.
const (
	grace     = 250 * time.Millisecond
	lastWords = 50 * time.Millisecond
)

// farewell is how long a connection that is being closed may take to send what is left.
const farewell = time.Second
