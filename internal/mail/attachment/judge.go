package attachment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"lazaret/internal/content"
	"lazaret/internal/mail/message"
	"lazaret/internal/spool"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// ambiguous has a mail replaced that programs disagree about, if anybody could see in it what is to be disarmed: each reading of it
// is held against the policy.
func (h *HTML) ambiguous(ctx context.Context, t Tools, b *spool.Blob, odd string) (Disarmed, error) {
	armed, err := h.armed(ctx, b)
	problems := message.Find(ctx, t.Pool, b, t.Limits, func(p content.Part) error {
		if armed == "" && err == nil {
			armed, err = h.armed(ctx, p.Blob)
		}
		if armed != "" || err != nil {
			return content.ErrStop
		}
		return nil
	})
	for _, p := range problems {
		if armed != "" || err != nil || errors.Is(p.Err, content.ErrStop) {
			break
		}
		if p.Kind == content.SpoolFull || p.Kind == content.Cancelled {
			return Disarmed{}, fmt.Errorf("%s: %w", p.Path, p.Err)
		}
		armed = "a part that nobody could look into"
	}
	switch {
	case err != nil:
		return Disarmed{}, err
	case armed != "":
		return Disarmed{Why: "parsers disagree about the mail (" + odd + "), and there is something to be disarmed in it: " + armed}, nil
	}
	return Disarmed{Body: b}, nil
}

// The bounds of looking for tags.
const (
	maxTag   = 64 << 10 // what is longer is looked at as far as that
	maxAgain = 8        // how often the same text may be part of a tag, on average, besides what follows
	moreWork = 4 << 20  // bytes; a text with "<" and no ">" is no mail of tags within tags yet
)

// armed returns what in b would be taken out of HTML, and an empty string where there is nothing. Each "<" is looked at as if
// a tag began there, whatever it stands in: nobody knows where HTML begins in such a mail, and in which quotes or comments.
func (h *HTML) armed(ctx context.Context, b *spool.Blob) (string, error) {
	r := newUnescaped(ctx, b)
	buf := make([]byte, min(4*maxTag, b.Size()+1))
	work := b.Size()*maxAgain + moreWork
	have := 0
	for {
		n, err := io.ReadFull(r, buf[have:])
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return "", err
		}
		have += n
		if c := otherCharset(buf[:have]); c != "" {
			return c, nil
		}
		limit, at := have, 0
		if !end {
			limit = have - maxTag // what begins behind it is looked at with what follows
		}
		for at < limit {
			i := bytes.IndexByte(buf[at:limit], '<')
			if i < 0 {
				at = limit
				break
			}
			at += i + 1
			why, n := h.armedTag(buf[at:min(have, at+maxTag)])
			if work -= int64(n); why == "" && work < 0 {
				why = "tags within tags"
			}
			if why != "" {
				return why, nil
			}
		}
		if end {
			return "", nil
		}
		have = copy(buf, buf[at:have])
	}
}

// shortName is how long the names of elements and attributes are that do nothing unless they are on the list, or in something that is
// not.
const shortName = 2

// armedTag says what the tag that begins with text, behind its "<", has that would be taken out, and how long it is.
func (h *HTML) armedTag(text []byte) (why string, n int) {
	if len(text) == 0 {
		return "", 0
	}
	switch c := text[0]; {
	case c == '!' || c == '?':
		return armedDeclaration(text), 0
	case (c|0x20) < 'a' || (c|0x20) > 'z':
		return "", 0
	}
	if i := bytes.IndexAny(text[:min(len(text), 16)], "> \t\r\n\f/"); i > 0 && text[i] == '>' && slices.Contains(elements, string(lowered(text[:i]))) {
		return "", i // the most of them, by far
	}
	z := html.NewTokenizer(io.MultiReader(strings.NewReader("<"), bytes.NewReader(text), strings.NewReader(`'">`))) // so that it ends
	if tt := z.Next(); tt != html.StartTagToken && tt != html.SelfClosingTagToken {
		return "", len(text)
	}
	raw := slices.Clone(z.Raw())
	tag := z.Token()
	switch {
	case slices.Contains(elements, tag.Data):
		if len(tag.Attr) == 0 {
			return "", len(raw)
		}
		return h.armedAttributes(raw, tag), len(raw)
	case len(tag.Data) <= shortName: // random bytes are full of them
	case atom.Lookup([]byte(tag.Data)) != 0 && !slices.Contains(inert, tag.Data), slices.Contains(proprietary, tag.Data):
		return "the element " + tag.Data, len(raw)
	}
	for _, a := range tag.Attr { // an element that means nothing may have attributes that do
		if a.Val != "" && effective.MatchString(a.Key) {
			return "an element with the attribute " + a.Key, len(raw)
		}
	}
	return "", len(raw)
}

var (
	// inert are elements that are not on the list, and words that are also attributes, and do nothing.
	inert = strings.Fields(`bdi bdo nobr rb rp rt rtc ruby wbr time data mark name label content title summary color size type value
		lang dir date`)
	// proprietary are elements that only some programs know.
	proprietary = strings.Fields(`xml layer ilayer import multicol fencedframe portal`)
	// effective are attributes that do something wherever they are.
	effective = regexp.MustCompile(`^(?:on[a-z]{3,}|style|(?:xlink:)?href|src|srcset|srcdoc|data|background|poster|action|formaction|xmlns(?::.*)?)$`)
	// sane is an attribute that a program may give a meaning to.
	sane = regexp.MustCompile(`^[a-z][a-z0-9:_-]{2,}$`)
)

