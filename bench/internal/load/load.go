// Package load fetches bodies of the benchmark's origin through an alternative, checks that they came whole, and keeps
// the times.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/bench/internal/origin"
)

// Route is the way to the origin: through a proxy, or directly, with the CA that the client must see at the end.
type Route struct {
	Proxy string // host:port; empty: none
	Roots *x509.CertPool
}

func (r Route) tls(host string) *tls.Config {
	return &tls.Config{RootCAs: r.Roots, ServerName: host, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
}

// Client is one client with at most one connection at a time: HTTP/1.1 in TLS, through CONNECT where there is a proxy. It
// resumes no TLS sessions. It is for one goroutine, Bytes apart.
type Client struct {
	tr    *http.Transport
	check *origin.Checker
	buf   []byte
	bytes atomic.Int64
}

// New returns a client that takes the route r.
func New(r Route) *Client {
	cfg := r.tls("")
	tr := &http.Transport{
		TLSClientConfig:     cfg,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1,
		ReadBufferSize:      64 << 10,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1 alone
	}
	if r.Proxy != "" {
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: r.Proxy})
	}
	return &Client{tr: tr, check: origin.NewChecker(), buf: make([]byte, 64<<10)}
}

// Close gives up the client's connection. The next request makes a new one.
func (c *Client) Close() { c.tr.CloseIdleConnections() }

// Bytes returns how many bytes of bodies have arrived so far. It is safe for use by many goroutines.
func (c *Client) Bytes() int64 { return c.bytes.Load() }

// Times of one request, from before the connection is made, where one must be.
type Times struct {
	First time.Duration // to the body's first byte
	Total time.Duration // to the body's end
}

// StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Body   []byte // its beginning
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the answer is %d %s", e.Status, http.StatusText(e.Status))
}

// Get fetches the body of size bytes at url. It returns an error when another or no whole body comes.
func (c *Client) Get(ctx context.Context, url string, size int64) (Times, error) {
	t, err := c.fetch(ctx, url, func(length int64) error {
		if length != size {
			return fmt.Errorf("the answer to a request for %d bytes announces %d bytes", size, length)
		}
		return nil
	}, c.check)
	if sum := c.check.Check(size); err == nil {
		err = sum
	}
	return t, err
}

// Fetch writes the body at url to w, whatever it is. Its error is a *StatusError for an answer other than 200.
func (c *Client) Fetch(ctx context.Context, url string, w io.Writer) (Times, error) {
	return c.fetch(ctx, url, func(int64) error { return nil }, w)
}

func (c *Client) fetch(ctx context.Context, url string, length func(int64) error, w io.Writer) (t Times, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return t, err
	}
	began := time.Now()
	resp, err := c.tr.RoundTrip(req)
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // for the message; a part will do
		return t, &StatusError{resp.StatusCode, b}
	}
	// A proxy may pass a body on in chunks: then its length shows at its end.
	if resp.ContentLength >= 0 {
		if err := length(resp.ContentLength); err != nil {
			return t, err
		}
	}
	for {
		n, err := resp.Body.Read(c.buf)
		if n > 0 {
			if t.First == 0 {
				t.First = time.Since(began)
			}
			c.bytes.Add(int64(n))
			if _, err := w.Write(c.buf[:n]); err != nil {
				return t, err
			}
		}
		if err == io.EOF {
			t.Total = time.Since(began)
			return t, nil
		}
		if err != nil {
			return t, err
		}
	}
}

// Result is what came of a run.
type Result struct {
	Requests  int           // answered in full
	Errors    int           // failed
	FirstErr  error         // one of the failures
	Elapsed   time.Duration // from the first request's begin to the last one's end
	Latencies []time.Duration
}

// Quantile returns the latency that the share q (0 to 1) of the requests did not exceed, 0 when there were none.
func (r *Result) Quantile(q float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	slices.Sort(r.Latencies)
	return r.Latencies[max(0, int(math.Ceil(q*float64(len(r.Latencies))))-1)]
}

// Rate returns the requests a second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Elapsed.Seconds()
}

// Job says what a client does over and over.
type Job struct {
	URL     string
	Size    int64
	Fresh   bool          // a new connection for each request
	Timeout time.Duration // for one request; a longer one has failed
}

// Run has each client do j for the duration d, each beginning its next request when the last has ended, and lets those
// under way at the end come to theirs.
func Run(ctx context.Context, clients []*Client, j Job, d time.Duration) *Result {
	var (
		mu   sync.Mutex
		all  Result
		wg   sync.WaitGroup
		from = time.Now()
	)
	for _, c := range clients {
		wg.Go(func() {
			var mine Result
			for time.Since(from) < d && ctx.Err() == nil {
				t, err := c.once(ctx, j)
				if err != nil {
					mine.Errors++
					mine.FirstErr = err
					c.Close()
					continue
				}
				mine.Requests++
				mine.Latencies = append(mine.Latencies, t.Total)
			}
			mu.Lock()
			defer mu.Unlock()
			all.Requests += mine.Requests
			all.Errors += mine.Errors
			if all.FirstErr == nil {
				all.FirstErr = mine.FirstErr
			}
			all.Latencies = append(all.Latencies, mine.Latencies...)
		})
	}
	wg.Wait()
	all.Elapsed = time.Since(from)
	return &all
}

func (c *Client) once(ctx context.Context, j Job) (Times, error) {
	ctx, cancel := context.WithTimeout(ctx, j.Timeout)
	defer cancel()
	t, err := c.Get(ctx, j.URL, j.Size)
	if j.Fresh {
		c.Close()
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("no whole answer within %v", j.Timeout)
	}
	return t, err
}

// Hold opens a connection along r to the origin at host:port, fetches path over it once, and returns it open and idle.
func Hold(ctx context.Context, r Route, host, port, path string) (net.Conn, error) {
	target := net.JoinHostPort(host, port)
	var d net.Dialer
	addr := r.Proxy
	if addr == "" {
		addr = target
	}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := converse(raw, r, host, target, path)
	if err != nil {
		_ = raw.Close() // the first error is the one that counts
		return nil, err
	}
	return conn, nil
}

func converse(raw net.Conn, r Route, host, target, path string) (net.Conn, error) {
	if err := raw.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	if r.Proxy != "" {
		if err := exchange(raw, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n", http.MethodConnect); err != nil {
			return nil, fmt.Errorf("CONNECT: %w", err)
		}
	}
	conn := tls.Client(raw, r.tls(host))
	if err := exchange(conn, "GET "+path+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n", http.MethodGet); err != nil {
		return nil, err
	}
	return conn, raw.SetDeadline(time.Time{})
}

// exchange sends a request and reads the answer, which must be 200.
func exchange(conn net.Conn, request, method string) error {
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	// Nobody speaks after the answer before being asked: nothing can be left in the buffer that is thrown away.
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &StatusError{Status: resp.StatusCode}
	}
	if method == http.MethodConnect {
		return nil
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
