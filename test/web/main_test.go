// Package web tests the real binary as a web gateway, with the clients and the scanner that people use: curl, wget, a
// headless Chromium, clamd.
package web

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Clean()
	os.Exit(code)
}

const cleanText = "The quick brown fox jumps over the lazy dog.\n"

func bigBody() []byte {
	b := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func compressed(t testing.TB, coding string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip":
		return harness.Gzip(t, body)
	case "deflate":
		w, err = flate.NewWriter(&b, flate.DefaultCompression)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	default:
		t.Fatalf("no coding %s", coding)
	}
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// site is what the origins of these tests serve.
func site(t testing.TB) http.Handler {
	big := bigBody()
	mux := http.NewServeMux()
	serve := func(path, typ string, body []byte) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", typ)
			w.Header().Set("Alt-Svc", `h3=":443"`)
			_, _ = w.Write(body) // the client may have left
		})
	}
	serve("/clean.txt", "text/plain", []byte(cleanText))
	serve("/empty", "text/plain", nil)
	serve("/big.bin", "application/octet-stream", big)
	serve("/eicar.com", "application/octet-stream", scan.EICAR())
	serve("/eicar.zip", "application/zip", harness.Zip(t, "eicar.com", scan.EICAR()))
	serve("/nested.zip", "application/zip", harness.Zip(t, "inner.zip", harness.Zip(t, "eicar.com", scan.EICAR())))
	serve("/eicar-late.bin", "application/octet-stream", append(bigBody(), scan.EICAR()...))
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		for name, body := range map[string][]byte{"eicar": scan.EICAR(), "clean": []byte(cleanText)} {
			enc := compressed(t, coding, body)
			mux.HandleFunc("/"+coding+"/"+name, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", coding)
				w.Header().Set("Content-Type", "text/plain")
				_, _ = w.Write(enc)
			})
		}
	}
	mux.HandleFunc("/chunked-eicar", func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range scan.EICAR() {
			_, _ = w.Write([]byte{c})
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "got %d bytes", n)
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: event %d\n\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done() // the stream itself does not end
	})
	return mux
}

// result is what a client saw.
type result struct {
	status string
	body   []byte
	header string
}

// curl runs Debian's curl through the gateway and returns what it saw.
func curl(t testing.TB, g *harness.Gateway, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	body, header := filepath.Join(dir, "body"), filepath.Join(dir, "header")
	all := append([]string{
		"-sS", "--max-time", "60", "-x", "http://" + g.Proxy, "--cacert", g.CAFile(), "-o", body, "-D", header, "-w", "%{http_code}",
	}, args...)
	cmd := exec.Command("curl", all...)
	cmd.Env = append(os.Environ(), "no_proxy=", "NO_PROXY=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("curl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	b, _ := os.ReadFile(body) // missing when nothing came
	h, _ := os.ReadFile(header)
	s := string(out)
	return result{status: s[max(0, len(s)-3):], body: b, header: string(h)}
}
