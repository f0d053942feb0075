package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/intercept"
)

// fresh is how old a connection may be to count as new: an origin that closes it without an answer means the request.
const fresh = time.Second

// origin is the one connection to an origin that belongs to one connection of a client. Nobody else's requests go over
// it: an origin that ties identity to a connection (NTLM, TLS sessions) must not mix two users up.
type origin struct {
	server           *Server
	scheme, hostport string
	// dial makes a new connection, over which TLS has been agreed on where the scheme is https.
	dial func(ctx context.Context) (net.Conn, error)
	// gone is called when the origin has closed the connection while nothing was under way; nil: nobody minds.
	gone func()

	mu    sync.Mutex
	via   carrier  // nil: there is no connection
	nc    net.Conn // below via
	born  time.Time
	sent  int
	ended bool

	users atomic.Int32 // exchanges that use it now
}

// errAbort says that the client's connection is to be ended without an answer, as the origin did it.
var errAbort = errors.New("the origin closed a connection that had been used before")

// connect returns the connection, a new one where there is none or it is dead, and whether it had been in use.
func (o *origin) connect(ctx context.Context) (via carrier, reused bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.via != nil && o.via.ready() {
		reused = o.sent > 0 || time.Since(o.born) > fresh
		o.sent++
		return o.via, reused, nil
	}
	if err := o.openLocked(ctx); err != nil {
		return nil, false, err
	}
	o.sent++
	return o.via, false, nil
}

// start opens the connection ahead of the first request. It is idle until then, and watched as any idle one: what the origin sends before
// it was asked is no answer.
func (o *origin) start(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.openLocked(ctx); err != nil {
		return err
	}
	o.parkLocked()
	return nil
}

func (o *origin) openLocked(ctx context.Context) error {
	if o.ended {
		return net.ErrClosed
	}
	if o.via != nil {
		_ = o.via.Close() // it is dead already
		o.via, o.nc = nil, nil
	}
	if o.gone != nil {
		o.server.origins.again(o) // there are as many as connections of clients
	} else if !o.server.origins.enter(o) {
		return errTooManyOrigins
	}
	nc, err := o.dial(ctx)
	if err != nil {
		o.server.origins.leave(o)
		return err
	}
	via, err := o.server.carrierOver(ctx, o.scheme, o.hostport, nc, o.gone)
	if err != nil {
		o.server.origins.leave(o)
		return err
	}
	o.born, o.sent, o.via, o.nc = time.Now(), 0, via, nc
	return nil
}

// park gives up what the connection does not need while there is no request. It is called while there is none.
func (o *origin) park() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.parkLocked()
}

func (o *origin) parkLocked() {
	if o.via == nil || o.ended {
		return
	}
	gone := o.gone
	if gone == nil {
		gone = o.forget
	}
	o.via.park(gone)
	if o.gone == nil && o.via.Err() != nil {
		o.hangUpLocked() // it has ended already, and nobody will be told
		o.server.origins.leave(o)
	}
}

// forget closes a connection that the origin has ended in its sleep.
func (o *origin) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.via != nil && o.via.Err() != nil {
		_ = o.via.Close() // it is of no use any more
		o.via, o.nc = nil, nil
		o.server.origins.leave(o)
	}
}

// below returns the network connection that the last request went over, for a switch of protocols.
func (o *origin) below() net.Conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.nc
}

// close ends the connection, and every exchange that uses it. There will be no other.
func (o *origin) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.server.origins.leave(o)
	o.hangUpLocked()
}

// hangUpLocked ends the connection.
func (o *origin) hangUpLocked() {
	if o.via != nil {
		_ = o.via.Close() // what was under way fails by it, as intended
	}
	o.via, o.nc = nil, nil
}

// detach takes the connection away from the client's, because a request that is under way there goes on without it; later ones
// get another. release ends it as soon as nothing is under way there.
func (o *origin) detach() (release func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	via := o.via
	if via == nil {
		return func() {}
	}
	o.via, o.nc = nil, nil
	o.server.origins.leave(o) // there are few of these at a time
	return via.closeIdle
}

// dead says whether the connection is known to have ended from the other side.
func (o *origin) dead() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.via != nil && o.via.Err() != nil
}

// roundTrip sends out and returns the head of the answer; informational answers are given to inform before. A request that the origin
// has surely not acted upon, or may be asked to act upon twice (RFC 9110, 9.2.2), is sent once more when the connection turns out to
// be dead. Of others the error is errAbort: a client that sees its own connection close knows what to do.
func (o *origin) roundTrip(out *http.Request, inform informed) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		via, reused, err := o.connect(out.Context())
		if err != nil {
			return nil, err
		}
		resp, got, err := via.roundTrip(out, inform)
		if err == nil {
			return resp, nil
		}
		switch {
		case out.Context().Err() != nil || !reused || got.answered || attempt > 1 || intercept.Renegotiates(err) || intercept.WantsHTTP11(err):
			return nil, err
		case once(out), got.wrote && !idempotent(out.Method) && !refusedUnseen(err):
			return nil, errors.Join(errAbort, err)
		}
		out = out.WithContext(out.Context()) // the first attempt may have its own still
		if out.GetBody != nil {
			if out.Body, err = out.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// idempotent says whether a request may be repeated without asking (RFC 9110, 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// once says whether a request's content can be sent only once: it is not held.
func once(out *http.Request) bool {
	return out.Body != nil && out.Body != http.NoBody && out.GetBody == nil
}

// streamError is shaped like the error of net/http's HTTP/2 for one stream, which errors.As converts to any such type.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return e.Cause.Error() }

// refusedStream is HTTP/2's REFUSED_STREAM.
const refusedStream = 0x7

// refusedUnseen says whether an HTTP/2 origin has promised that it did not act on the request (RFC 9113, 8.7).
func refusedUnseen(err error) bool {
	var stream streamError
	if errors.As(err, &stream) {
		return stream.Code == refusedStream
	}
	// net/http has no other name for a request above the last stream that a GOAWAY covers.
	return strings.Contains(err.Error(), "graceful shutdown GOAWAY")
}
