package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// Server answers the requests of clients' HTTP/1.1 connections (RFC 9112), those of one connection on the goroutine that calls Serve.
// What a request looks like is net/http's affair, which reads it. The fields must not change once it is in use. It is safe for use by
// many goroutines.
type Server struct {
	// Handler answers. Its ResponseWriter is a Taker, too, and has what http.ResponseController asks for, without Hijack.
	Handler http.Handler
	// MaxHead is how many bytes the head of a request may have.
	MaxHead int64
	// HeadTime is how long a head may take to come, from its first byte on.
	HeadTime time.Duration
	// Stall returns how long a client may take for what is left of an answer when the Handler has returned, and for a 100.
	Stall func() time.Duration
	// Linger is how long a connection is read from after its last answer, so that the answer is not lost by the reset that unread
	// bytes cause (RFC 9112, 9.6).
	Linger time.Duration
	// Last says whether connections end with their next answer.
	Last func() bool
	// Log is told of a Handler that panics.
	Log *slog.Logger

	lookouts lookouts
}

// Visit is a connection from which requests are expected.
type Visit struct {
	Conn net.Conn
	// Context is what those of the requests derive from, which end with their request, or when the client leaves.
	Context context.Context
	// First is how long the first request may take to begin; then the connection ends. 0: as any other.
	First time.Duration
	// Next returns how long a request may take to begin from now on; then the connection is idle.
	Next func() time.Duration
	// Rests is called when a request is waited for, and Begins when its first byte has come.
	Rests, Begins func()
	// Unread returns what is sent to a client whose request cannot be read, which ends the connection.
	Unread func(*Malformed) []byte
}

// Ending is what has become of a connection that was served.
type Ending uint8

// The ways in which Serve returns.
const (
	Ended Ending = iota // it is of no use any more, and is to be closed
	Idle                // no request has come for a while, and nothing is kept of the connection
	Taken               // the Handler has taken it
)

// Taker is an HTTP/1.1 connection's ResponseWriter.
type Taker interface {
	// Take hands over the connection, with what the client has already sent. Nothing is answered any more.
	Take() (nc net.Conn, ahead []byte, err error)
}

// serving is a visit under way. But for what the lookout has, all belongs to the goroutine that serves.
type serving struct {
	*buffers
	v    *Visit
	s    *Server
	ctx  context.Context
	gone context.CancelFunc // ends ctx, because the client has left
	peer string

	left      int64 // what may be read of a head that has not come yet; see Read
	recording bool  // what is read belongs to a head

	look lookout

	// kept says that the buffers are somebody's else, for as long as it takes him to find that the connection has ended.
	kept bool
}

// buffers are what a connection has while it is served.
type buffers struct {
	br   *bufio.Reader
	bw   *bufio.Writer
	head []byte // as it came, of the request that was read last, and perhaps some of what follows it
}

// keptHead is how large a buffer for heads may be that is kept.
const keptHead = 8 << 10

var served = sync.Pool{New: func() any {
	return &buffers{bufio.NewReaderSize(nil, 4<<10), bufio.NewWriterSize(nil, 4<<10), make([]byte, 0, 1<<10)}
}}

// Serve answers requests until the connection ends, is idle or is taken. It does not close it.
func (s *Server) Serve(v *Visit) Ending {
	c := &serving{buffers: served.Get().(*buffers), v: v, s: s, peer: v.Conn.RemoteAddr().String()}
	c.ctx, c.gone = context.WithCancel(v.Context)
	c.br.Reset(c)
	c.bw.Reset(sending{c})
	defer c.release()
	for first := true; ; first = false {
		v.Rests()
		if end, come := c.await(first && v.First > 0); !come {
			return end
		}
		v.Begins()
		req, err := c.read()
		if err != nil {
			c.refuse(err)
			return Ended
		}
		if end, goOn := c.answer(req); !goOn {
			return end
		}
	}
}

// release gives back what belongs to the serving, once.
func (c *serving) release() {
	c.gone()
	c.drop()
}

// giveUp gives the buffers back before the serving has ended, and returns what had been read ahead.
func (c *serving) giveUp() (ahead []byte) {
	b, _ := c.br.Peek(c.br.Buffered()) // they are there
	ahead = append(bytes.Clone(b), c.look.ahead...)
	c.drop()
	return ahead
}

