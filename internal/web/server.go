// Package web is the HTTP proxy: it takes clients' requests, in the clear and inside TLS that internal/intercept opened,
// sends them to their origins, and has every body, of requests and of responses, judged by the gate before it goes on.
//
// Package http1 answers the requests of HTTP/1.1, those to the proxy and those inside the connections that CONNECT asked for, and net/http
// those of HTTP/2. Each connection of a client has its own connections to origins, which end with it.
package web

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/idle"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
	"lazaret/internal/web/http1"
)

// Interceptor decides about connections and opens them; *intercept.Interceptor is one.
type Interceptor interface {
	// Decide says what is to be done with a connection before anything of it was read.
	Decide(ctx context.Context, t intercept.Target) intercept.Decision
	// Accept reads what the client says first, and returns the session that comes of it. With an error there is nobody
	// left to answer.
	Accept(ctx context.Context, c net.Conn, t intercept.Target) (*intercept.Session, error)
	// Open opens a verified connection to the origin of an https URL that a client gave to the proxy itself. The error is
	// a *intercept.Fault.
	Open(ctx context.Context, t intercept.Target) (*tls.Conn, error)
}

// Dialer opens connections to origins; *egress.Dialer is one.
type Dialer interface {
	Dial(ctx context.Context, hostport string) (net.Conn, error)
	// ParentURL returns the parent proxy, nil where there is none, and DialParent connects to it for requests to origin.
	ParentURL() *url.URL
	DialParent(ctx context.Context, origin string) (net.Conn, error)
}

// Renderer turns a notice into a response; *notice.Renderer is one.
type Renderer interface {
	Respond(accept, acceptLanguage string, n notice.Notice) notice.Response
	// Progress shows how far a download is.
	Progress(accept, acceptLanguage string, p notice.Progress) notice.Response
}

// Options are the proxy's parts. All but Self are needed.
type Options struct {
	Gate        *gate.Gate
	Interceptor Interceptor
	Dialer      Dialer
	Pages       Renderer
	Self        http.Handler // answers requests that are for the gateway itself; nil: a short text does
	// MostConnections and MostOrigins bound the connections of clients and to origins, whatever the settings say: there is only so
	// much to have. 0: the settings alone do, and nothing does.
	MostConnections, MostOrigins int
	Log                          *slog.Logger
}

// Server is the proxy. It is safe for use by many goroutines.
type Server struct {
	opt       Options
	settings  atomic.Pointer[settings]
	pseudonym string // in Via: this process, and no other
	http1     *http1.Server
	http2     *http.Server
	feed      *feed        // opened connections on their way to http2
	late      *http.Server // serves those that were opened when http2 had begun to end: one request each
	lateFeed  *feed
	lateOnly  atomic.Bool // http2 is given nothing more
	retired   atomic.Bool // another process has taken over
	transport *http.Transport
	limits    *limiter
	turns     *turns
	store     *store
	stopped   *stopped
	jobs      *jobs
	parkAfter time.Duration
	origins   *openOrigins
	idle      *idlers
	watcher   *idle.Watcher
	pressure  *pressure

	ctx    context.Context // ends when nothing may go on any more
	cancel context.CancelFunc

	inside    sync.Map // net.Conn of HTTP/2 → *client
	mu        sync.Mutex
	draining  bool // nothing new is taken
	ended     bool // nothing goes on
	listeners []net.Listener
	visits    map[*client]struct{}    // connections whose requests of HTTP/1.1 are answered
	relays    map[*carried]struct{}   // connections that were taken from it
	parked    map[*client]*idle.Watch // connections that are idle
	leaving   int                     // connections that are being turned away
	wg        sync.WaitGroup          // their goroutines, and those of Serve
}

// New returns a proxy that serves nothing yet, and an error when cfg cannot be used.
func New(cfg Config, opt Options) (*Server, error) {
	s := &Server{
		opt: opt, feed: newFeed(), lateFeed: newFeed(), visits: map[*client]struct{}{}, relays: map[*carried]struct{}{}, parked: map[*client]*idle.Watch{},
		limits: newLimiter(), turns: newTurns(), store: newStore(), stopped: newStopped(), jobs: newJobs(), origins: newOpenOrigins(opt.MostOrigins),
		idle: newIdlers(), parkAfter: parkAfter,
	}
	if err := s.Use(cfg); err != nil {
		return nil, err
	}
	var err error
	if s.watcher, err = idle.New(); err != nil {
		return nil, err
	}
	s.pressure = newPressure(opt.Gate.Room())
	opt.Gate.OnShortage(func() bool { return s.store.shrink() || s.jobs.shrink() })
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process rather than return an error
	s.pseudonym = "lazaret-" + hex.EncodeToString(id[:])
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.transport = newTransport(cfg)
	s.http1 = s.newHTTP1(cfg)
	s.http2, s.late = s.newHTTP2(cfg), s.newHTTP2(cfg)
	s.late.SetKeepAlivesEnabled(false)
	s.serveFeed(s.http2, s.feed)
	return s, nil
}

func (s *Server) serveFeed(h *http.Server, f *feed) {
	s.wg.Go(func() {
		if err := h.Serve(f); !errors.Is(err, http.ErrServerClosed) {
			s.opt.Log.Error("an HTTP server has ended", "error", err)
		}
	})
}

