package notice

import (
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

// The longest values that are shown, in characters.
const (
	showURL      = 160
	showName     = 120
	showFault    = 300
	showFindings = 5
)

// View is what a template of a page is given. Its texts are in the reader's language and, where they come from outside,
// fit to be shown (see Clean); html/template escapes them.
type View struct {
	Language     string // a tag of RFC 5646, for the lang attribute
	Kind         Kind
	Tone         string // "danger", "caution" or "trouble"
	Status       int    // the HTTP status
	Nonce        string // for <style nonce="…">: styles without it are not applied
	Title        string // one line: what happened
	Why          []string
	Do           string // what the reader can do
	Rows         []Row  // what concerns the reader; the last two are reference number and time
	Details      []Row  // what concerns technicians; may be empty
	Help         string // whom to turn to
	Contact      string // empty: not configured
	ContactURL   string // mailto:, http: or https:; empty: Contact is not a link
	Footer       string
	Degraded     string // a warning; empty: there is nothing to warn of
	Signatures   string // of when the signatures are, "Virus signatures: 2026-11-22"; empty: not known
	Organisation string
	Label        Labels
}

// Row is a line of a table.
type Row struct {
	Name  string // a fixed English word, for templates: "found", "inside", "address", "reference" …
	Label string
	Value string
}

// Labels are the headings of a page.
type Labels struct{ Why, Do, Details, Contact string }

// view returns what is shown of n in that language.
func (r *Renderer) view(t *texts, n Notice) View {
	kind := n.Kind.known()
	v := View{
		Language: t.tag.String(), Kind: kind, Tone: string(specs[kind].tone), Status: kind.Status(),
		Label:   Labels{Why: t.get("page.why"), Do: t.get("page.do"), Details: t.get("page.details"), Contact: t.get("page.contact")},
		Contact: r.contact, ContactURL: r.contactURL(n.Reference), Organisation: r.organisation,
		Help: t.get("page.help"), Footer: t.get("page.footer"),
	}
	if r.contact != "" {
		v.Help = t.get("page.help-contact")
	}
	if r.organisation != "" {
		v.Footer = t.get("page.footer-organisation")
	}
	if n.Degraded {
		v.Degraded = t.get("page.degraded")
	}
	if !n.Signatures.IsZero() {
		v.Signatures = t.get("page.signatures") + ": " + n.Signatures.Format("2006-01-02")
	}
	explain(&v, t, n)
	v.Rows = append(findingRows(t, n), placeRows(t, n)...)
	v.Rows = append(v.Rows, Row{"reference", t.get("page.reference"), Clean(n.Reference, showName)})
	if !n.Time.IsZero() {
		v.Rows = append(v.Rows, Row{"time", t.get("page.time"), n.Time.Format("2006-01-02 15:04:05 -07:00")})
	}
	v.Details = detailRows(t, n)
	return v
}

// explain sets title, reasons and advice: those of the kind, and the more specific ones of the verdict's reason or of the
// origin's fault, where there are any.
func explain(v *View, t *texts, n Notice) {
	id := "kind." + string(v.Kind)
	if v.Kind == Infected && n.Facts.Direction == policy.Upload {
		id = "kind.infected-upload"
	}
	v.Title, v.Do = t.get(id+".title"), t.get(id+".do")
	specific := ""
	switch v.Kind {
	case NotScanned, Unavailable:
		specific = "reason." + string(n.Verdict.Reason)
	case OriginCert, OriginTLS, OriginDNS, OriginRefused, OriginTimeout, OriginProtocol:
		specific = "fault." + n.FaultKind
	}
	if why := t.get(specific + ".why"); why != "" {
		v.Why = append(v.Why, why)
	}
	if do := t.get(specific + ".do"); do != "" {
		v.Do = do
	}
	if specific == "fault.client-certificate" {
		return // the kind's says that nothing was sent, and the site asks when it has the request
	}
	v.Why = append(v.Why, t.get(id+".why"))
}

func findingRows(t *texts, n Notice) []Row {
	if n.Verdict.Outcome != scan.Infected {
		return nil
	}
	var rows []Row
	found := n.Verdict.Findings
	for i, f := range found {
		if i == showFindings {
			rows = append(rows, Row{"more", "", t.more(len(found) - showFindings)})
			break
		}
		value := Clean(f.Signature, showName)
		if f.Engine != "" {
			value += " (" + Clean(f.Engine, showName) + ")"
		}
		rows = append(rows, Row{"found", t.get("page.found"), value})
		if f.Path != "" {
			rows = append(rows, Row{"inside", t.get("page.inside"), Clean(f.Path, showName)})
		}
	}
	return rows
}

// placeRows says which address it is about, or at least which site.
func placeRows(t *texts, n Notice) []Row {
	switch {
	case n.Facts.URL != "":
		return []Row{{"address", t.get("page.address"), Clean(shortURL(n.Facts.URL), showURL)}}
	case n.Facts.Host != "":
		return []Row{{"site", t.get("page.site"), Clean(n.Facts.Host, showName)}}
	}
	return nil
}

// shortURL leaves the query of a long URL out: the file's name says more to people.
func shortURL(u string) string {
	if i := strings.IndexByte(u, '?'); i >= 0 && utf8.RuneCountInString(u) > showURL {
		return u[:i] + "?…"
	}
	return u
}

func detailRows(t *texts, n Notice) []Row {
	var rows []Row
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, Row{name, t.get("page." + name), value})
		}
	}
	add("fault", Clean(n.Fault, showFault))
	add("rule", Clean(n.Decision.Rule, showName))
	add("type", Clean(n.Facts.Type, showName))
	if n.Size >= int64(units.KiB) {
		add("size", units.Size(n.Size).String())
	} else if n.Size > 0 {
		add("size", strconv.FormatInt(n.Size, 10)+" B")
	}
	add("checksum", Clean(n.SHA256, showName))
	add("quarantine", Clean(n.Quarantine, showName))
	return rows
}

