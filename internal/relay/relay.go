package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// chunk is how much is copied under one set of deadlines. A peer that takes less than this in the idle time is given up,
// which bounds how slowly a tunnel can be drained.
const chunk = 256 << 10

// bufferSize is what one TLS record needs, with room for the next one's beginning.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// ErrIdle says that nothing moved in either direction for the idle time.
var ErrIdle = errors.New("nothing was sent or received for the idle time")

// Counts are the bytes that a relay moved.
type Counts struct {
	Up   int64 // from a to b
	Down int64 // from b to a
}

// Copy moves bytes from a to b and from b to a until both directions have ended, and closes both. The end of one
// direction is passed on as a half-close, and the other goes on. It ends early when ctx is done, when nothing moved either
// way for idle (which must be greater than zero; it may take twice as long to be noticed), or when a direction fails. The error is nil when both directions ended
// by themselves, ErrIdle, the context's cause, or what a read or a write reported. No goroutine is left behind.
func Copy(ctx context.Context, a, b net.Conn, idle time.Duration) (Counts, error) {
	if idle <= 0 {
		return Counts{}, errors.Join(errors.New("relay: the idle time must be greater than zero"), a.Close(), b.Close())
	}
	r := &relay{idle: idle}
	r.touch()
	stop := context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })

	var (
		wg   sync.WaitGroup
		errs [2]error
		n    [2]int64
	)
	run := func(i int, dst, src net.Conn) {
		n[i], errs[i] = r.oneWay(dst, src)
		if errs[i] != nil {
			_, _ = a.Close(), b.Close() // the other direction has nothing to wait for
		}
	}
	wg.Go(func() { run(0, b, a) })
	run(1, a, b)
	wg.Wait()
	stop()
	_, _ = a.Close(), b.Close()

	counts := Counts{Up: n[0], Down: n[1]}
	if ctx.Err() != nil {
		return counts, context.Cause(ctx)
	}
	return counts, first(errs[:])
}

// first returns the error that began it: that one closes both connections, so the other one may be net.ErrClosed.
func first(errs []error) error {
	var closed error
	for _, err := range errs {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			closed = err
		}
	}
	return closed
}

// relay is what both directions share.
type relay struct {
	idle time.Duration
	last atomic.Int64 // when something moved, in nanoseconds of time.Now
}

func (r *relay) touch() { r.last.Store(time.Now().UnixNano()) }

// oneWay copies src to dst until src ends, and then ends dst's receiving side.
func (r *relay) oneWay(dst, src net.Conn) (n int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("relay: panic: %v", p)
		}
	}()
	if n, err = r.prefix(dst, src); err != nil {
		return n, err
	}
	for {
		m, err := r.step(dst, src)
		n += m
		if m > 0 {
			r.touch()
		}
		if errors.Is(err, io.EOF) {
			r.touch()
			if err := closeWrite(dst); err != nil && !errors.Is(err, net.ErrClosed) {
				return n, fmt.Errorf("ending the other side: %w", err)
			}
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// prefix sends what was put back in front of src, so that what follows can go through the kernel.
func (r *relay) prefix(dst, src net.Conn) (int64, error) {
	p, ok := src.(*Prefixed)
	if !ok {
		return 0, nil
	}
	prefix := p.take()
	if len(prefix) == 0 {
		return 0, nil
	}
	if err := dst.SetWriteDeadline(time.Now().Add(r.idle)); err != nil {
		return 0, err
	}
	m, err := dst.Write(prefix)
	return int64(m), err
}

// step copies up to one chunk, and returns io.EOF at the end of src, ErrIdle when the relay has been idle for too long,
// and nil when there is more to do.
//
// What the kernel splices is known when a step ends, at the latest after half the idle time; so the other direction gives
// up half the idle time later than it would by its own clock. The write deadline lies behind the read deadline: one that
// struck before it was the read's, with nothing lost on the way.
func (r *relay) step(dst, src net.Conn) (int64, error) {
	now := time.Now()
	writeBy := now.Add(r.idle + time.Second)
	if err := errors.Join(src.SetReadDeadline(now.Add(r.idle/2)), dst.SetWriteDeadline(writeBy)); err != nil {
		return 0, err
	}
	m, err := copyChunk(dst, src)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return m, err
	}
	if !time.Now().Before(writeBy) || (m == 0 && time.Since(time.Unix(0, r.last.Load())) >= r.idle+r.idle/2) {
		return m, ErrIdle
	}
	return m, nil
}

// copyChunk copies up to one chunk and returns io.EOF at the end of src. Between two TCP connections the kernel does it:
// *net.TCPConn.ReadFrom splices from an io.LimitedReader over a *net.TCPConn.
func copyChunk(dst, src net.Conn) (int64, error) {
	s, d := tcpOf(src), tcpOf(dst)
	if s == nil || d == nil {
		buf := buffers.Get().(*[bufferSize]byte)
		defer buffers.Put(buf)
		m, err := src.Read(buf[:])
		if m > 0 {
			if _, werr := dst.Write(buf[:m]); werr != nil {
				return int64(m), werr
			}
		}
		return int64(m), err
	}
	limited := &io.LimitedReader{R: s, N: chunk}
	m, err := d.ReadFrom(limited)
	if err == nil && limited.N > 0 {
		err = io.EOF
	}
	return m, err
}
