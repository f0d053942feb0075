package admin

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

//go:embed templates/index.html
var indexText string

var indexTemplate = template.Must(template.New("index.html").Parse(indexText))

// The bounds of the page.
const (
	latest   = 50
	showText = 100 // characters
)

// indexView is what the page shows. The parts that are not for everybody are nil for outsiders.
type indexView struct {
	Nonce     string
	Version   string
	Ready     bool
	CAs       []caView   // the one in use is the first; empty: not loaded
	T         *pageTexts // the part for everybody, in the language of the browser
	Lang      string
	Host      string // where this page was asked for, for links that are typed elsewhere
	Proxies   []string
	Reachable bool
	State     *stateView
}

type stateView struct {
	Problems     []string
	Scanners     []scannerView
	Memory, Disk string
	Totals       *totalsView
	Records      []recordView
}

type scannerView struct {
	Name, Address, Engine, Signatures, Age, Problem string
	Up, Required                                    bool
}

type totalsView struct {
	audit.Totals
	Bytes, Since string
}

type recordView struct {
	Time, What, Class, Where, Why, Client, Reference, Action string
}

// index serves the page: for everybody how to trust and use the gateway, for insiders its state.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	problems := s.Problems(r.Context())
	v := indexView{Nonce: nonce(), Version: notice.Clean(s.src.Version, showText), Ready: len(problems) == 0, Host: notice.Clean(r.Host, showText)}
	v.Proxies, v.Reachable = s.proxies(r)
	v.CAs = s.caViews()
	v.Lang, v.T = textsFor(r.Header.Get("Accept-Language"))
	w.Header().Set("Vary", "Accept-Language")
	if s.insider(r) {
		v.State = s.state(problems)
	}
	var b bytes.Buffer
	if err := indexTemplate.Execute(&b, v); err != nil {
		panic(err) // a template of fixed fields, written to memory
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+v.Nonce+
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	answer(w, r, http.StatusOK, "text/html; charset=utf-8", b.Bytes())
}

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process rather than return an error
	return hex.EncodeToString(b[:])
}

func (s *Server) state(problems []string) *stateView {
	v := &stateView{}
	for _, p := range problems {
		v.Problems = append(v.Problems, notice.Clean(p, 4*showText))
	}
	for _, sc := range s.scanners() {
		x := scannerView{
			Name: notice.Clean(sc.Name, showText), Address: notice.Clean(sc.Address, showText), Up: sc.Up, Required: sc.Required,
			Engine: notice.Clean(sc.Version.Engine, showText), Signatures: notice.Clean(sc.Version.Signatures, showText),
			Problem: notice.Clean(sc.Problem, 4*showText),
		}
		if !sc.Version.Updated.IsZero() {
			x.Age = age(time.Since(sc.Version.Updated))
		}
		v.Scanners = append(v.Scanners, x)
	}
	if s.src.Spool != nil {
		memory, disk := s.src.Spool()
		v.Memory, v.Disk = bytesText(memory), bytesText(disk)
	}
	if s.src.Records != nil {
		t := s.src.Records.Totals()
		v.Totals = &totalsView{Totals: t, Bytes: bytesText(int64(t.Bytes)), Since: t.Since.Format(time.DateTime)}
		for _, r := range s.src.Records.Recent(latest) {
			v.Records = append(v.Records, record(r))
		}
	}
	return v
}

func record(r audit.Record) recordView {
	v := recordView{
		Time: r.Time.Format(time.DateTime), Reference: notice.Clean(r.Reference, showText), Action: r.Decision.Action.String(),
		Where: r.Facts.URL,
	}
	if r.Facts.Client.IsValid() {
		v.Client = r.Facts.Client.String()
	}
	if v.Where == "" {
		v.Where = r.Facts.Host
	}
	if path, _, query := strings.Cut(v.Where, "?"); query && len(v.Where) > showText {
		v.Where = path + "?…"
	}
	v.Where = notice.Clean(v.Where, showText)
	switch r.Event {
	case audit.Exempt, audit.Refuse:
		v.What, v.Class, v.Why = string(r.Event), string(r.Event), r.Detail
		if r.Kind != "" {
			v.What += " (" + notice.Clean(r.Kind, showText) + ")"
		}
		v.Action = ""
	default:
		v.What, v.Class = r.Verdict.Outcome.String(), r.Verdict.Outcome.String()
		v.Why = string(r.Verdict.Reason)
		if len(r.Verdict.Findings) > 0 {
			v.Why = r.Verdict.Findings[0].Signature
		}
		if r.Verdict.Outcome != scan.Clean && r.Decision.Action == policy.Pass {
			v.Class = "passed"
		}
	}
	v.Why = notice.Clean(v.Why, showText)
	return v
}

// age writes a duration as people say it.
func age(d time.Duration) string {
	if d < 0 {
		return "in the future"
	}
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		if n := int64(d / u.d); n > 0 {
			name := u.name
			if n > 1 {
				name += "s"
			}
			return fmt.Sprintf("%d %s ago", n, name)
		}
	}
	return "just now"
}

func bytesText(n int64) string {
	if n < int64(units.KiB) {
		return units.Size(max(n, 0)).String() + " B"
	}
	return units.Size(n).String()
}
