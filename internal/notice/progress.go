package notice

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"lazaret/internal/units"
)

// Phase says how far the file is that a progress page is about.
type Phase string

// The phases.
const (
	Fetching Phase = "fetching" // the site is sending it
	Checking Phase = "checking" // it is there, and being judged
	Ready    Phase = "ready"    // it may be had
)

// Progress is the state of a download that somebody waits for in a browser. Its fields are data: whoever renders it escapes
// them.
type Progress struct {
	Phase   Phase
	Name    string // the file's
	URL     string // where it comes from
	Fetched int64  // bytes
	Total   int64  // bytes; 0 or less: not known
	Status  string // path and query where the next state is
	File    string // path and query of the file, when it is Ready
}

// progressRefresh is how often a browser asks for the next state, in seconds.
const progressRefresh = 2

// progressView is what progress.html is given.
type progressView struct {
	Language, Nonce, Title, Why, Wait, Link, Footer string
	Ready                                           bool
	Percent                                         int // 0 to 100; -1: not known
	Amount                                          string
	Rows                                            []Row
	Status, File                                    string
	Refresh                                         int
}

func (r *Renderer) progressView(t *texts, p Progress) progressView {
	v := progressView{
		Language: t.tag.String(), Ready: p.Phase == Ready, Title: t.get("progress." + string(p.Phase)), Why: t.get("progress.why"),
		Wait: t.get("progress.wait"), Link: t.get("progress.link"), Footer: t.get("page.footer"), Percent: -1,
		Status: p.Status, File: p.File, Refresh: progressRefresh,
		Rows: []Row{
			{"name", t.get("progress.name"), Clean(p.Name, showName)},
			{"address", t.get("page.address"), Clean(shortURL(p.URL), showURL)},
		},
	}
	if r.organisation != "" {
		v.Footer = t.get("page.footer-organisation")
	}
	if v.Ready {
		v.Wait = t.get("progress.begins")
	}
	v.Amount = amount(p.Fetched)
	switch {
	case p.Phase != Fetching:
		v.Percent = 100
	case p.Total > 0:
		v.Percent = int(min(max(p.Fetched, 0), p.Total) * 100 / p.Total)
		v.Amount += " / " + amount(p.Total)
	}
	return v
}

// tryProgress is try for the progress page.
func (r *Renderer) tryProgress(t *texts) error {
	for _, phase := range []Phase{Fetching, Checking, Ready} {
		v := r.progressView(t, Progress{Phase: phase, Name: "x", URL: "http://x/", Fetched: 1, Total: 2, Status: "/x", File: "/x"})
		for _, e := range r.progress {
			if err := e.Execute(io.Discard, v); err != nil {
				return fmt.Errorf("templates: %w", err)
			}
		}
	}
	return nil
}

func amount(n int64) string {
	if n < int64(units.KiB) {
		return strconv.FormatInt(max(n, 0), 10) + " B"
	}
	size, name := float64(n)/float64(units.KiB), " KiB"
	for _, next := range []string{" MiB", " GiB", " TiB"} {
		if size < 1024 {
			break
		}
		size, name = size/1024, next
	}
	return strconv.FormatFloat(size, 'f', 1, 64) + name
}

// progressState is the same for the page's script.
type progressState struct {
	Phase   Phase  `json:"phase"`
	Title   string `json:"title"`
	Wait    string `json:"wait"`
	Amount  string `json:"amount"`
	Percent int    `json:"percent"` // -1: not known
	File    string `json:"file,omitempty"`
}

// Progress returns the page that shows p, in the language that acceptLanguage prefers, or the state as JSON where accept asks
// for that (RFC 9110, 12.5). The page works without scripts: it refreshes itself. It never fails: an operator's progress.html
// that does is replaced by the built-in one.
func (r *Renderer) Progress(accept, acceptLanguage string, p Progress) Response {
	t := r.texts.choose(acceptLanguage)
	v := r.progressView(t, p)
	v.Nonce = nonce()
	var body []byte
	h := http.Header{}
	if f := negotiate(accept); f == jsonObject || f == problemJSON {
		h.Set("Content-Type", "application/json")
		body, _ = json.Marshal(progressState{ // all of it can be written
			Phase: p.Phase, Title: v.Title, Wait: v.Wait, Amount: v.Amount, Percent: v.Percent, File: p.File,
		})
	} else {
		h.Set("Content-Type", mediaTypes[htmlPage])
		body = execute(r.progress, v)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Content-Language", v.Language)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // the address is a secret
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Lazaret-Kind", "progress")
	// The page stands in the site's own origin: but for its own script, which asks for the state, nothing in it may run, load or
	// send anything.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+v.Nonce+"'; script-src 'nonce-"+v.Nonce+
		"'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	return Response{Status: http.StatusOK, Header: h, Body: body}
}
