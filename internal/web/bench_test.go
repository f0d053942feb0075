package web

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"lazaret/internal/scan/scantest"
)

// BenchmarkRequests sends requests over kept connections, one after another, through the gateway with an engine that says
// clean at once.
func BenchmarkRequests(b *testing.B) {
	for _, size := range []int{1 << 10, 60 << 10} {
		body := seq(size)
		h := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(body)
		}
		for _, kind := range []string{"http", "https, HTTP/1.1", "https, HTTP/2", "direct https, HTTP/1.1"} {
			b.Run(fmt.Sprintf("%s, %d bytes", kind, size), func(b *testing.B) {
				r := newRig(b, func(p *plan) { p.engine = &scantest.Func{} })
				u, c := r.tlsOrigin(h).URL, r.client(noHTTP2)
				switch kind {
				case "http":
					u = r.origin(h).URL
				case "https, HTTP/2":
					c = r.client()
				case "direct https, HTTP/1.1":
					c = r.client(noHTTP2, func(tr *http.Transport) { tr.Proxy, tr.TLSClientConfig.InsecureSkipVerify = nil, true })
				}
				b.ReportAllocs()
				for b.Loop() {
					resp, err := c.Get(u)
					if err != nil {
						b.Fatal(err)
					}
					if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) || resp.StatusCode != http.StatusOK {
						b.Fatal(resp.Status, n, err)
					}
					resp.Body.Close()
				}
			})
		}
	}
}
