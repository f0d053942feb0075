package attachment

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"lazaret/internal/spool"

	"github.com/microcosm-cc/bluemonday"
	"golang.org/x/net/html/charset"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
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

// patience is for one mail. One that takes longer is replaced: megabytes take seconds.
const patience = 30 * time.Second

// maxWait is how long a mail waits for others that are worked on. It is tried again later then.
const maxWait = 2 * time.Minute

// HTML disarms the HTML of mails: what passes is only what is known to be harmless. It is safe for use by many goroutines. A nil
// *HTML leaves everything as it is.
type HTML struct {
	policy   *bluemonday.Policy
	slots    chan struct{} // one for each mail that is worked on
	patience time.Duration // for one mail
}

// NewHTML returns what cfg says, and nil with no error where nothing is disarmed.
func NewHTML(cfg HTMLConfig) (*HTML, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Disarm == disarmOff {
		return nil, nil //nolint:nilnil // a nil HTML is one that leaves all as it is
	}
	atOnce := max(1, runtime.GOMAXPROCS(0)/2) // what else the gateway does goes on
	return &HTML{policy: harmless(cfg.Disarm == disarmAll), slots: make(chan struct{}, atOnce), patience: patience}, nil
}

var (
	number = regexp.MustCompile(`^[0-9]{1,5}(?:%|px)?$`)
	inMail = regexp.MustCompile(`(?i)^cid:`)
	word1  = regexp.MustCompile(`^[#A-Za-z0-9 ,._-]{1,100}$`)
)

// elements are those that pass.
//
//nolint:misspell // it is HTML's word
var elements = strings.Fields(`html head body title p br hr div span center font b i u s em strong small big sub sup tt strike del ins
	code pre kbd samp var abbr acronym cite dfn q blockquote address h1 h2 h3 h4 h5 h6 ul ol li dl dt dd a img
	table caption colgroup col thead tbody tfoot tr th td section article header footer main nav aside figure figcaption`)

// harmless is what passes: text, its looks, links that are followed by choice, and pictures, of which only those in the mail
// itself where nothing may be fetched.
func harmless(fetchNothing bool) *bluemonday.Policy {
	p := bluemonday.NewPolicy()
	p.AllowElements(elements...)
	p.AllowElementsContent("frame", "frameset", "object") // the first has no end, and what is in the others is shown instead of them
	p.AllowURLSchemes("http", "https", "mailto", "tel", "cid")
	p.RequireParseableURLs(true)
	p.AllowAttrs("href").OnElements("a")
	p.AllowNoAttrs().OnElements("a", "font", "span")
	p.AllowAttrs("dir", "lang", "title", "align", "valign", "bgcolor", "color", "face", "size", "class", "role").Matching(word1).Globally()
	p.AllowAttrs("width", "height", "border", "cellpadding", "cellspacing", "colspan", "rowspan", "start", "hspace", "vspace").Matching(number).Globally()
	p.AllowAttrs("alt").OnElements("img")
	p.AllowAttrs("type").Matching(regexp.MustCompile(`^(?:[1aAiI]|disc|circle|square)$`)).OnElements("ul", "ol", "li")
	p.AllowAttrs("style").Matching(harmlessStyle).Globally() // and not by the library's parser of CSS, whose work is the square of the text
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
	// Stripped is what was taken out, as it cannot be written anew: pictures and documents in XML that do something, archives of web
	// pages.
	Stripped []Hit
	// Why says why it is to be replaced.
	Why string
}

// Apply disarms the HTML of the mail b, wherever in it. A mail that not all programs read alike is to be replaced where one of
// its readings has something in it that would be taken out, and so is one that takes too long. The error is one of the machine.
// Nothing of the mail's own fields before the first one of its content is changed.
//
// What it does takes time in proportion to the mail, ends soon after ctx, and is done for a few mails at once: others wait.
func (h *HTML) Apply(ctx context.Context, t Tools, b *spool.Blob) (Disarmed, error) {
	if h == nil {
		return Disarmed{Body: b}, nil
	}
	w, err := walk(whileWanted{ctx, b.NewReader()})
	if err != nil {
		return Disarmed{}, err
	}
	forms := make([]form, len(w.entities))
	for i, e := range w.entities {
		if forms[i], err = formOf(ctx, b, e); err != nil {
			return Disarmed{}, err
		}
	}
	if w.odd == "" && !slices.ContainsFunc(forms, func(f form) bool { return f != otherForm }) {
		return Disarmed{Body: b}, nil
	}
	if err := h.enter(ctx); err != nil {
		return Disarmed{}, err
	}
	defer func() { <-h.slots }()
	own, cancel := context.WithTimeout(ctx, h.patience)
	defer cancel()
	d, err := h.disarm(own, t, b, w, forms)
	if err != nil && own.Err() != nil && ctx.Err() == nil {
		return Disarmed{Why: fmt.Sprintf("disarming its HTML takes longer than %v", h.patience)}, nil
	}
	return d, err
}