// newHTTP2 returns a server without ReadTimeout and WriteTimeout: an answer may be held for as long as it is fetched and
// scanned. Slow clients are ended by watchdogs.
func (s *Server) newHTTP2(cfg Config) *http.Server {
	h := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.serveInside(w, r)
			if r.Context().Err() == nil { // what is left is sent by net/http, which knows no time for it
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.settings.Load().StallTimeout.Std())) // of this stream alone
			}
		}),
		ReadHeaderTimeout:            cfg.HeaderTimeout.Std(),
		IdleTimeout:                  cfg.IdleTimeout.Std(),
		MaxHeaderBytes:               int(cfg.MaxHeader),
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return s.ctx },
		ConnContext:                  s.connContext,
		ConnState:                    s.connState,
		Protocols:                    new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          cfg.MaxStreams,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     512 << 10,
			WriteByteTimeout:              cfg.StallTimeout.Std(),
		},
	}
	h.Protocols.SetHTTP2(true)
	return h
}

// Use has the proxy work by other settings from now on, and returns an error, and changes nothing, when they cannot be
// used. What belongs to the sockets and to HTTP's own timeouts (listen, transparent, max_header, max_response_header,
// max_streams, header_timeout, idle_timeout) stays as it was at the start.
func (s *Server) Use(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	next := &settings{Config: cfg, pacing: pacing{stall: cfg.StallTimeout.Std(), rate: int64(cfg.MinRate)}}
	if cfg.AuthFile != "" {
		users, err := openUsers(cfg.AuthFile, s.opt.Log)
		if err != nil {
			return fmt.Errorf("auth_file: %w", err)
		}
		next.users = users
	}
	s.settings.Store(next)
	most := cfg.MaxConnections
	if s.opt.MostConnections > 0 {
		most = min(most, s.opt.MostConnections)
	}
	s.limits.set(most, cfg.MaxConnectionsClient)
	s.stopped.forget() // what was a reason may be none any more
	s.store.limit(int64(cfg.RangeCacheSize), cfg.RangeCacheTime.Std())
	return nil
}

// settings is what Use exchanges.
type settings struct {
	Config
	pacing
	users *users // nil: nobody needs to authenticate
}

// bodyLimit is the limit of one body, 0 for the spool's.
func (s *settings) bodyLimit() int64 { return int64(s.MaxBody) }

// Serve takes connections of explicit-proxy clients from l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error { return s.accept(l, "proxy", s.takeProxied) }

// accept has take serve the connections that come to l, until Shutdown.
func (s *Server) accept(l net.Listener, what string, take func(net.Conn)) error {
	if !s.enlist(l) {
		return nil
	}
	defer s.wg.Done()
	for {
		nc, err := l.Accept()
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			take(nc)
		case s.ending():
			return nil
		case errors.As(err, &temporary) && temporary.Temporary():
			s.opt.Log.Warn("accepting a connection", "error", err)
			time.Sleep(50 * time.Millisecond) // file descriptors run out, and come back
		default:
			return fmt.Errorf("%s on %v: %w", what, l.Addr(), err)
		}
	}
}

// enlist has Shutdown close l; it says false where the service has ended already.
func (s *Server) enlist(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		_ = l.Close() // nobody accepts from it
		return false
	}
	s.listeners = append(s.listeners, l)
	s.wg.Add(1)
	return true
}

// ending says whether Shutdown was called.
func (s *Server) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Shutdown stops taking connections, lets what is under way end, closes what is idle, and returns when everything has
// ended. When ctx ends before that, the rest is cut off, and the error is the context's.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for _, l := range s.listeners {
		_ = l.Close() // Accept returns, and that is all that matters
	}
	s.mu.Unlock()
	s.closeParked()

	// A client that has just connected finds its connection served, also where it becomes one of HTTP/2.
	s.serveFeed(s.late, s.lateFeed)
	s.lateOnly.Store(true)
	catchUp()
	http2 := make(chan error, 1)
	go func() { http2 <- s.http2.Shutdown(ctx) }()
	err := s.drain(ctx)
	catchUp()
	err = errors.Join(err, s.late.Shutdown(ctx), <-http2)
	// Whatever is left has outstayed ctx.
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cancel()
	s.jobs.close()
	s.store.close()
	err = errors.Join(err, s.http2.Close(), s.late.Close())
	s.closeVisits()
	s.closeRelays()
	s.wg.Wait()
	s.transport.CloseIdleConnections()
	err = errors.Join(err, s.watcher.Close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// catchUp waits for connections to be noted that were handed over just now: by a listener, or to net/http, whose Shutdown does not see
// others, so that they would be closed with it.
func catchUp() { time.Sleep(50 * time.Millisecond) }

// newTransport returns the maker of HTTP/2 connections to origins; package http1 has the others. It never makes requests by itself, and
// so has no pool.
func newTransport(cfg Config) *http.Transport {
	t := &http.Transport{
		DisableCompression:     true, // codings are the gate's affair
		MaxResponseHeaderBytes: int64(cfg.MaxResponseHeader),
		Protocols:              new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerConnection: 4<<20 - 1,
			MaxReceiveBufferPerStream:     1 << 20,
			WriteByteTimeout:              cfg.StallTimeout.Std(),
		},
		DialContext:    dialPrepared,
		DialTLSContext: dialPrepared,
	}
	t.Protocols.SetHTTP2(true)
	return t
}
