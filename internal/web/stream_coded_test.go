package web

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/notice"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// flusher is what writers of content codings have in common.
type flusher interface {
	io.WriteCloser
	Flush() error
}

func streamCoder(t *testing.T, coding string, w io.Writer) flusher {
	t.Helper()
	switch coding {
	case "gzip":
		return gzip.NewWriter(w)
	case "br":
		return brotli.NewWriter(w)
	}
	z, err := zstd.NewWriter(w)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestVirusInACodedStreamIsCutOff has the origin compress a stream without an end. Each event arrives while the stream goes
// on, and the virus does not.
func TestVirusInACodedStreamIsCutOff(t *testing.T) {
	r := newRig(t)
	for _, typ := range []string{"text/event-stream", "multipart/x-mixed-replace; boundary=b"} {
		one := func(s string) string { return "data: " + s + "\n\n" }
		if typ != "text/event-stream" {
			one = func(s string) string { return fmt.Sprintf("--b\r\nContent-Length: %d\r\n\r\n%s\r\n", len(s), s) }
		}
		for _, coding := range []string{"gzip", "br", "zstd"} {
			for _, accept := range []string{"gzip, br, zstd", "identity"} {
				next := make(chan bool)
				addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: "+typ+"\r\nContent-Encoding: "+coding+"\r\n\r\n")
					z := streamCoder(t, coding, c)
					defer z.Close() //nolint:errcheck // the gateway has hung up
					_, _ = io.WriteString(z, one("first"))
					_ = z.Flush()
					<-next
					_, _ = io.WriteString(z, one(eicarText()))
					_ = z.Flush()
					_, _ = br.ReadByte() // until the gateway hangs up
				})
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Accept-Encoding", accept)
				resp, err := r.client().Do(req)
				if err != nil {
					t.Fatalf("%s in %s: %v", typ, coding, err)
				}
				want := one("first")
				if _, params, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); params["boundary"] != "" {
					want = strings.ReplaceAll(want, "--b", "--"+params["boundary"]) + "--" + params["boundary"]
				}
				first := make([]byte, len(want))
				if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != want || resp.Header.Get("Content-Encoding") != "" {
					t.Errorf("%s in %s: the first event came as %q, %v, %v", typ, coding, first, err, resp.Header)
				}
				close(next)
				rest, err := io.ReadAll(resp.Body)
				if err == nil || len(rest) != 0 {
					t.Errorf("%s in %s: after it came %q, %v", typ, coding, rest, err)
				}
				_ = resp.Body.Close()
			}
		}
	}
}

func TestStreamInAnUnknownCodingIsRefused(t *testing.T) {
	r := newRig(t)
	u := "http://" + r.canned("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: rot13\r\n\r\ndata: x\n\n") + "/"
	resp, body := get(t, r.client(), u)
	wantPage(t, resp, body, 502, notice.OriginProtocol)
}
