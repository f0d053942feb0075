package intercept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"lazaret/internal/egress"
)

// The bounds of what is fetched from authorities.
const (
	fetchAtOnce = 16  // under way, of each fetcher
	fetchQueue  = 256 // that wait for one of these places
	fetchWait   = 5 * time.Second
)

// unnamedPlace is why certificates that nobody has vouched for lead to no private address: whoever makes one could have the
// gateway send requests to machines that only it can reach.
const unnamedPlace = "a certificate names it, and only certificates below extra_roots may name such a place"

// errCrowded says that too much else was being fetched. It is no fault of the place, and not remembered as one.
var errCrowded = errors.New("too many are being fetched at the moment")

// fetcher fetches what certificates say the place of: the issuer's own certificate, and lists of revoked ones.
type fetcher struct {
	client *http.Client
	queue  chan struct{}
	places chan struct{}
}

// newFetcher returns a fetcher that dials with d, so that it reaches no address that d forbids.
func newFetcher(d *egress.Dialer) *fetcher {
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10, ResponseHeaderTimeout: fetchWait}
	tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return d.Dial(ctx, addr) }
	if parent := d.ParentURL(); parent != nil {
		parent.Scheme = "http" // DialParent has made the parent's TLS already
		tr.Proxy = http.ProxyURL(parent)
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			origin, _ := ctx.Value(fetchOrigin{}).(string)
			return d.DialParent(ctx, origin)
		}
	}
	return &fetcher{
		client: &http.Client{
			Transport: tr,
			// An authority serves its files where it says; a redirection would lead anywhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		queue:  make(chan struct{}, fetchAtOnce+fetchQueue),
		places: make(chan struct{}, fetchAtOnce),
	}
}

// fetchOrigin is the key of the context value that says which host:port a fetch through a parent proxy is for.
type fetchOrigin struct{}

// fetch returns what is at a place, at most limit bytes of it; more is an error. ctx bounds it.
func (f *fetcher) fetch(ctx context.Context, place string, limit int64) ([]byte, error) {
	select {
	case f.queue <- struct{}{}:
		defer func() { <-f.queue }()
	default:
		return nil, errCrowded
	}
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errCrowded, ctx.Err())
	}
	u, err := url.Parse(place)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return nil, errors.New("not a plain http URL")
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	if n, err := strconv.Atoi(port); err != nil || (n != 80 && n < 1024) {
		return nil, fmt.Errorf("port %s is another service's", port)
	}
	ctx = context.WithValue(ctx, fetchOrigin{}, net.JoinHostPort(u.Hostname(), port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "lazaret")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer was %q", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return b, nil
}

// recovered turns a panic of a goroutine that others wait for into its error. It has to be deferred.
func recovered(log *slog.Logger, err *error) {
	if p := recover(); p != nil {
		log.Error("panic while something was fetched", "panic", p, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", p)
	}
}
