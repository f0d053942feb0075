package attachment

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/net/html"
)

// The bounds of what is handed to the policy, which holds a tag or a text in memory several times over.
const (
	maxToken = 256 << 10 // a text beyond is handed on in pieces, a tag or a comment is left out
	maxAttrs = 200
	maxValue = 16 << 10 // of an attribute
)

// tamer reads HTML, and gives it on in pieces of a bounded size: without comments, scripts and style sheets, and with style
// attributes that are clean. It makes the work bounded, and is not what makes HTML harmless: the policy reads what it
// gives, and decides.
type tamer struct {
	ctx   context.Context //nolint:containedctx // it is as short-lived as a call, and a Reader has no other way to be told
	src   *pushback
	z     *html.Tokenizer
	raw   string // the element that was begun last, where its content is no HTML: "script"
	drop  bool   // such content comes next, and is not wanted
	begun string // the beginning of the last token, where that is a comment
	out   []byte // is to be read
	err   error
}

func newTamer(ctx context.Context, r io.Reader) *tamer {
	t := &tamer{ctx: ctx, src: &pushback{r: r}}
	t.tokenize()
	return t
}

// tokenize begins where the source is.
func (t *tamer) tokenize() {
	t.z = html.NewTokenizer(t.src)
	t.z.SetMaxBuf(maxToken)
}

// Read implements io.Reader. It fills p where it can: a tokenizer copies what it holds with each read.
func (t *tamer) Read(p []byte) (n int, err error) {
	for n < len(p) && (len(t.out) > 0 || t.err == nil) {
		if len(t.out) == 0 {
			t.next()
		}
		m := copy(p[n:], t.out)
		t.out, n = t.out[m:], n+m
	}
	if n > 0 {
		return n, nil
	}
	return 0, t.err
}

// next takes a token.
func (t *tamer) next() {
	if t.err = t.ctx.Err(); t.err != nil {
		return
	}
	drop := t.drop
	t.drop = false
	switch t.z.Next() {
	case html.ErrorToken:
		if t.err = t.z.Err(); errors.Is(t.err, html.ErrBufferExceeded) {
			t.err = t.goOn()
		}
	case html.TextToken:
		t.begun = ""
		if !drop {
			t.out = t.z.Raw()
		}
	case html.CommentToken, html.DoctypeToken:
		t.begun = beginning(t.z.Raw())
		t.out = []byte("<!---->") // what stands before and behind is not to become one
	case html.StartTagToken, html.SelfClosingTagToken:
		t.startTag()
	default:
		t.raw, t.out = "", t.z.Raw()
	}
}

// beginning returns enough of a token to know what it ends with.
func beginning(raw []byte) string { return string(raw[:min(len(raw), len("<!--"))]) }

// goOn goes on behind what was too long.
func (t *tamer) goOn() error {
	if raw := t.z.Raw(); len(raw) > 0 {
		t.begun = beginning(raw) // of a tag
	}
	begun, raw := t.begun, t.raw
	t.begun, t.raw = "", ""
	t.src.back(t.z.Buffered())
	t.tokenize()
	switch {
	case begun == "<!--":
		return t.src.skip("-->", false)
	case begun != "":
		return t.src.skip(">", false)
	case raw != "": // a title or a style sheet; what is left of it is not wanted
		return t.src.skip("</"+raw, true)
	}
	t.out = []byte("<!---->") // so that the policy does not put the pieces together again
	return nil
}

// rawElements are those whose content is no HTML, as the tokenizer has it.
var rawElements = []string{"iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"}

func (t *tamer) startTag() {
	raw := slices.Clone(t.z.Raw()) // reading attributes changes it
	tag := t.z.Token()
	t.raw = ""
	if slices.Contains(rawElements, tag.Data) {
		t.raw = tag.Data
	}
	if tag.Data == "script" || tag.Data == "style" {
		t.drop = true
		return
	}
	if len(raw) < 1<<10 && !bytes.Contains(lowered(raw), []byte("style")) {
		t.out = raw
		return
	}
	tag.Attr = tag.Attr[:min(len(tag.Attr), maxAttrs)]
	tag.Attr = slices.DeleteFunc(tag.Attr, func(a html.Attribute) bool { return len(a.Val) > maxValue })
	for i := range tag.Attr {
		if a := &tag.Attr[i]; a.Key == "style" {
			a.Val, _ = cleanStyle(a.Val)
		}
	}
	tag.Attr = slices.DeleteFunc(tag.Attr, func(a html.Attribute) bool { return a.Key == "style" && a.Val == "" })
	t.out = []byte(tag.String())
}

// pushback is a reader that takes back what was read of it.
type pushback struct {
	held []byte
	r    io.Reader
}

func (p *pushback) Read(b []byte) (int, error) {
	if len(p.held) > 0 {
		n := copy(b, p.held)
		p.held = p.held[n:]
		return n, nil
	}
	return p.r.Read(b)
}

// back takes b back. It is read next.
func (p *pushback) back(b []byte) { p.held = slices.Concat(b, p.held) }

// skip reads until mark, which is in lower case, has been read, or stands next where it is to be kept. The end comes as io.EOF.
func (p *pushback) skip(mark string, keep bool) error {
	buf := make([]byte, 32<<10)
	held := 0 // of what was read before: mark may stand across
	for {
		n, err := p.Read(buf[held:])
		text := buf[:held+n]
		if i := bytes.Index(lowered(text), []byte(mark)); i >= 0 {
			if !keep {
				i += len(mark)
			}
			p.back(text[i:])
			return nil
		}
		if err != nil {
			return err
		}
		held = copy(buf, text[max(0, len(text)-len(mark)+1):])
	}
}

// lowered returns a copy of b, of the same length, with the letters of ASCII in lower case.
func lowered(b []byte) []byte {
	out := slices.Clone(b)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}
