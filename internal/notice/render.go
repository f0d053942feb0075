package notice

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode/utf8"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

//go:embed templates/page.html templates/page.txt templates/progress.html
var builtIn embed.FS

// Renderer makes answers out of notices. It is safe for use by many goroutines.
type Renderer struct {
	texts        *catalogue
	html         []executor // the operator's, if any, and the built-in one
	text         []executor
	progress     []executor
	organisation string
	contact      string
	contactMail  bool
	contactWeb   bool
}

type executor interface {
	Execute(w io.Writer, data any) error
}

// New returns a Renderer. Its errors say what cannot be used in cfg, or in the operator's templates, with file and line:
// each template is tried on notices of every kind in every language.
func New(cfg Config) (*Renderer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Renderer{organisation: Clean(cfg.Organisation, maxSetting), contact: Clean(cfg.Contact, maxSetting)}
	if a, err := mail.ParseAddress(r.contact); err == nil && a.Address == r.contact {
		r.contactMail = true
	} else if u, err := url.Parse(r.contact); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
		r.contactWeb = true
	}
	var err error
	if r.texts, err = loadCatalogue(cfg); err != nil {
		return nil, err
	}
	if err := r.layouts(cfg.Templates); err != nil {
		return nil, err
	}
	return r, r.try()
}

// layouts loads the operator's templates, and the built-in ones behind them.
func (r *Renderer) layouts(dir string) error {
	if dir != "" {
		if info, err := os.Stat(dir); err != nil {
			return fmt.Errorf("templates: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("templates: %s is not a directory", dir)
		}
	}
	parseHTML := func(name, s string) (executor, error) { return template.New(name).Option("missingkey=error").Parse(s) }
	parseText := func(name, s string) (executor, error) {
		return texttemplate.New(name).Option("missingkey=error").Funcs(textFuncs).Parse(s)
	}
	var err error
	if r.html, err = layout(dir, "page.html", parseHTML); err != nil {
		return err
	}
	if r.progress, err = layout(dir, "progress.html", parseHTML); err != nil {
		return err
	}
	r.text, err = layout(dir, "page.txt", parseText)
	return err
}

func layout(dir, name string, parse func(name, s string) (executor, error)) ([]executor, error) {
	var out []executor
	if dir != "" {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err == nil {
			t, err := parse(path, string(data))
			if err != nil {
				return nil, fmt.Errorf("templates: %w", err)
			}
			out = append(out, t)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("templates: %w", err)
		}
	}
	data, err := builtIn.ReadFile("templates/" + name)
	if err != nil {
		return nil, err
	}
	t, err := parse(name, string(data))
	return append(out, t), err
}

// try renders a notice of every kind in every language by every template, so that what is broken is said at the start.
func (r *Renderer) try() error {
	for _, t := range r.texts.languages {
		if err := r.tryProgress(t); err != nil {
			return err
		}
		for _, kind := range Kinds() {
			n := Notice{
				Reference: NewReference(), Kind: kind, Time: time.Now(), Size: 1, SHA256: "00", Fault: "x", Degraded: true,
				Facts:   policy.Facts{Host: "x", URL: "http://x/", Type: "x/x"},
				Verdict: scan.InfectedVerdict("x", "x", "x"), Decision: policy.Decision{Rule: "x"},
			}
			v := r.view(t, n)
			for _, e := range append(append([]executor{}, r.html...), r.text...) {
				if err := e.Execute(io.Discard, v); err != nil {
					return fmt.Errorf("templates: %w", err)
				}
			}
		}
	}
	return nil
}

// Response is an answer to a request.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Respond returns the answer that tells n to a client with these Accept and Accept-Language header fields (RFC 9110 section
// 12.5; empty: not sent): as a page, as JSON (RFC 9457), or as text. It never fails: an operator's template that does is
// replaced by the built-in one. The header has everything that concerns the body, Content-Length included; whoever answers a
// HEAD request leaves the body out. For AuthRequired the caller adds Proxy-Authenticate.
func (r *Renderer) Respond(accept, acceptLanguage string, n Notice) Response {
	t := r.texts.choose(acceptLanguage)
	v := r.view(t, n)
	v.Nonce = nonce()
	f := negotiate(accept)
	var body []byte
	switch f {
	case jsonObject, problemJSON:
		body = r.json(v, n)
	case htmlPage:
		body = execute(r.html, v)
	default:
		body = execute(r.text, v)
	}
	return Response{Status: v.Status, Header: header(v, n, f, len(body)), Body: body}
}

func header(v View, n Notice, f format, length int) http.Header {
	h := http.Header{}
	h.Set("Content-Type", mediaTypes[f])
	h.Set("Content-Length", strconv.Itoa(length))
	h.Set("Content-Language", v.Language)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	// The page stands in the site's own origin: nothing in it may run, load or send anything.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+v.Nonce+"'; img-src data:; base-uri 'none'; form-action 'none'")
	h.Set("X-Lazaret-Reference", word(n.Reference))
	h.Set("X-Lazaret-Kind", string(v.Kind))
	if judged(v.Kind) {
		h.Set("X-Lazaret-Verdict", n.Verdict.Outcome.String())
		if n.Verdict.Reason != scan.NoReason {
			h.Set("X-Lazaret-Reason", word(string(n.Verdict.Reason)))
		}
	}
	if s := specs[v.Kind].retryAfter; s > 0 {
		h.Set("Retry-After", strconv.Itoa(s))
	}
	return h
}

// word returns s with whatever is not fit for a machine word in a header left out.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 64)]
}

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process rather than return an error
	return hex.EncodeToString(b[:])
}

// execute renders v by the first template that can.
func execute(templates []executor, v any) []byte {
	for _, t := range templates {
		var b bytes.Buffer
		if err := t.Execute(&b, v); err == nil {
			return b.Bytes()
		}
	}
	return []byte("Lazaret\n") // not reached: New has tried the built-in templates
}

func (r *Renderer) json(v View, n Notice) []byte {
	b, err := json.MarshalIndent(r.problem(v, n), "", "  ")
	if err != nil { // not reached: every member can be written, except a year beyond 9999
		return []byte("{}\n")
	}
	return append(b, '\n')
}

// textFuncs are the functions of page.txt.
var textFuncs = texttemplate.FuncMap{"wrap": wrap, "pad": pad, "width": width}

// wrap breaks s into lines of at most n characters, where it has spaces.
func wrap(n int, s string) string {
	var b strings.Builder
	column := 0
	for i, w := range strings.Fields(s) {
		k := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case column+1+k > n:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += k
	}
	return b.String()
}

// pad returns s followed by as many spaces as make n characters of it.
func pad(n int, s string) string {
	return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s)))
}

// width returns the number of characters of the longest label.
func width(tables ...[]Row) int {
	n := 0
	for _, rows := range tables {
		for _, r := range rows {
			n = max(n, utf8.RuneCountInString(r.Label))
		}
	}
	return n
}
