package corpus

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"lazaret/test/harness"
)

// TestCorpusOfUploadsByHTTP2 uploads what has no framing of its own by HTTP/2, within CONNECT, to an origin that speaks it.
func TestCorpusOfUploadsByHTTP2(t *testing.T) {
	ca := harness.NewCA(t)
	var mu sync.Mutex
	got := map[string][]arrived{}
	h2 := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got[r.URL.Path] = append(got[r.URL.Path], arrived{raw: []byte(r.Proto + " " + fmt.Sprint(r.Header, r.Trailer)), body: body, odd: err})
	}))
	h2.EnableHTTP2 = true
	h2.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "127.0.0.1")}}
	h2.StartTLS()
	t.Cleanup(h2.Close)
	g := harness.Start(t, quick, ca.File)
	tr := &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: g.Proxy}), TLSClientConfig: &tls.Config{RootCAs: g.Roots(t)}, ForceAttemptHTTP2: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	infected, clean := payload()
	r := newReport(t)
	for i, c := range slices.Concat(codings(), oddCodings(), undeclared(), documents(), charsets(), types()) {
		for _, content := range [][]byte{infected, clean} {
			m := c.make(content)
			if m.raw != "" {
				continue
			}
			u := upload{
				family: c.family, name: c.name, valid: c.valid, infected: &content[0] == &infected[0],
				wants: [][]byte{m.want, m.body, m.sent},
			}
			path := fmt.Sprintf("/%d-%v", i, u.infected)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h2.URL+path, bytes.NewReader(m.body))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range m.head {
				name, value, _ := strings.Cut(line, ":")
				req.Header.Add(name, strings.TrimSpace(value))
			}
			var a answered
			resp, err := tr.RoundTrip(req)
			if err != nil {
				continue // what cannot be said in HTTP/2 was not sent
			}
			a.status, a.page = resp.StatusCode, resp.Header.Get("X-Lazaret-Kind") != ""
			if resp.ProtoMajor != 2 {
				t.Fatalf("%s: %s", c.name, resp.Proto)
			}
			_ = resp.Body.Close()
			mu.Lock()
			came := got[path]
			mu.Unlock()
			r.add(t, u.family, func(f *tally) { f.cases++; f.judgeUpload(t, &u, "HTTP/2", a, came) })
		}
	}
	r.print(t, 1)
}
