package attachment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"regexp"
	"strings"

	"lazaret/internal/content"
	"lazaret/internal/mail/message"
	"lazaret/internal/spool"

	"github.com/microcosm-cc/bluemonday"
	"golang.org/x/net/html/charset"
)

// What there is to be disarmed.
const (
	disarmOff    = "off"
	disarmActive = "active"
	disarmAll    = "all"
)

// HTMLConfig is mail.html.
type HTMLConfig struct {
	Disarm string `toml:"disarm" doc:"what is taken out of the HTML of mails: \"active\": all but text, its looks, links and pictures (scripts, forms, frames, style sheets); \"all\": what programs fetch from elsewhere when they show the mail, too, which tells its sender that it was read; \"off\": nothing, and HTML stays as it is, byte for byte. Signatures of mails whose HTML was changed (S/MIME, DKIM) no longer fit"`
}

// DefaultHTML returns the settings that work without a file: HTML stays as it is.
func DefaultHTML() HTMLConfig { return HTMLConfig{Disarm: disarmOff} }

// Validate returns what cannot be used in c.
func (c HTMLConfig) Validate() error {
	switch c.Disarm {
	case disarmOff, disarmActive, disarmAll:
		return nil
	}
	return fmt.Errorf("disarm: %q is not one of %q", c.Disarm, []string{disarmOff, disarmActive, disarmAll})
}

// maxHTML is the largest HTML, decoded, that is disarmed; mails with larger ones are replaced.
const maxHTML = 8 << 20

// HTML disarms the HTML of mails: what passes is only what is known to be harmless. It is safe for use by many goroutines. A nil
// *HTML leaves everything as it is.
type HTML struct {
	policy *bluemonday.Policy
	armed  *regexp.Regexp
}

// NewHTML returns what cfg says, and nil with no error where nothing is disarmed.
func NewHTML(cfg HTMLConfig) (*HTML, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Disarm == disarmOff {
		return nil, nil //nolint:nilnil // a nil HTML is one that leaves all as it is
	}
	all := cfg.Disarm == disarmAll
	h := &HTML{policy: harmless(all), armed: active}
	if all {
		h.armed = activeOrRemote
	}
	return h, nil
}

var (
	active         = regexp.MustCompile(armedActive)
	activeOrRemote = regexp.MustCompile(armedActive + `|(?:src|background|srcset|poster)\s*=|url\s*\(`)
)

// armedActive finds what would be taken out, in whatever could be HTML.
const armedActive = `(?i)<\s*(?:script|iframe|frame|object|embed|applet|form|meta|link|base|svg|math|style)\b|[\s"'/]on[a-z]+\s*=|(?:java|vb)script\s*:`

var (
	number = regexp.MustCompile(`^[0-9]{1,5}(?:%|px)?$`)
	inMail = regexp.MustCompile(`(?i)^cid:`)
	word1  = regexp.MustCompile(`^[#A-Za-z0-9 ,._-]{1,100}$`)
)

// looks are the properties of style attributes that fetch nothing and cover nothing else.
var looks = strings.Fields(`color background-color font font-family font-size font-style font-variant font-weight letter-spacing
	line-height text-align text-decoration text-indent text-transform vertical-align white-space word-spacing
	border border-bottom border-bottom-color border-bottom-style border-bottom-width border-collapse border-color border-left
	border-left-color border-left-style border-left-width border-radius border-right border-right-color border-right-style
	border-right-width border-spacing border-style border-top border-top-color border-top-style border-top-width border-width
	height margin margin-bottom margin-left margin-right margin-top max-height max-width min-height min-width
	padding padding-bottom padding-left padding-right padding-top table-layout width clear float display direction`)

// harmless is what passes: text, its looks, links that are followed by choice, and pictures, of which only those in the mail
// itself where nothing may be fetched.
func harmless(fetchNothing bool) *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	//nolint:misspell // it is HTML's word
	p.AllowElements(strings.Fields(`html head body title p br hr div span center font b i u s em strong small big sub sup tt strike del ins
		code pre kbd samp var abbr acronym cite dfn q blockquote address h1 h2 h3 h4 h5 h6 ul ol li dl dt dd
		table caption colgroup col thead tbody tfoot tr th td section article header footer main nav aside figure figcaption`)...)
	p.AllowElementsContent("frame", "frameset", "object") // the first has no end, and what is in the others is shown instead of them
	p.AllowURLSchemes("http", "https", "mailto", "tel", "cid")
	p.RequireParseableURLs(true)
	p.AllowAttrs("href").OnElements("a")
	p.AllowNoAttrs().OnElements("a", "font", "span")
	p.AllowAttrs("dir", "lang", "title", "align", "valign", "bgcolor", "color", "face", "size", "class", "role").Matching(word1).Globally()
	p.AllowAttrs("width", "height", "border", "cellpadding", "cellspacing", "colspan", "rowspan", "start", "hspace", "vspace").Matching(number).Globally()
	p.AllowAttrs("alt").OnElements("img")
	p.AllowAttrs("type").Matching(regexp.MustCompile(`^(?:[1aAiI]|disc|circle|square)$`)).OnElements("ul", "ol", "li")
	p.AllowStyles(looks...).Globally()
	if fetchNothing {
		p.AllowAttrs("src").Matching(inMail).OnElements("img")
	} else {
		p.AllowAttrs("src").OnElements("img")
	}
	return p
}

