package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"lazaret/internal/audit"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// The bounds of the server.
const (
	maxConnections = 256
	maxHeader      = 16 << 10
	headTimeout    = 5 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = 15 * time.Second
)

// Server is the console.
type Server struct {
	cfg     Config
	src     Sources
	log     *slog.Logger
	hosts   map[string]bool
	handler http.Handler
	http    *http.Server
	check   check
}

// New returns a Server that listens nowhere yet. The error says what cannot be used in cfg.
func New(cfg Config, src Sources, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, src: src, log: log, hosts: ownNames(cfg.AllowHosts)}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.index)
	mux.HandleFunc("/healthz", s.health)
	mux.HandleFunc("/readyz", s.ready)
	for ending, form := range caForms {
		mux.HandleFunc("/ca."+ending, s.ca(form.contentType, form.encode))
	}
	mux.HandleFunc("/ca/{file}", s.oneCA)
	mux.HandleFunc("/ca-all.pem", s.allCAs)
	mux.HandleFunc("/proxy.pac", s.pac)
	mux.HandleFunc("/wpad.dat", s.pac)
	if src.Metrics != nil {
		mux.Handle("/metrics", s.private(promhttp.HandlerFor(src.Metrics, promhttp.HandlerOpts{
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError,
			MaxRequestsInFlight: 4, Timeout: writeTimeout / 2,
		})))
	}
	s.handler = s.guard(mux)
	s.http = &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headTimeout, ReadTimeout: 2 * headTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Handler returns the console as a handler, to be served under another address, too. It goes by Request.RemoteAddr.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers on l until Shutdown, and closes it. Then it returns nil; otherwise why it cannot go on.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(netutil.LimitListener(l, maxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops listening, and waits for what is being answered, until ctx ends; then it cuts that off.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// answer writes a whole body.
func answer(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) //nolint:gosec // pages come out of html/template, and nothing else is HTML
	}
}

const plain = "text/plain; charset=utf-8"

// health says that the process is alive: it answers.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	answer(w, r, http.StatusOK, plain, []byte("ok\n"))
}

// ca serves the CA's certificate in one form. No private key is within reach of this package.
func (s *Server) ca(contentType string, encode func(*x509.Certificate) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := s.certificate()
		if c == nil {
			answer(w, r, http.StatusServiceUnavailable, plain, []byte("The CA is not loaded: see the log.\n"))
			return
		}
		answer(w, r, http.StatusOK, contentType, encode(c))
	}
}

func (s *Server) certificate() *x509.Certificate {
	if s.src.CA == nil {
		return nil
	}
	return s.src.CA()
}

func (s *Server) scanners() []audit.ScannerStatus {
	if s.src.Scanners == nil {
		return nil
	}
	return s.src.Scanners()
}

// recovered answers 500 where h panics, and logs why: the next request is answered again.
func (s *Server) recovered(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("admin: a panic", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				answer(w, r, http.StatusInternalServerError, plain, []byte("An internal error: see the log.\n"))
			}
		}()
		h.ServeHTTP(w, r)
	})
}
