package signatures

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

// built returns the database of the given lines, of one format.
func built(tb testing.TB, f format, lines ...string) *database {
	tb.Helper()
	b := newBuilder(Default())
	for _, l := range lines {
		if err := b.line(f, l); err != nil {
			tb.Fatalf("%s: %v", l, err)
		}
	}
	return b.database(b.report.Updated)
}

// find returns the name of the body signature that a pass in memory, and one through small windows, find in text. Both must
// agree.
func find(tb testing.TB, db *database, text []byte, targets uint16) string {
	tb.Helper()
	l := parseProgram(bytes.NewReader(text), int64(len(text)), text)
	p := newPass(db)
	p.begin(targets, l, int64(len(text)))
	if err := p.all(context.Background(), text); err != nil {
		tb.Fatalf("in memory: %v", err)
	}
	whole := ""
	if p.found != nil {
		whole = db.names.get(p.found.name)
	}
	steps := []int{4, 64, 4096}
	if len(text) > 64<<10 {
		steps = []int{windowSize / 4, windowSize}
	}
	for _, step := range steps {
		p.window = make([]byte, 2*db.margin+step)
		p.begin(targets, l, int64(len(text)))
		if err := p.stream(context.Background(), io.MultiReader(bytes.NewReader(text))); err != nil {
			tb.Fatalf("in windows: %v", err)
		}
		windows := ""
		if p.found != nil {
			windows = db.names.get(p.found.name)
		}
		if (whole == "") != (windows == "") {
			tb.Fatalf("in memory %q is found, in windows of %d bytes %q; text %x", whole, step, windows, text)
		}
	}
	return whole
}

const everything = 1<<16 - 1

// quiet is a log for tests that look elsewhere.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// engine returns an engine of the files given as name and content, and the folder they are in.
func engine(tb testing.TB, files map[string]string) (*Engine, string) {
	tb.Helper()
	dir := tb.TempDir()
	for name, content := range files {
		write(tb, filepath.Join(dir, name), content)
	}
	cfg := Default()
	cfg.Paths, cfg.Poll = []string{dir}, 0
	e, err := New(cfg, quiet())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = e.Close() })
	return e, dir
}

func write(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// judged returns the verdict of e on content, as a word: "clean", the signature's name, or the reason.
func judged(tb testing.TB, e *Engine, content []byte) string {
	tb.Helper()
	return judgedAs(tb, e, content, "")
}

func judgedAs(tb testing.TB, e *Engine, content []byte, mediaType string) string {
	tb.Helper()
	o := scantest.Object(tb, scantest.Pool(tb), content)
	o.Type = mediaType
	v := scan.Ask(context.Background(), e, o)
	switch v.Outcome {
	case scan.Infected:
		return v.Findings[0].Signature
	case scan.Incomplete:
		return "incomplete: " + string(v.Reason) + ": " + v.Detail
	}
	return v.Outcome.String()
}

// signatureMaker makes random signatures and texts over few bytes, so that they meet often.
type signatureMaker struct{ *rand.Rand }

var fewBytes = []byte("\x00\x00ab1 .\n\r\xff")

func (m signatureMaker) oneOf(s ...string) string { return s[m.IntN(len(s))] }

func (m signatureMaker) hex(n int) string {
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%02x", fewBytes[m.IntN(len(fewBytes))])
	}
	return b.String()
}

// wild is a byte, perhaps with wildcards.
func (m signatureMaker) wild() string {
	h := m.hex(1)
	switch m.IntN(8) {
	case 0:
		return "??"
	case 1:
		return "?" + h[1:]
	case 2:
		return h[:1] + "?"
	}
	return h
}

func (m signatureMaker) alternatives(depth int) string {
	var list []string
	for range 1 + m.IntN(3) {
		v := ""
		for range 1 + m.IntN(3) {
			switch {
			case depth < 2 && m.IntN(6) == 0:
				v += "(" + m.alternatives(depth+1) + ")"
			case m.IntN(10) == 0:
				v += fmt.Sprintf("{%d}", 1+m.IntN(3))
			default:
				v += m.wild()
			}
		}
		list = append(list, v)
	}
	return strings.Join(list, "|")
}