// armedAttributes says which of an element's attributes the policy takes out.
func (h *HTML) armedAttributes(raw []byte, tag html.Token) string {
	kept := map[string]string{}
	z := html.NewTokenizer(bytes.NewReader(h.policy.SanitizeBytes(raw)))
	if z.Next() != html.ErrorToken {
		for _, a := range z.Token().Attr {
			kept[a.Key] = a.Val
		}
	}
	for _, a := range tag.Attr {
		if !sane.MatchString(a.Key) {
			continue // nobody gives it a meaning
		}
		got, ok := kept[a.Key]
		switch {
		case a.Key == "style":
			_, ok = cleanStyle(a.Val)
		case ok && got != a.Val:
			u, err := url.Parse(strings.TrimSpace(a.Val))
			ok = err == nil && u.String() == got
		}
		if !ok && strings.TrimSpace(a.Val) != "" {
			return fmt.Sprintf("%s of the element %s", a.Key, tag.Data)
		}
	}
	return ""
}

// armedDeclaration judges what begins with "!" or "?". Comments are nothing by themselves: what stands in them is looked at, too.
func armedDeclaration(text []byte) string {
	text = text[:min(len(text), 1<<10)]
	end := bytes.IndexByte(text, '>')
	if end < 0 {
		end = len(text)
	}
	low := lowered(text)
	switch {
	case bytes.HasPrefix(low, []byte("!doctype")) && bytes.ContainsAny(low[:end], "[&"), bytes.HasPrefix(low, []byte("!entity")):
		return "a declaration of entities"
	case bytes.HasPrefix(low, []byte("?xml-")), bytes.HasPrefix(low, []byte("?import")):
		return "a style sheet of XML"
	}
	return ""
}

// unescaped leaves out what means nothing to those who show HTML, and could stand within a tag: NUL (which also makes UTF-16
// readable), and what ISO-2022 changes character sets with.
type unescaped struct {
	r    io.Reader
	buf  []byte
	held int    // how much of buf is the beginning of an escape sequence, perhaps
	out  []byte // is to be read
	err  error
}

func newUnescaped(ctx context.Context, b *spool.Blob) *unescaped {
	return &unescaped{r: whileWanted{ctx, b.NewReader()}, buf: make([]byte, min(32<<10, b.Size()+maxEscape))}
}

// maxEscape is the length of the longest of escapes.
const maxEscape = 4

var escapes = regexp.MustCompile(`\x00+|\x1b(?:\$[()]?|[()])[@A-Z]`)

func (u *unescaped) Read(b []byte) (int, error) {
	for len(u.out) == 0 && u.err == nil {
		var n int
		n, u.err = u.r.Read(u.buf[u.held:])
		text := u.buf[:u.held+n]
		whole := len(text)
		if i := bytes.LastIndexByte(text, 0x1b); u.err == nil && i > len(text)-maxEscape && i >= 0 {
			whole = i
		}
		u.out = text[:whole]
		if bytes.IndexByte(u.out, 0) >= 0 || bytes.IndexByte(u.out, 0x1b) >= 0 {
			u.out = escapes.ReplaceAll(u.out, nil)
		} else {
			u.out = bytes.Clone(u.out) // the buffer is used for what is held
		}
		u.held = copy(u.buf, text[whole:])
	}
	if len(u.out) == 0 {
		return 0, u.err
	}
	n := copy(b, u.out)
	u.out = u.out[n:]
	return n, nil
}

var (
	charsetName = regexp.MustCompile(`^charset(?:\*[0-9]*\*?)?\s*=\s*(?:3d)?["']?([^\s"';<>&,)]+)`)
	// likeASCII are character sets in which tags are made of the bytes that they are made of in ASCII.
	likeASCII = regexp.MustCompile(`^(?:(?:us-)?ascii|ansi[_a-z0-9.-]*|utf-?8|iso-?8859[_-]?\d+(?:-[ie])?|latin-?\d|windows-?\d+|` +
		`cp-?(?:437|8\d\d|9\d\d|12\d\d)|x-(?:mac-.*|sjis|gbk|big5|unknown)|koi8-?.*|tis-620|gb.*|big5.*|euc-.*|shift[_-]?jis|sjis|ms_kanji|` +
		`ks_c_5601.*|iso-2022-jp.*|macintosh|unknown.*|default|_iso.*|binary)$`)
)

// otherCharset looks for the name of a character set in which tags are made of other bytes, such as UTF-7.
func otherCharset(text []byte) string {
	for rest := lowered(text); ; {
		i := bytes.Index(rest, []byte("charset"))
		if i < 0 {
			return ""
		}
		rest = rest[i:]
		m := charsetName.FindSubmatch(rest[:min(len(rest), 200)])
		// In quoted-printable that is not decoded yet a line may end within it.
		if m != nil && !likeASCII.Match(m[1]) && m[1][len(m[1])-1] != '=' {
			return fmt.Sprintf("the character set %.40q", m[1])
		}
		rest = rest[len("charset"):]
	}
}
