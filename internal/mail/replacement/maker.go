package replacement

import (
	"fmt"
	"net/mail"
	"net/netip"
	"os"
	"strings"
	"time"

	"lazaret/internal/mail/header"
	"lazaret/internal/notice"
	"lazaret/internal/scan"

	"golang.org/x/text/language"
)

// Mail is a message that is not delivered.
type Mail struct {
	// Head is its beginning: the header, and what follows it. Nothing of what follows is looked at.
	Head []byte
	// Kept are the fields that the replacement begins with, byte for byte, each with its CRLF.
	Kept   []byte
	Client netip.AddrPort
	Server netip.AddrPort // the zero value: not known; the notice's host is shown instead
	Notice notice.Notice
}

// Maker makes notices. It is safe for use by many goroutines.
type Maker struct {
	cfg        Config
	recipients map[string]string
	template   *template // nil: none
	explain    *notice.Renderer
	fallback   string // the language of those who name none
	version    string
	host       string
	domain     string
}

// New returns a Maker. The renderer has the explanations, and fallback is the language of those who have no other. version is
// the program's. Its errors say what cannot be used in cfg, or in the template.
func New(cfg Config, explain *notice.Renderer, fallback, version string) (*Maker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Maker{cfg: cfg, recipients: map[string]string{}, explain: explain, fallback: fallback, version: version}
	for _, r := range cfg.Recipients {
		who, lang, err := recipient(r)
		if err != nil {
			return nil, fmt.Errorf("recipients: %w", err)
		}
		m.recipients[who] = lang
	}
	if cfg.Template != "" {
		b, err := os.ReadFile(cfg.Template)
		if err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
		if m.template, err = parseTemplate(b); err != nil {
			return nil, fmt.Errorf("template: %s: %w", cfg.Template, err)
		}
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	m.host, m.domain, _ = strings.Cut(name, ".")
	return m, nil
}

// original is what is shown of a message: decoded, and fit to be shown.
type original struct {
	header.Header
}

// showValue is how many characters of a field are shown.
const showValue = 300

// shown returns a field's value for people.
func (o original) shown(name string) string {
	return notice.Clean(header.Decode(o.Value(name)), showValue)
}

// Make returns the message that stands in x's place. It begins with x.Kept, its lines end in CRLF and have 998 bytes at most
// and all after x.Kept is ASCII, apart from those parts of a template that stay as they are.
func (m *Maker) Make(x Mail) []byte {
	o := original{header.Parse(x.Head)}
	lang := m.language(o, x.Notice)
	t := locales[lang]
	kept := header.Parse(append(x.Kept[:len(x.Kept):len(x.Kept)], "\r\n"...))
	b := append([]byte(nil), x.Kept...)
	add := func(name, value string) { b = append(b, name+": "+value+"\r\n"...) }
	if len(kept.All("date")) == 0 {
		when := x.Notice.Time
		if when.IsZero() {
			when = time.Now()
		}
		add("Date", when.Format(time.RFC1123Z))
	}
	if len(kept.All("from")) == 0 {
		add("From", "Mail gateway <postmaster@"+m.address()+">")
	}
	if len(kept.All("to")) == 0 {
		add("To", "undisclosed-recipients:;")
	}
	add("Auto-Submitted", "auto-generated") // RFC 3834: no vacation reply answers it
	subject := m.subject(t, x.Notice)
	if m.template != nil && x.Notice.Kind == notice.Infected {
		return m.template.append(b, subject, m.macros(t, o, x))
	}
	add("Subject", header.Encode(subject))
	add("Content-Language", lang)
	return appendBuiltIn(b, m.page(t, lang, o, x))
}

// address is the gateway's own name, fit for an address.
func (m *Maker) address() string {
	full := strings.Trim(m.host+"."+m.domain, ".")
	for _, r := range full {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.", r) {
			return "localhost"
		}
	}
	if full == "" {
		return "localhost"
	}
	return full
}

// virus returns the names of what was found.
func virus(n notice.Notice) string {
	if len(n.Verdict.Findings) == 0 {
		return ""
	}
	return notice.Clean(n.Verdict.Findings[0].Signature, 100)
}

func (m *Maker) subject(t texts, n notice.Notice) string {
	s := t.notScanned
	what := string(n.Verdict.Reason)
	switch n.Kind {
	case notice.Infected:
		s, what = t.infected, virus(n)
		if m.cfg.Subject != "" {
			s = m.cfg.Subject
		}
	case notice.NotAllowed:
		s, what = t.notAllowed, notice.Clean(n.Fault, 100)
	}
	if what == "" {
		what = n.Reference
	}
	return s + " " + what
}

// language returns the language of a notice: the recipient's, the configured one, the one that the original names, the last
// resort.
func (m *Maker) language(o original, n notice.Notice) string {
	if l := m.ofRecipient(o, n); l != "" {
		return base(l)
	}
	if m.cfg.Language != "" {
		return base(m.cfg.Language)
	}
	for _, name := range []string{"content-language", "accept-language"} {
		value := o.Value(name)
		if len(value) > 500 {
			continue
		}
		tags, _, err := language.ParseAcceptLanguage(value)
		if err != nil {
			continue
		}
		for _, tag := range tags {
			if b, _ := tag.Base(); locales[b.String()].infected != "" {
				return b.String()
			}
		}
	}
	return base(m.fallback)
}

// base returns the language that there is of a tag.
func base(tag string) string {
	if t, err := language.Parse(tag); err == nil {
		if b, _ := t.Base(); locales[b.String()].infected != "" {
			return b.String()
		}
	}
	return "en"
}