// contactURL returns what the contact links to: a mail address with the reference as the subject, or a web address. Anything
// else is no link.
func (r *Renderer) contactURL(reference string) string {
	switch {
	case r.contactMail:
		u := url.URL{Scheme: "mailto", Opaque: url.PathEscape(r.contact)}
		return strings.ReplaceAll(u.String(), "%40", "@") + "?subject=" + url.PathEscape("Lazaret "+reference)
	case r.contactWeb:
		return r.contact
	}
	return ""
}

// problem is a notice for programs: an object of RFC 9457, with members of our own.
type problem struct {
	Type       string         `json:"type"`
	Title      string         `json:"title"`
	Status     int            `json:"status"`
	Detail     string         `json:"detail"`
	Instance   string         `json:"instance"`
	Advice     string         `json:"advice"`
	Reference  string         `json:"reference"`
	Kind       Kind           `json:"kind"`
	Time       *time.Time     `json:"time,omitempty"`
	Outcome    string         `json:"outcome,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Action     string         `json:"action,omitempty"`
	Rule       string         `json:"rule,omitempty"`
	Signature  string         `json:"signature,omitempty"`
	Findings   []scan.Finding `json:"findings,omitempty"`
	URL        string         `json:"url,omitempty"`
	Host       string         `json:"host,omitempty"`
	Direction  string         `json:"direction,omitempty"`
	MediaType  string         `json:"media_type,omitempty"`
	Size       int64          `json:"size,omitempty"`
	SHA256     string         `json:"sha256,omitempty"`
	Quarantine string         `json:"quarantine,omitempty"`
	Fault      string         `json:"fault,omitempty"`
	FaultKind  string         `json:"fault_kind,omitempty"`
	RetryAfter int            `json:"retry_after,omitempty"` // seconds
	Contact    string         `json:"contact,omitempty"`
	Degraded   bool           `json:"degraded"`
}

// The longest values in JSON, in characters. Programs are given more than people, and cut it themselves.
const (
	jsonURL      = 2048
	jsonText     = 512
	jsonFindings = 16
)

// tagURI begins the identifiers of RFC 9457: tag URIs (RFC 4151), since there is no page to be looked up.
const tagURI = "tag:lazaret.internal,2026:"

func (r *Renderer) problem(v View, n Notice) problem {
	p := problem{
		Type: tagURI + "problem:" + string(v.Kind), Title: v.Title, Status: v.Status, Detail: strings.Join(v.Why, " "),
		Instance: tagURI + "reference:" + word(n.Reference), Advice: v.Do, Reference: Clean(n.Reference, showName),
		Kind: v.Kind, URL: Clean(n.Facts.URL, jsonURL), Host: Clean(n.Facts.Host, jsonText),
		Direction: Clean(string(n.Facts.Direction), showName), MediaType: Clean(n.Facts.Type, jsonText), Size: n.Size,
		SHA256: Clean(n.SHA256, showName), Quarantine: Clean(n.Quarantine, showName), Fault: Clean(n.Fault, jsonText), FaultKind: Clean(n.FaultKind, showName),
		Rule: Clean(n.Decision.Rule, jsonText), RetryAfter: specs[v.Kind].retryAfter, Contact: r.contact, Degraded: n.Degraded,
	}
	if !n.Time.IsZero() {
		p.Time = &n.Time
	}
	if judged(v.Kind) {
		p.Outcome, p.Reason, p.Action = n.Verdict.Outcome.String(), Clean(string(n.Verdict.Reason), showName), n.Decision.Action.String()
	}
	for _, f := range n.Verdict.Findings[:min(len(n.Verdict.Findings), jsonFindings)] {
		p.Findings = append(p.Findings, scan.Finding{
			Engine: Clean(f.Engine, jsonText), Signature: Clean(f.Signature, jsonText), Path: Clean(f.Path, jsonText),
		})
	}
	if len(p.Findings) > 0 {
		p.Signature = p.Findings[0].Signature
	}
	return p
}

// judged says whether a notice of that kind is about a verdict.
func judged(k Kind) bool {
	return k == Infected || k == NotScanned || k == NotAllowed || k == Unavailable
}
