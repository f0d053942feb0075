package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"github.com/chromedp/chromedp"
)

// onePixel is a PNG.
const onePixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// page is a document with 50 subresources: 40 pictures, 5 scripts, 5 style sheets; and links to downloads.
func page(t testing.TB) http.Handler {
	png, err := base64.StdEncoding.DecodeString(onePixel)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><title>Fifty</title><link rel="icon" href="data:,">`)
		for i := range 5 {
			fmt.Fprintf(w, `<link rel="stylesheet" href="/s/%d.css"><script src="/j/%d.js"></script>`, i, i)
		}
		for i := range 40 {
			fmt.Fprintf(w, `<img src="/i/%d.png" onload="window.pictures=(window.pictures||0)+1">`, i)
		}
	})
	mux.HandleFunc("/i/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(png)
	})
	mux.HandleFunc("/s/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		fmt.Fprintf(w, "body { --seen%s: 1 }", strings.Trim(r.URL.Path, "/s.c"))
	})
	mux.HandleFunc("/j/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, "window.scripts=(window.scripts||0)+1")
	})
	mux.HandleFunc("/eicar.com", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", "attachment; filename=eicar.com")
		_, _ = w.Write(scan.EICAR())
	})
	return mux
}

func TestChromium(t *testing.T) {
	o := harness.NewOrigin(t, page(t))
	g := harness.Start(t, nil, o.CA.File)
	ctx := g.Browser(t)

	if err := chromedp.Do(ctx, chromedp.Navigate(o.URL+"/"), chromedp.WaitReady(chromedp.CSS("body"))); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool]("document.readyState === 'complete'")); err != nil {
		t.Fatal(err)
	}
	pictures := evaluate[int](ctx, t, "window.pictures || 0")
	scripts := evaluate[int](ctx, t, "window.scripts || 0")
	sheets := evaluate[int](ctx, t, "document.styleSheets.length")
	proto := evaluate[string](ctx, t, "performance.getEntriesByType('navigation')[0].nextHopProtocol")
	if pictures != 40 || scripts != 5 || sheets != 5 {
		t.Errorf("of 40 pictures, 5 scripts and 5 style sheets the browser has %d, %d, %d", pictures, scripts, sheets)
	}
	if proto != "h2" {
		t.Errorf("the origin speaks h2, the browser spoke %q", proto)
	}

	if err := chromedp.Do(ctx, chromedp.Navigate(o.URL+"/eicar.com"), chromedp.WaitReady(chromedp.CSS("body"))); err != nil {
		t.Fatal(err)
	}
	text := evaluate[string](ctx, t, "document.body.innerText")
	lang := evaluate[string](ctx, t, "document.documentElement.lang")
	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "Eicar") {
		t.Errorf("the block page does not name the signature:\n%s", text)
	}
	if lang != "de" {
		t.Errorf("the browser asks for German and gets %q", lang)
	}
	if err := os.WriteFile(harness.Artefact(t, "block-page.png"), shot, 0o600); err != nil {
		t.Fatal(err)
	}
}

// evaluate returns what a JavaScript expression is in the page.
func evaluate[T any](ctx context.Context, t *testing.T, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func TestWget(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, nil, o.CA.File)
	wget := func(url string) (string, error) {
		out := filepath.Join(t.TempDir(), "out")
		cmd := exec.Command("wget", "-q", "--tries=1", "--timeout=60", "--ca-certificate="+g.CAFile(), "-O", out, url)
		cmd.Env = append(os.Environ(), "https_proxy=http://"+g.Proxy, "http_proxy=http://"+g.Proxy, "no_proxy=", "NO_PROXY=")
		err := cmd.Run()
		b, _ := os.ReadFile(out) // missing when nothing came
		return string(b), err
	}
	if body, err := wget(o.URL + "/clean.txt"); err != nil || body != cleanText {
		t.Errorf("clean: %v, %q", err, body)
	}
	if body, err := wget(o.URL + "/big.bin"); err != nil || body != string(bigBody()) {
		t.Errorf("big: %v, %d bytes", err, len(body))
	}
	for _, path := range []string{"/eicar.com", "/eicar.zip", "/eicar-late.bin"} {
		if body, err := wget(o.URL + path); err == nil || strings.Contains(body, "EICAR-STANDARD") {
			t.Errorf("%s: wget ended with %v and has %d bytes", path, err, len(body))
		}
	}
}
