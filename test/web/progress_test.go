package web

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// largeSite has large downloads, each of which comes in two halves: the second one when release is closed.
func largeSite(clean []byte, release chan struct{}) http.Handler {
	infected := append(bytes.Clone(clean), scan.EICAR()...)
	serve := func(body []byte, name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			if name != "" {
				w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
			}
			_, _ = w.Write(body[:len(body)/2]) // the client may have left
			w.(http.Flusher).Flush()
			select {
			case <-release:
				_, _ = w.Write(body[len(body)/2:])
			case <-r.Context().Done():
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><title>Downloads</title><link rel="icon" href="data:,"><a id="clean" href="/clean.bin">clean</a>` +
			`<a id="infected" href="/infected">infected</a><a id="saved" download="saved.bin" href="/saved.bin">saved</a>`))
	})
	mux.Handle("/clean.bin", serve(clean, ""))
	mux.Handle("/saved.bin", serve(clean, ""))
	mux.Handle("/infected", serve(infected, "report.bin"))
	return mux
}

// downloads tells the browser to put downloads into the directory that it returns.
func downloads(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := chromedp.CallBrowser(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir, //nolint:misspell // the protocol's own name
	}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// until waits for a JavaScript expression to become true in the page, whatever page that is by then.
func until(ctx context.Context, t *testing.T, expression string) {
	t.Helper()
	for ctx.Err() == nil {
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression)); err == nil && ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := chromedp.Run(context.WithoutCancel(ctx), chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
	t.Fatalf("it does not come about that %s; the page is\n%s", expression, text)
}

func TestChromiumDownloadsThroughTheProgressPage(t *testing.T) {
	clean := make([]byte, 24<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(clean)
	for _, scripts := range []bool{true, false} {
		t.Run("scripts "+strconv.FormatBool(scripts), func(t *testing.T) {
			release := make(chan struct{})
			o := harness.NewOrigin(t, largeSite(clean, release))
			g := harness.Start(t, harness.Settings{"web": `hold_time = "300ms"`}, o.CA.File)
			ctx := g.Browser(t)
			dir := downloads(ctx, t)
			if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts}); err != nil {
				t.Fatal(err)
			}
			if err := chromedp.Do(ctx, chromedp.Navigate(o.URL+"/"), chromedp.Click(chromedp.CSS("#clean"))); err != nil {
				t.Fatal(err)
			}
			until(ctx, t, "document.querySelector('progress') !== null && document.querySelector('progress').value === 50")
			if shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100)); err == nil {
				_ = os.WriteFile(harness.Artefact(t, "progress-page.png"), shot, 0o600)
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 0 {
				t.Errorf("something was downloaded before the verdict: %v", names)
			}
			close(release)
			file := filepath.Join(dir, "clean.bin")
			for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				if got, err := os.ReadFile(file); err == nil && bytes.Equal(got, clean) {
					break
				}
				if time.Now().After(end) {
					names, _ := filepath.Glob(filepath.Join(dir, "*"))
					text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
					t.Fatalf("the download does not come: %v\n%s\n%s", names, text, g.Log)
				}
			}
			until(ctx, t, "document.querySelector('#file').offsetParent !== null") // the page says that it is done
		})
	}
}

func TestChromiumSeesTheBlockPageAtTheEndOfAnInfectedDownload(t *testing.T) {
	clean := make([]byte, 24<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(clean)
	release := make(chan struct{})
	o := harness.NewOrigin(t, largeSite(clean, release))
	g := harness.Start(t, harness.Settings{"web": `hold_time = "300ms"`}, o.CA.File)
	ctx := g.Browser(t)
	dir := downloads(ctx, t)
	if err := chromedp.Do(ctx, chromedp.Navigate(o.URL+"/"), chromedp.Click(chromedp.CSS("#infected"))); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "document.querySelector('progress') !== null")
	close(release)
	until(ctx, t, "document.body !== null && document.body.innerText.includes('Eicar')")
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 0 {
		t.Errorf("something was downloaded: %v", names)
	}
	if text := evaluate[string](ctx, t, "document.body.innerText"); strings.Contains(text, string(scan.EICAR())) {
		t.Error("the virus is in the page")
	}
}

// A link that says "download" saves whatever comes: it must be the file, not a page about it.
func TestChromiumSavesTheFileOfADownloadLink(t *testing.T) {
	clean := make([]byte, 6<<20)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(clean)
	release := make(chan struct{})
	o := harness.NewOrigin(t, largeSite(clean, release))
	g := harness.Start(t, harness.Settings{"web": `hold_time = "300ms"`}, o.CA.File)
	ctx := g.Browser(t)
	dir := downloads(ctx, t)
	if err := chromedp.Do(ctx, chromedp.Navigate(o.URL+"/"), chromedp.Click(chromedp.CSS("#saved"))); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { close(release) })
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if got, err := os.ReadFile(filepath.Join(dir, "saved.bin")); err == nil {
			if bytes.Equal(got, clean) {
				break
			}
			if bytes.Contains(got, []byte("<html")) {
				t.Fatalf("a page was saved: %.200q", got)
			}
		}
		if time.Now().After(end) {
			names, _ := filepath.Glob(filepath.Join(dir, "*"))
			t.Fatalf("the download does not come: %v\n%s", names, g.Log)
		}
	}
}
