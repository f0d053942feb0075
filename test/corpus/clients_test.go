package corpus

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lazaret/test/harness"
)

// every has each answer fetched by every client.
var every = flag.Bool("every", false, "fetch each answer by every client, not by some in turn")

// turn returns the clients that fetch the nth construct: one of each kind, and others in turn.
func turn(all []client, n int) []client {
	if *every {
		return all
	}
	var some, others, h2 []client
	for _, c := range all {
		switch {
		case c.always:
			some = append(some, c)
		case c.h2:
			h2 = append(h2, c)
		default:
			others = append(others, c)
		}
	}
	return append(some, others[n%len(others)], h2[n%len(h2)])
}

const patience = 20 * time.Second

func clients(t *testing.T, g *harness.Gateway, o *origins) []client {
	plain, secure := "http://"+o.plain, "https://"+o.secure
	curl1 := []string{"--compressed", "--http0.9", "--http1.1"}
	return []client{
		{name: "Go", always: true, fetch: goClient(t, g, plain)},
		{name: "Go in CONNECT", fetch: goClient(t, g, secure)},
		{name: "Go by HTTP/2", h2: true, fetch: goClient(t, g, o.h2)},
		{name: "curl --compressed", always: true, fetch: curl(g, plain, curl1...)},
		{name: "curl --compressed in CONNECT", fetch: curl(g, secure, curl1...)},
		{name: "curl by HTTP/2", h2: true, fetch: curl(g, o.h2, "--compressed", "--http2")},
		{name: "curl --raw", any: true, fetch: curl(g, plain, "--raw", "--http0.9", "--http1.1", "--ignore-content-length", "-H", "Connection: close")},
		{name: "lenient reader", always: true, any: true, fetch: rawReader(t, g, o.plain, false, "")},
		{name: "lenient reader, HTTP/1.0", any: true, fetch: rawReader(t, g, o.plain, false, "gzip, deflate, br, zstd, compress, x-foo, *")},
		{name: "lenient reader in CONNECT", any: true, fetch: rawReader(t, g, o.secure, true, "")},
	}
}

func goClient(t *testing.T, g *harness.Gateway, base string) func(*testing.T, string) outcome {
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: g.Proxy}),
		TLSClientConfig:   &tls.Config{RootCAs: g.Roots(t)},
		ForceAttemptHTTP2: true, DisableCompression: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(t *testing.T, path string) outcome {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, http.NoBody)
		if err != nil {
			t.Error(err)
			return outcome{}
		}
		req.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
		resp, err := c.Do(req)
		if err != nil {
			return outcome{}
		}
		defer resp.Body.Close()
		var raw bytes.Buffer
		_ = resp.Header.Write(&raw) // into memory
		b, err := io.ReadAll(resp.Body)
		_ = resp.Trailer.Write(&raw)
		return outcome{
			status: fmt.Sprint(resp.StatusCode), page: resp.Header.Get("X-Lazaret-Kind") != "", broken: err != nil, body: b, raw: raw.Bytes(),
		}
	}
}

func curl(g *harness.Gateway, base string, args ...string) func(*testing.T, string) outcome {
	return func(t *testing.T, path string) outcome {
		head := filepath.Join(t.TempDir(), strings.Trim(path, "/")+".head")
		all := append([]string{"-s", "--max-time", "20", "--cacert", g.CAFile(), "-x", "http://" + g.Proxy, "--suppress-connect-headers", "-D", head}, args...)
		b, err := exec.Command("curl", append(all, base+path)...).Output()
		header, _ := os.ReadFile(head) // there is none where there was no answer
		out, chunked := outcome{broken: err != nil, body: b, raw: header}, false
		for line := range strings.Lines(string(header)) {
			if f := strings.Fields(line); len(f) >= 2 && strings.HasPrefix(line, "HTTP/") {
				out.status = f[1]
			}
			line = strings.ToLower(line)
			out.page = out.page || strings.HasPrefix(line, "x-lazaret-kind:")
			chunked = chunked || strings.HasPrefix(line, "transfer-encoding: chunked")
		}
		if chunked && slices.Contains(args, "--raw") { // curl leaves the chunks as they are
			out.raw = append(out.raw, b...)
			var err error
			out.body, err = io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
			out.broken = out.broken || err != nil
		}
		_ = os.Remove(head)
		return out
	}
}

// rawReader sends a request and takes everything that comes, until the end of the connection.
func rawReader(t *testing.T, g *harness.Gateway, addr string, secure bool, accept string) func(*testing.T, string) outcome {
	roots := g.Roots(t)
	return func(t *testing.T, path string) outcome {
		c, err := net.Dial("tcp", g.Proxy)
		if err != nil {
			t.Error(err)
			return outcome{}
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		target, version := "http://"+addr+path, "1.1"
		if accept != "" {
			version = "1.0"
		}
		if secure {
			fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr)
			if resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("CONNECT: %v", err)
				return outcome{}
			}
			c = tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}})
			target = path
		}
		fmt.Fprintf(c, "GET %s HTTP/%s\r\nHost: %s\r\nConnection: close\r\n", target, version, addr)
		if accept != "" {
			fmt.Fprintf(c, "Accept-Encoding: %s\r\n", accept)
		}
		fmt.Fprint(c, "\r\n")
		raw, err := io.ReadAll(c)
		out := outcome{raw: raw, broken: err != nil}
		br := bufio.NewReader(bytes.NewReader(raw))
		for {
			resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
			if err != nil {
				return out
			}
			if resp.StatusCode < 200 {
				continue
			}
			out.status, out.page = fmt.Sprint(resp.StatusCode), resp.Header.Get("X-Lazaret-Kind") != ""
			if out.body, err = io.ReadAll(resp.Body); err != nil {
				out.broken = true
			}
			if br.Buffered() > 0 {
				t.Errorf("%s: %d bytes after the end of the answer", path, br.Buffered())
			}
			return out
		}
	}
}