func (c *serving) drop() {
	if c.buffers == nil || c.kept {
		return
	}
	c.br.Reset(nil)
	c.bw.Reset(nil)
	if cap(c.head) > keptHead {
		c.head = nil
	}
	served.Put(c.buffers)
	c.buffers = nil
}

// await waits for the first byte of a request. What has become of the connection is of interest where none has come.
func (c *serving) await(first bool) (end Ending, come bool) {
	// Empty lines before a request are overlooked (RFC 9112, 2.2).
	for empty, waiting := 0, false; ; empty++ {
		if c.br.Buffered() == 0 && !waiting {
			wait := c.v.First
			if !first {
				wait = c.v.Next()
			}
			if waiting = true; c.v.Conn.SetReadDeadline(time.Now().Add(wait)) != nil {
				return Ended, false
			}
		}
		b, err := c.br.Peek(1)
		switch {
		case err == nil && (b[0] == '\r' || b[0] == '\n') && empty < 2*len("\r\n"):
			_, _ = c.br.Discard(1) // it is there
		case err == nil:
			return Ended, true
		case errors.Is(err, os.ErrDeadlineExceeded) && !first:
			return Idle, false
		default:
			return Ended, false
		}
	}
}

// Read reads what the client sends, for br.
func (c *serving) Read(p []byte) (int, error) {
	if c.recording {
		if c.left <= 0 {
			return 0, errTooLarge
		}
		p = p[:min(int64(len(p)), c.left)]
	}
	n, err := c.look.take(p), error(nil)
	if n == 0 {
		n, err = c.v.Conn.Read(p)
	}
	if c.recording {
		c.left -= int64(n)
		c.head = append(c.head, p[:n]...)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone()
	}
	return n, err
}

// sending is where bw writes to.
type sending struct{ c *serving }

// Write implements io.Writer.
func (s sending) Write(p []byte) (int, error) {
	n, err := s.c.v.Conn.Write(p)
	if err != nil {
		s.c.gone()
	}
	return n, err
}

// answer has the Handler answer a request, and says whether the connection goes on, or else what has become of it.
func (c *serving) answer(req *http.Request) (end Ending, goOn bool) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	w := newResponse(c, req)
	c.s.lookouts.enter(c, w.content == nil)
	defer c.s.lookouts.leave(c)
	defer func() { c.kept = !w.end() }()
	if !c.handle(w, w.request(ctx)) {
		return Ended, false
	}
	if w.taken {
		return Taken, false
	}
	if c.v.Conn.SetWriteDeadline(time.Now().Add(c.s.Stall())) != nil {
		return Ended, false
	}
	c.s.lookouts.leave(c) // TLS may have something to answer to what is read
	if err := w.finish(); err != nil {
		return Ended, false
	}
	if w.closes {
		if w.content != nil && !w.content.whole() || c.br.Buffered() > 0 {
			c.linger()
		}
		return Ended, false
	}
	return Ended, c.v.Conn.SetWriteDeadline(time.Time{}) == nil
}

// handle calls the Handler, and says whether it has come to its end. A panic costs this connection alone.
func (c *serving) handle(w *response, req *http.Request) (ended bool) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				c.s.Log.Error("answering a request panicked", "client", c.peer, "panic", p, "stack", string(debug.Stack()))
			}
		}
	}()
	c.s.Handler.ServeHTTP(w, req)
	return true
}

// refuse answers what could not be read as a request, unless nobody is there to be answered.
func (c *serving) refuse(err error) {
	var m *Malformed
	if !errors.As(err, &m) {
		return
	}
	page := c.v.Unread(m)
	if c.v.Conn.SetWriteDeadline(time.Now().Add(c.s.Stall())) != nil {
		return
	}
	if _, err := c.v.Conn.Write(page); err == nil {
		c.linger()
	}
}

// mostLingering is how many bytes are read of a connection whose last answer has been sent.
const mostLingering = 256 << 10

// linger ends the sending side, and reads for a while what the client is still sending.
func (c *serving) linger() {
	nc := c.v.Conn
	if w, ok := nc.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
		return
	}
	if nc.SetReadDeadline(time.Now().Add(c.s.Linger)) == nil {
		_, _ = io.CopyN(io.Discard, nc, mostLingering) // until the client has read the answer, and closes
	}
}
