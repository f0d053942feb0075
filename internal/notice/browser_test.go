package notice

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestPageInABrowser looks at the page with Chromium: styles are applied (so the nonce fits the policy), nothing runs, nothing
// is loaded, nothing is wider than a telephone. Screenshots are kept where go test is told to keep what tests make.
func TestPageInABrowser(t *testing.T) {
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	r := mustNew(t, Config{Language: "en", Organisation: "Harbour School", Contact: "help@school.example"})
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		asked = append(asked, req.URL.Path)
		mu.Unlock()
		n := everywhere(Infected, `<img src=/evil onerror="document.title='pwned'"><script src=/evil></script>`+strings.Repeat("long", 50))
		n.Reference, n.Degraded = "4FJ2-9QX0-K7", true
		res := r.Respond(req.Header.Get("Accept"), req.Header.Get("Accept-Language"), n)
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(res.Status)
		_, _ = w.Write(res.Body)
	}))
	defer s.Close()

	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-background-networking", true), chromedp.Flag("accept-lang", "de-AT,de"))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of this first call
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, dark := range []string{"light", "dark"} {
		for name, width := range map[string]int64{"phone": 360, "desktop": 1100} {
			_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: dark}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 800), chromedp.Navigate(s.URL+"/file.zip")); err != nil {
				t.Fatal(err)
			}
			got, err := chromedp.Run(ctx, chromedp.Evaluate[struct {
				Title, Lang, Border, Back string
				Width, Headings, Scripts  int
			}](`document.querySelector("details").open = true; ({
				Title: document.title, Lang: document.documentElement.lang, Width: document.documentElement.scrollWidth,
				Border: getComputedStyle(document.querySelector("main")).borderTopWidth,
				Back: getComputedStyle(document.body).backgroundColor,
				Headings: document.querySelectorAll("h1").length, Scripts: document.querySelectorAll("script, img").length})`))
			if err != nil {
				t.Fatal(err)
			}
			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(t.ArtifactDir(), "infected-"+name+"-"+dark+".png"), shot, 0o600); err != nil {
				t.Fatal(err)
			}
			if got.Title != "Gefährliche Datei aufgehalten" || got.Lang != "de" || got.Headings != 1 || got.Scripts != 0 {
				t.Errorf("%s: %+v", name, got)
			}
			if got.Width > int(width) {
				t.Errorf("%s: the page is %d wide, the screen %d", name, got.Width, width)
			}
			back := map[string]string{"light": "rgb(238, 241, 244)", "dark": "rgb(17, 22, 28)"}[dark]
			if got.Border == "0px" || got.Back != back {
				t.Errorf("%s, %s: the styles are not applied: border %s, background %s", name, dark, got.Border, got.Back)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, path := range asked {
		if path != "/file.zip" && path != "/favicon.ico" {
			t.Errorf("the page made the browser ask for %s", path)
		}
	}
	if len(asked) < 4 {
		t.Errorf("the browser asked %d times", len(asked))
	}
}