// Disarmed is what became of a mail.
type Disarmed struct {
	// Body is the mail to deliver: the one that was given, or another blob, which the caller closes; nil where it is to be
	// replaced.
	Body *spool.Blob
	// Parts is how much HTML was written anew.
	Parts int
	// Why says why it is to be replaced.
	Why string
}

// Apply disarms the HTML of the mail b, wherever in it. A mail that not all programs read alike is to be replaced where one of
// its readings has something in it that would be taken out. The error is one of the machine. Nothing of the mail's own fields
// before the first one of its content is changed.
func (h *HTML) Apply(ctx context.Context, t Tools, b *spool.Blob) (Disarmed, error) {
	if h == nil {
		return Disarmed{Body: b}, nil
	}
	w, err := walk(b.NewReader())
	if err != nil {
		return Disarmed{}, err
	}
	if w.odd != "" {
		return h.ambiguous(ctx, t, b, w.odd)
	}
	p := plan{tools: t, blob: b}
	n := 0
	for _, e := range w.entities {
		if err := ctx.Err(); err != nil {
			return Disarmed{}, err
		}
		if !e.leaf() || !strings.Contains(e.typ, "html") {
			continue
		}
		clean, broken, err := h.clean(t.Pool, b, e)
		if err != nil {
			return Disarmed{}, err
		}
		if broken != "" {
			return h.ambiguous(ctx, t, b, broken)
		}
		p.edits = append(p.edits, htmlEdits(e, clean)...)
		n++
	}
	if n == 0 {
		return Disarmed{Body: b}, nil
	}
	out, err := p.build(false)
	return Disarmed{Body: out, Parts: n}, err
}

// clean returns an entity's HTML as it is delivered, in UTF-8.
func (h *HTML) clean(pool *spool.Pool, b *spool.Blob, e *entity) (clean []byte, broken string, err error) {
	d, bad, err := decode(pool, b, e)
	if err != nil {
		return nil, "", err
	}
	if bad {
		return nil, "HTML in " + e.encoding + " that is broken", nil
	}
	defer d.Close() // the room is given back
	if d.Size() > maxHTML {
		return nil, "more HTML than can be disarmed", nil
	}
	raw := make([]byte, d.Size())
	if _, err := io.ReadFull(d.NewReader(), raw); err != nil {
		return nil, "", err
	}
	enc, _, _ := charset.DetermineEncoding(raw[:min(len(raw), 1024)], e.h.Value("content-type"))
	text, err := enc.NewDecoder().Bytes(raw)
	if err != nil {
		return nil, "HTML in a character set that it is not in", nil //nolint:nilerr // it is a fault of the mail
	}
	return h.policy.SanitizeBytes(bytes.ToValidUTF8(text, []byte("\uFFFD"))), "", nil
}

// htmlEdits puts clean HTML in the place of an entity's.
func htmlEdits(e *entity, clean []byte) []edit {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	_, _ = w.Write(bytes.ReplaceAll(bytes.ReplaceAll(clean, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))) // a buffer takes everything
	_ = w.Close()
	text := b.String()
	fields := "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
	if e.message {
		text = strings.TrimSuffix(text, "\r\n") + "\r\n"
		if e.h.Value("mime-version") == "" {
			fields = "MIME-Version: 1.0\r\n" + fields
		}
	}
	edits := dropFields(e, "content-type", "content-transfer-encoding", "content-md5", "content-length")
	at := e.start + int64(e.h.End)
	return append(edits, edit{at, at, fields}, edit{e.body, e.end, text})
}

// ambiguous has a mail replaced that programs disagree about, if anybody could see in it what is to be disarmed.
func (h *HTML) ambiguous(ctx context.Context, t Tools, b *spool.Blob, odd string) (Disarmed, error) {
	armed := h.looksArmed(ctx, b)
	problems := message.Find(ctx, t.Pool, b, t.Limits, func(p content.Part) error {
		if armed = armed || h.looksArmed(ctx, p.Blob); armed {
			return content.ErrStop
		}
		return nil
	})
	for _, p := range problems {
		if !armed && !errors.Is(p.Err, content.ErrStop) {
			if p.Kind == content.SpoolFull || p.Kind == content.Cancelled {
				return Disarmed{}, fmt.Errorf("%s: %w", p.Path, p.Err)
			}
			armed = true // nobody knows what is in it
		}
	}
	if armed {
		return Disarmed{Why: "there is HTML to be disarmed in it, and parsers disagree about the mail (" + odd + ")"}, nil
	}
	return Disarmed{Body: b}, nil
}

// looksArmed looks for what would be taken out, in all of b. NUL means nothing to those who show HTML.
func (h *HTML) looksArmed(ctx context.Context, b *spool.Blob) bool {
	const overlap = 4 << 10
	buf := make([]byte, 256<<10)
	for at := int64(0); at < b.Size(); at += int64(len(buf) - overlap) {
		n, err := b.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) || ctx.Err() != nil || h.armed.Match(bytes.ReplaceAll(buf[:n], []byte{0}, nil)) {
			return true
		}
	}
	return false
}
