package attachment

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"regexp"
	"slices"
	"strings"

	"lazaret/internal/content"
	"lazaret/internal/filetype"
	"lazaret/internal/mail/message"
	"lazaret/internal/spool"
)

// action is what is done to an attachment. The greater one wins.
type action uint8

const (
	leave action = iota
	rename
	strip
	replace
)

// Rules are attachment rules. They are safe for use by many goroutines. A nil *Rules leaves everything as it is.
type Rules struct {
	words  [replace + 1][]word
	suffix string
	byType bool // some words are about content
}

// New returns the rules of cfg, and nil with no error where there are none.
func New(cfg Config) (*Rules, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Rules{suffix: cfg.Suffix}
	n := 0
	for a, list := range map[action][]string{rename: cfg.Rename, strip: cfg.Strip, replace: cfg.Replace} {
		for _, s := range list {
			w, err := parseWord(s)
			if err != nil {
				return nil, err
			}
			r.words[a] = append(r.words[a], w)
			r.byType = r.byType || w.content
			n++
		}
	}
	if n == 0 {
		return nil, nil //nolint:nilnil // nil Rules are rules, too
	}
	return r, nil
}

// Hit is an attachment that a rule is about.
type Hit struct {
	Name string // what it is called, as it stands in the mail; may be empty
	Rule string // the word of the rule
}

// Outcome is what the rules did.
type Outcome struct {
	// Body is the mail to deliver: the one that was given, or another blob, which the caller closes; nil where it is to be
	// replaced.
	Body     *spool.Blob
	Renamed  []Hit
	Stripped []Hit
	// Replace is what has the whole mail replaced; nil: nothing. Why says more for the log.
	Replace *Hit
	Why     string
}

// Tools are what Apply works with.
type Tools struct {
	Pool   *spool.Pool
	Limits content.Limits // of the readings that are looked at
	// Note returns the text that stands in the place of an attachment that was taken out, in UTF-8.
	Note func(Hit) string
}

// Apply applies the rules to the mail b. The error is one of the machine, not of the mail: it was not looked at to its end.
// Nothing of the mail's own fields before the first one of its content is ever changed.
func (r *Rules) Apply(ctx context.Context, t Tools, b *spool.Blob) (Outcome, error) {
	if r == nil {
		return Outcome{Body: b}, nil
	}
	w, err := walk(whileWanted{ctx, b.NewReader()})
	if err != nil {
		return Outcome{}, err
	}
	if w.odd != "" {
		return r.ambiguous(ctx, t, b, w)
	}
	p := plan{rules: r, tools: t, blob: b}
	for _, e := range w.entities {
		if err := ctx.Err(); err != nil {
			return Outcome{}, err
		}
		if err := p.entity(ctx, e); err != nil {
			return Outcome{}, err
		}
		if p.undecodable != "" {
			w.odd = p.undecodable
			return r.ambiguous(ctx, t, b, w)
		}
	}
	if p.replace != nil {
		return Outcome{Replace: p.replace, Why: "a rule"}, nil
	}
	hit, err := p.leftover(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if hit != nil {
		return Outcome{Replace: hit, Why: "it is in the mail, and in none of the parts that every mail program sees"}, nil
	}
	if len(p.renamed)+len(p.stripped) == 0 {
		return Outcome{Body: b}, nil
	}
	out, err := p.build(false)
	return Outcome{Body: out, Renamed: p.renamed, Stripped: p.stripped}, err
}

// judge returns what the rules say to something of these names and this type.
func (r *Rules) judge(names []string, types []filetype.Info) (action, string) {
	for _, a := range []action{replace, strip, rename} {
		for _, w := range r.words[a] {
			if w.content && slices.ContainsFunc(types, func(i filetype.Info) bool { return i.Is(w.text) }) || w.ofName(names) {
				return a, w.text
			}
		}
	}
	return leave, ""
}

// ambiguous judges a mail whose parts are not the same to everybody: whatever any reading has in it counts.
// w has what can be told of its parts.
func (r *Rules) ambiguous(ctx context.Context, t Tools, b *spool.Blob, w *walker) (Outcome, error) {
	left := maxEncoded
	hit, err := r.anywhere(ctx, t, b, &left)
	for _, e := range w.entities {
		if a, rule := r.judge(e.names, nil); a != leave && hit == nil {
			hit = &Hit{Name: display(e.names), Rule: rule} // a name in pieces, or in several lines
		}
	}
	if err == nil && hit == nil {
		hit, err = r.anyName(ctx, b, true)
	}
	if err != nil {
		return Outcome{}, err
	}
	if hit != nil {
		return Outcome{Replace: hit, Why: "parsers disagree about the mail (" + w.odd + ")"}, nil
	}
	return Outcome{Body: b}, nil
}

// maxEncoded bounds how many messages are looked into that are encoded in a message, or in such a message.
const maxEncoded = 50

// anywhere looks at every reading of every section of a mail, by content, and at names in mails that are encoded in it.
// left is how many of those are looked into.
func (r *Rules) anywhere(ctx context.Context, t Tools, b *spool.Blob, left *int) (hit *Hit, err error) {
	problems := message.Find(ctx, t.Pool, b, t.Limits, func(p content.Part) error {
		info := filetype.Of("", p.Blob, p.Blob.Size())
		if a, rule := r.judge(nil, []filetype.Info{info}); a != leave {
			hit = &Hit{Name: p.Path, Rule: rule}
			return content.ErrStop
		}
		if p.Type == "message/rfc822" || encoded(ctx, b, p.Blob) {
			if *left--; *left < 0 {
				hit = &Hit{Name: p.Path, Rule: "too many mails that are encoded in mails"}
				return content.ErrStop
			}
			if hit, err = r.anyName(ctx, p.Blob, true); hit == nil && err == nil {
				hit, err = r.anywhere(ctx, t, p.Blob, left)
			}
			if hit != nil || err != nil {
				return content.ErrStop
			}
		}
		return nil
	})
	for _, p := range problems {
		if hit == nil && err == nil && (p.Kind == content.SpoolFull || p.Kind == content.Cancelled) {
			return nil, fmt.Errorf("%s: %w", p.Path, p.Err)
		}
	}
	return hit, err
}

// encoded says whether a reading of b is a mail that had to be decoded. One that stands in b as it is is read with b.
func encoded(ctx context.Context, b, reading *spool.Blob) bool {
	head := make([]byte, 4<<10)
	n, err := reading.ReadAt(head, 0)
	return (err == nil || errors.Is(err, io.EOF)) && message.Looks(head[:n]) && !contains(ctx, b, reading, head[:n])
}

// maxPlaces bounds how many places are compared.
const maxPlaces = 100

// contains says whether all of part, which begins with head, stands in b. It may say no where it does.
func contains(ctx context.Context, b, part *spool.Blob, head []byte) bool {
	const window = 256 << 10
	buf := make([]byte, window+len(head))
	places := 0
	for at := int64(0); at < b.Size(); at += window {
		n, err := b.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) || ctx.Err() != nil {
			return false
		}
		for from := 0; places < maxPlaces; places++ {
			i := bytes.Index(buf[from:n], head)
			if i < 0 {
				break
			}
			if same(io.NewSectionReader(b, at+int64(from+i), part.Size()), part.NewReader()) {
				return true
			}
			from += i + 1
		}
	}
	return false
}