// enter waits for a slot.
func (h *HTML) enter(ctx context.Context) error {
	late := time.NewTimer(maxWait)
	defer late.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return fmt.Errorf("other mails have been worked on for %v: there are too many at once", maxWait)
	}
}

// disarm does it, for a mail whose entities w has, and which are of these forms.
func (h *HTML) disarm(ctx context.Context, t Tools, b *spool.Blob, w *walker, forms []form) (Disarmed, error) {
	if w.odd != "" {
		return h.ambiguous(ctx, t, b, w.odd)
	}
	p := plan{tools: t, blob: b}
	defer p.close()
	d := Disarmed{Body: b}
	for i, e := range w.entities {
		var why, broken string
		var err error
		switch forms[i] {
		case otherForm:
			continue
		case formHTML:
			var edits []edit
			edits, broken, err = h.clean(ctx, t.Pool, b, e)
			p.edits = append(p.edits, edits...)
			d.Parts += min(len(edits), 1)
		case formXML:
			why, broken, err = h.xml(ctx, t.Pool, b, e)
		case formArchive:
			why = "an archive of a web page"
		}
		if err != nil {
			return Disarmed{}, err
		}
		if broken != "" {
			return h.ambiguous(ctx, t, b, broken)
		}
		if why != "" {
			hit := Hit{Name: display(e.names), Rule: why}
			d.Stripped = append(d.Stripped, hit)
			p.edits = append(p.edits, p.stripEdits(e, t.Note(hit))...)
		}
	}
	if len(p.edits) == 0 {
		return d, nil
	}
	var err error
	d.Body, err = p.build(false)
	return d, err
}

// clean puts HTML as it is delivered, in UTF-8, in the place of an entity's.
func (h *HTML) clean(ctx context.Context, pool *spool.Pool, b *spool.Blob, e *entity) (edits []edit, broken string, err error) {
	d, bad, err := decode(ctx, pool, b, e)
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
	start := make([]byte, min(d.Size(), 1024))
	if _, err := io.ReadFull(d.NewReader(), start); err != nil {
		return nil, "", err
	}
	enc, _, _ := charset.DetermineEncoding(start, e.h.Value("content-type"))
	in := &source{r: d.NewReader()}
	text := transform.NewReader(in, transform.Chain(enc.NewDecoder(), runes.ReplaceIllFormed()))
	w := pool.New()
	defer w.Discard()
	out := &ending{w: w}
	q := quotedprintable.NewWriter(out) // it makes all line ends CRLF
	if saved(e) && !bytes.HasPrefix(start, []byte(byteOrderMark)) {
		_, _ = io.WriteString(q, byteOrderMark) // what goes wrong is in out
	}
	err = h.policy.SanitizeReaderToWriter(newTamer(ctx, bufio.NewReaderSize(text, 64<<10)), q)
	if err = errors.Join(err, q.Close()); err != nil {
		if errors.Join(ctx.Err(), in.err, out.err) == nil {
			return nil, "HTML in a character set that it is not in", nil
		}
		return nil, "", err
	}
	if e.message && !out.line {
		if _, err := io.WriteString(w, "\r\n"); err != nil {
			return nil, "", err
		}
	}
	clean, err := w.Seal()
	if err != nil {
		return nil, "", err
	}
	return htmlEdits(e, clean), "", nil
}

// byteOrderMark says that a file is in UTF-8.
const byteOrderMark = "\uFEFF"

// source is what is read, and knows what went wrong with it.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// ending is what is written to, and knows what went wrong with it, and whether it ends with a line end.
type ending struct {
	w    io.Writer
	line bool
	err  error
}

func (e *ending) Write(b []byte) (int, error) {
	if len(b) > 0 {
		e.line = b[len(b)-1] == '\n'
	}
	n, err := e.w.Write(b)
	e.err = errors.Join(e.err, err)
	return n, err
}

// htmlEdits puts clean HTML in the place of an entity's.
func htmlEdits(e *entity, clean *spool.Blob) []edit {
	fields := typeField(e) + "Content-Transfer-Encoding: quoted-printable\r\n"
	if e.message && e.h.Value("mime-version") == "" {
		fields = "MIME-Version: 1.0\r\n" + fields
	}
	edits := dropFields(e, "content-type", "content-transfer-encoding", "content-md5", "content-length")
	at := e.start + int64(e.h.End)
	return append(edits, edit{start: at, end: at, text: fields}, edit{start: e.body, end: e.end, blob: clean})
}

// whileWanted is a reader that ends with an error when its context ends.
type whileWanted struct {
	ctx context.Context //nolint:containedctx // it is as short-lived as a call, and a Reader has no other way to be told
	r   io.Reader
}

func (w whileWanted) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(b)
}