// maxRecipients bounds how many addresses are looked up.
const maxRecipients = 20

func (m *Maker) ofRecipient(o original, n notice.Notice) string {
	if len(m.recipients) == 0 {
		return ""
	}
	who := []string{n.Facts.User}
	for _, name := range []string{"delivered-to", "x-original-to", "envelope-to", "to", "cc"} {
		value := o.Value(name)
		if list, err := mail.ParseAddressList(value); err == nil {
			for _, a := range list {
				who = append(who, a.Address)
			}
		} else {
			who = append(who, value)
		}
	}
	for _, w := range who[:min(len(who), maxRecipients)] {
		w = strings.ToLower(strings.Trim(w, " <>"))
		if l, ok := m.recipients[w]; ok {
			return l
		}
		_, domain, _ := strings.Cut(w, "@")
		for domain != "" {
			if l, ok := m.recipients[domain]; ok {
				return l
			}
			_, domain, _ = strings.Cut(domain, ".")
		}
	}
	return ""
}

// Removed returns what stands in the place of an attachment that was taken out of a mail, by the rule of that name, in the
// recipient's language. head is the mail's beginning, for what it says of the language.
func (m *Maker) Removed(head []byte, n notice.Notice, name, rule string) string {
	t := locales[m.language(original{header.Parse(head)}, n)]
	if name == "" {
		name = "?"
	}
	return fmt.Sprintf(t.removed, notice.Clean(header.Decode(name), 100), notice.Clean(rule, 100), notice.Clean(n.Reference, 100))
}

func (m *Maker) quarantine(t texts, n notice.Notice) string {
	switch {
	case n.Quarantine != "":
		return notice.Clean(n.Quarantine, 100)
	case m.cfg.Deleted != "":
		return m.cfg.Deleted
	}
	return t.deleted
}

func server(x Mail) string {
	if x.Server.IsValid() {
		return x.Server.Addr().Unmap().String()
	}
	return notice.Clean(x.Notice.Facts.Host, 200)
}

// program is what the gateway calls itself.
const program = "Lazaret"

// macros returns what P3Scan's macros stand for.
func (m *Maker) macros(t texts, o original, x Mail) map[string]string {
	n := x.Notice
	engine := ""
	if f := n.Verdict.Findings; len(f) > 0 {
		engine = notice.Clean(f[0].Engine, 100)
	}
	port := ""
	client := n.Facts.Client.Unmap().String()
	if x.Client.IsValid() {
		client, port = x.Client.Addr().Unmap().String(), fmt.Sprint(x.Client.Port())
	}
	serverPort := ""
	if x.Server.IsValid() {
		serverPort = fmt.Sprint(x.Server.Port())
	}
	return map[string]string{
		"HOSTNAME": notice.Clean(m.host, 100), "DOMAINNAME": notice.Clean(m.domain, 200), "PROGNAME": program, "VERSION": m.version,
		"CLIENTIP": client, "CLIENTPORT": port, "SERVERIP": server(x), "SERVERPORT": serverPort,
		"PROTOCOL": strings.ToUpper(notice.Clean(n.Facts.Protocol, 20)), "VDINFO": engine,
		"MAILDATE": o.shown("date"), "MAILFROM": o.shown("from"), "MAILTO": o.shown("to"), "SUBJECT": o.shown("subject"),
		"USERNAME": notice.Clean(n.Facts.User, 100), "VIRUSNAME": virus(n), "MAILFILE": m.quarantine(t, n),
		"P3SCANID": program + " " + m.version,
	}
}

// page is what the built-in notice shows.
type page struct {
	lang, title, why, do, help, footer string
	rows                               [][2]string
	colon                              string
}

func (m *Maker) page(t texts, lang string, o original, x Mail) page {
	n := x.Notice
	v := m.explain.View(lang, n)
	p := page{lang: lang, title: m.subject(t, n), do: t.doOther, footer: fmt.Sprintf(t.footer, notice.Clean(m.address(), 200)), colon: t.colon}
	row := func(label, value string) {
		if value != "" {
			p.rows = append(p.rows, [2]string{label, value})
		}
	}
	switch n.Kind {
	case notice.Infected:
		p.why, p.do = t.whyInfected, t.doInfected
		for _, r := range v.Rows {
			switch r.Name {
			case "found":
				row(t.virus, r.Value)
			case "inside", "more":
				row(r.Label, r.Value)
			}
		}
	case notice.NotAllowed:
		p.why = t.whyNotAllowed
		row(t.reason, notice.Clean(n.Fault, showValue))
	default:
		p.why = t.whyNotScanned
		if len(v.Why) > 1 {
			p.why += " " + v.Why[0]
		}
		if n.Verdict.Reason != scan.NoReason {
			row(t.reason, string(n.Verdict.Reason))
		}
	}
	row(t.from, o.shown("from"))
	row(t.to, o.shown("to"))
	row(t.date, o.shown("date"))
	row(t.subject, o.shown("subject"))
	client := n.Facts.Client.Unmap().String()
	if x.Client.IsValid() {
		client = x.Client.String()
	}
	row(t.connection, fmt.Sprintf(t.connectionText, strings.ToUpper(notice.Clean(n.Facts.Protocol, 20)), server(x), client))
	row(t.quarantine, m.quarantine(t, n))
	row(t.reference, notice.Clean(n.Reference, 100))
	if v.Contact != "" {
		p.help = v.Label.Contact + t.colon + v.Contact
	}
	return p
}