// same says whether two readers have the same bytes.
func same(a, b io.Reader) bool {
	x, y := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, err1 := io.ReadFull(a, x)
		m, err2 := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if err1 != nil || err2 != nil {
			return (errors.Is(err1, io.EOF) || errors.Is(err1, io.ErrUnexpectedEOF)) && (errors.Is(err2, io.EOF) || errors.Is(err2, io.ErrUnexpectedEOF))
		}
	}
}

var (
	beginLine = regexp.MustCompile(`(?i)^(?:begin(?:-base64)? [0-7]{3,4} |=ybegin .*name=)(.+)$`)
	nameParam = regexp.MustCompile(`(?i)name(?:\*[^\s=]*)?\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s;]+))`)
)

// anyName looks at the names in lines that begin uuencoded and yEnc data, and, in odd mails, at whatever could be a
// parameter.
func (r *Rules) anyName(ctx context.Context, b *spool.Blob, odd bool) (*Hit, error) {
	br := bufio.NewReaderSize(whileWanted{ctx, b.NewReader()}, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		found := beginLine.FindAllSubmatch(line, 1)
		if odd {
			found = append(found, nameParam.FindAllSubmatch(line, -1)...)
		}
		for _, m := range found {
			name := string(bytes.Join(m[1:], nil))
			names, _ := namesOf([]param{{"name", name}, {"filename*", name}})
			if a, rule := r.judge(names, nil); a != leave {
				return &Hit{Name: name, Rule: rule}, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil, nil //nolint:nilnil // there is no hit
		}
	}
}

// decoder reads what a leaf holds.
func decoder(ctx context.Context, b *spool.Blob, e *entity) io.Reader {
	r := whileWanted{ctx, io.NewSectionReader(b, e.body, e.end-e.body)}
	switch e.encoding {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, r)
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// decode returns what a leaf holds. broken says that it cannot be decoded in the one way that there should be.
func decode(ctx context.Context, pool *spool.Pool, b *spool.Blob, e *entity) (out *spool.Blob, broken bool, err error) {
	r := decoder(ctx, b, e)
	w := pool.New()
	defer w.Discard()
	buf := make([]byte, 32<<10)
	for {
		n, rerr := r.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return nil, false, werr
		}
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return nil, ctx.Err() == nil, ctx.Err()
		}
	}
	out, err = w.Seal()
	return out, false, err
}

// display is how a hit is called in notes and logs.
func display(names []string) string {
	for _, n := range names {
		if !strings.Contains(n, "=?") {
			return n
		}
	}
	return ""
}
