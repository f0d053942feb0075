package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxParentHead bounds the head of a parent proxy's answer to CONNECT.
const maxParentHead = 16 << 10

// parentError is a failure of the parent proxy, as opposed to one of the origin that it reports.
type parentError struct {
	kind Kind
	err  error
}

func (e *parentError) Error() string { return "parent proxy: " + e.err.Error() }
func (e *parentError) Unwrap() error { return e.err }

// ProxyAuthorization returns the value of the Proxy-Authorization header for a parent proxy (RFC 7617), empty where its
// URL carries no credentials.
func ProxyAuthorization(u *url.URL) string {
	if u == nil || u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
}

// connectParent opens a connection to the parent proxy, TLS included where its URL says https. The operator named it, so
// it may be at a private address; it may not be this gateway.
func (d *Dialer) connectParent(ctx context.Context) (net.Conn, error) {
	raw, err := d.direct(d.parent.Host, d.judgeLoop).DialContext(ctx, "tcp", d.parent.Host)
	if err != nil {
		return nil, &parentError{Parent, err}
	}
	if d.parent.Scheme != "https" {
		return raw, nil
	}
	conf := d.opt.ParentTLS.Clone()
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if conf.ServerName == "" {
		conf.ServerName = d.parent.Hostname()
	}
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, &parentError{Parent, err}
	}
	return c, nil
}

// dialThroughParent asks the parent proxy for a tunnel to hostport (RFC 9110, 9.3.6).
func (d *Dialer) dialThroughParent(ctx context.Context, hostport string) (net.Conn, error) {
	c, err := d.connectParent(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	tunnel, err := d.askParent(c, hostport)
	if !stop() && err == nil {
		err = &parentError{Timeout, ctx.Err()}
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			return nil, &parentError{Timeout, fmt.Errorf("no answer to CONNECT: %w", ctx.Err())}
		}
		return nil, err
	}
	return tunnel, nil
}

// askParent sends CONNECT on c and returns the tunnel, with what the parent sent after its answer put back.
func (d *Dialer) askParent(c net.Conn, hostport string) (net.Conn, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", hostport, hostport)
	if auth := ProxyAuthorization(d.parent); auth != "" {
		fmt.Fprintf(&b, "Proxy-Authorization: %s\r\n", auth)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, &parentError{Parent, err}
	}
	limited := &io.LimitedReader{R: c, N: maxParentHead}
	br := bufio.NewReader(limited)
	// The body is left alone: what follows a 2xx answer to CONNECT is the tunnel, and after others the connection ends.
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // see above
	if err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("its answer's head is longer than %d bytes", maxParentHead)
		}
		return nil, &parentError{Parent, fmt.Errorf("CONNECT: %w", err)}
	}
	if resp.StatusCode/100 != 2 {
		return nil, &parentError{statusKind(resp.StatusCode), fmt.Errorf("it answered CONNECT with %q", resp.Status)}
	}
	if n := br.Buffered(); n > 0 {
		early, err := br.Peek(n)
		if err != nil {
			return nil, &parentError{Parent, err}
		}
		return &earlyConn{Conn: c, early: early}, nil
	}
	return c, nil
}

// statusKind returns the kind of failure that a parent's status means. 504 is the origin's silence; everything else,
// 502 included, may be the parent's own fault.
func statusKind(status int) Kind {
	if status == http.StatusGatewayTimeout {
		return Timeout
	}
	return Parent
}

// earlyConn gives back bytes that came right behind the parent's answer.
type earlyConn struct {
	net.Conn
	early []byte
}

// Read implements net.Conn.
func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending side, so that half-closed tunnels work.
func (c *earlyConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
