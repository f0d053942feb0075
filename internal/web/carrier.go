package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"

	"lazaret/internal/idle"

	"lazaret/internal/web/http1"
)

// informed takes informational answers. Its error ends the connection.
type informed = func(status int, header textproto.MIMEHeader) error

// progressed says how far a request had got that was not answered.
type progressed struct {
	wrote    bool // some of it may have reached the origin
	answered bool // some of an answer has come
}

// carrier carries requests over a connection to an origin, by HTTP/1.1 or HTTP/2.
type carrier interface {
	// ready says whether the connection can take a request.
	ready() bool
	roundTrip(out *http.Request, inform informed) (*http.Response, progressed, error)
	// Err returns why the connection can take no request any more, as far as is known; nil: it can.
	Err() error
	// park gives up what is not needed while nothing is under way. gone is called when the other side ends the connection then.
	park(gone func())
	// closeIdle ends the connection as soon as nothing is under way, Close at once.
	closeIdle()
	Close() error
}

// carrierOver makes a carrier of a connection to an origin: HTTP/2 where TLS has agreed on it. gone is called when an idle connection is
// found to have ended; nil: nobody minds.
func (s *Server) carrierOver(ctx context.Context, scheme, hostport string, nc net.Conn, gone func()) (carrier, error) {
	if tc, ok := nc.(*tls.Conn); !ok || tc.ConnectionState().NegotiatedProtocol != "h2" {
		return onHTTP1{http1.New(nc, idle.TCPBelow(nc), s.watcher, s.transport.MaxResponseHeaderBytes)}, nil
	}
	cc, err := s.transport.NewClientConn(context.WithValue(ctx, preparedKey{}, nc), scheme, hostport)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	if gone != nil {
		cc.SetStateHook(func(cc *http.ClientConn) {
			if cc.Err() != nil {
				gone()
			}
		})
	}
	return onHTTP2{cc}, nil
}

// onHTTP1 carries one request at a time.
type onHTTP1 struct{ *http1.Conn }

func (c onHTTP1) ready() bool {
	c.Wake()
	return c.Look() == nil
}

func (c onHTTP1) park(gone func()) { c.Watch(gone) }

func (c onHTTP1) closeIdle() { c.CloseIdle() }

func (c onHTTP1) roundTrip(out *http.Request, inform informed) (*http.Response, progressed, error) {
	resp, err := c.RoundTrip(out, inform)
	var failed *http1.Error
	if errors.As(err, &failed) {
		return nil, progressed{failed.Wrote, failed.Answered}, err
	}
	return resp, progressed{}, err
}

// onHTTP2 carries many.
type onHTTP2 struct{ *http.ClientConn }

func (c onHTTP2) ready() bool { return c.Err() == nil }

// park does nothing: the origin may have something to say at any time.
func (c onHTTP2) park(func()) {}

func (c onHTTP2) Close() error {
	c.SetStateHook(nil)
	return c.ClientConn.Close()
}

func (c onHTTP2) closeIdle() {
	idle := func(cc *http.ClientConn) {
		if cc.InFlight() == 0 || cc.Err() != nil {
			_ = cc.Close() // it is of no use any more
		}
	}
	c.SetStateHook(idle)
	idle(c.ClientConn)
}

func (c onHTTP2) roundTrip(out *http.Request, inform informed) (*http.Response, progressed, error) {
	var wrote, answered atomic.Bool
	ctx := httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
		WroteHeaders:         func() { wrote.Store(true) },
		GotFirstResponseByte: func() { answered.Store(true) },
		Got1xxResponse:       inform,
	})
	resp, err := c.RoundTrip(out.WithContext(ctx))
	return resp, progressed{wrote.Load(), answered.Load()}, err
}

type preparedKey struct{}

// dialPrepared hands the transport the connection that carrierOver was given.
func dialPrepared(ctx context.Context, _, addr string) (net.Conn, error) {
	c, ok := ctx.Value(preparedKey{}).(net.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection to %s was asked for that nobody has opened", addr)
	}
	return c, nil
}