func (m signatureMaker) group() string {
	switch m.IntN(6) {
	case 0:
		return m.oneOf("", "!") + m.oneOf("(B)", "(L)", "(W)")
	case 1:
		n := 1 + m.IntN(2)
		return m.oneOf("!", "") + "(" + m.hex(n) + "|" + m.hex(n) + ")"
	default:
		return "(" + m.alternatives(0) + ")"
	}
}

func (m signatureMaker) part() string {
	s := ""
	if m.IntN(8) == 0 {
		lo := m.IntN(4)
		s += fmt.Sprintf("%s[%d-%d]", m.wild(), lo, lo+m.IntN(4))
	}
	for range m.IntN(3) {
		s += m.oneOf(m.wild(), m.group(), m.wild()+m.wild())
	}
	s += m.hex(2 + m.IntN(3))
	if m.IntN(4) == 0 {
		s += m.hex(8)
	}
	for range m.IntN(3) {
		s += m.oneOf(m.wild(), m.group(), fmt.Sprintf("{%d}", 1+m.IntN(4)), m.hex(3))
	}
	if m.IntN(8) == 0 {
		lo := m.IntN(4)
		s += fmt.Sprintf("[%d-%d]%s", lo, lo+m.IntN(4), m.wild())
	}
	return s
}

func (m signatureMaker) signature() string {
	s := m.part()
	for range m.IntN(4) {
		lo := m.IntN(5)
		s += m.oneOf("*", fmt.Sprintf("{%d-%d}", lo, lo+1+m.IntN(8)), fmt.Sprintf("{%d-}", m.IntN(12)), fmt.Sprintf("{-%d}", 1+m.IntN(12)), "{130}")
		s += m.part()
	}
	return s
}

// text returns a text of up to n bytes, with pieces that the signature asks for.
func (m signatureMaker) text(n int, sig string) []byte {
	var out []byte
	for len(out) < n && m.IntN(40) != 0 {
		switch m.IntN(4) {
		case 0:
			out = append(out, m.sample(sig)...)
		case 1:
			out = append(out, bytes.Repeat(fewBytes[:1+m.IntN(2)], m.IntN(60))...)
		default:
			out = append(out, fewBytes[m.IntN(len(fewBytes))])
		}
	}
	return out
}

// sample returns bytes that look like a piece of sig: its digits as they are, gaps by some bytes, of alternatives one.
func (m signatureMaker) sample(sig string) []byte {
	var out []byte
	for i := 0; i+1 < len(sig) && m.IntN(60) != 0; {
		switch sig[i] {
		case '*', '{', '[':
			if m.IntN(4) == 0 && sig[i] != '[' {
				return out
			}
			if sig[i] == '{' && strings.HasPrefix(sig[i:], "{130}") {
				out = append(out, make([]byte, 130)...)
			}
			out = append(out, make([]byte, m.IntN(4))...)
			if end := strings.IndexAny(sig[i:], "}]"); sig[i] != '*' && end > 0 {
				i += end
			}
			i++
		case '(':
			inside, rest := naiveParens(sig[i:])
			list := naiveSplit(inside)
			if v := list[m.IntN(len(list))]; inside == "B" || inside == "L" || inside == "W" {
				out = append(out, m.oneOf("\n", " ", "\r\n", "")...)
			} else {
				out = append(out, m.sample(v)...)
			}
			i = len(sig) - len(rest)
		case '!', '|', ')', '}', ']':
			i++
		default:
			h := []byte(sig[i : i+2])
			for k := range h {
				if h[k] == '?' {
					h[k] = "0123456789abcdef"[m.IntN(16)]
				}
			}
			var b byte
			if _, err := fmt.Sscanf(string(h), "%02x", &b); err == nil {
				out = append(out, b)
			}
			i += 2
		}
	}
	return out
}
