package signatures

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

// x returns s in hexadecimal digits.
func x(s string) string { return hex.EncodeToString([]byte(s)) }

func TestBodies(t *testing.T) {
	for _, c := range []struct {
		body string
		hit  []string
		miss []string
	}{
		{x("badbody"), []string{"badbody", "xbadbody", "badbodyx"}, []string{"badbod", "adbody", "badBody", ""}},
		{strings.ToUpper(x("jkl~")), []string{"jkl~"}, []string{"jkl}"}},
		{x("ab") + "??" + x("cd"), []string{"ab.cd", "ab\x00cd"}, []string{"abcd", "ab..cd"}},
		{x("ab") + "6?" + x("cd"), []string{"abacd", "abocd"}, []string{"abqcd", "abAcd"}},
		{x("ab") + "?1" + x("cd"), []string{"abacd", "abAcd"}, []string{"abbcd"}},
		{x("abc") + "*" + x("def"), []string{"abcdef", "abc" + strings.Repeat(".", 100_000) + "def"}, []string{"defabc", "abcde", "abef"}},
		{x("abc") + "{2}" + x("def"), []string{"abc..def"}, []string{"abcdef", "abc.def", "abc...def"}},
		{x("abc") + "{200}" + x("def"), []string{"abc" + strings.Repeat(".", 200) + "def"}, []string{"abc" + strings.Repeat(".", 199) + "def"}},
		{x("abc") + "{1-3}" + x("def"), []string{"abc.def", "abc...def"}, []string{"abcdef", "abc....def"}},
		{x("abc") + "{-2}" + x("def"), []string{"abcdef", "abc..def"}, []string{"abc...def"}},
		{x("abc") + "{2-}" + x("def"), []string{"abc..def", "abc" + strings.Repeat(".", 9000) + "def"}, []string{"abc.def"}},
		{x("abc") + "{300-400}" + x("def"), []string{"abc" + strings.Repeat(".", 400) + "def"}, []string{"abc" + strings.Repeat(".", 299) + "def", "abc" + strings.Repeat(".", 401) + "def"}},
		{x("ab") + "(" + x("c") + "|" + x("d") + ")" + x("ef"), []string{"abcef", "abdef"}, []string{"abeef", "abef", "abcdef"}},
		{x("ab") + "(" + x("cc") + "|" + x("d") + ")" + x("ef"), []string{"abccef", "abdef"}, []string{"abcef", "abcdef"}},
		{x("ab") + "(" + x("c") + "??|" + x("d") + ")" + x("ef"), []string{"abc.ef", "abdef"}, []string{"abcef"}},
		{x("ab") + "!(" + x("c") + "|" + x("d") + ")" + x("ef"), []string{"ab.ef", "abeef"}, []string{"abcef", "abdef", "abef"}},
		{x("ab") + "!(" + x("cc") + "|" + x("dd") + ")" + x("ef"), []string{"abcdef", "ab..ef"}, []string{"abccef", "abddef"}},
		{x("ab") + "(L)" + x("cd"), []string{"ab\ncd", "ab\r\ncd"}, []string{"ab\rcd", "ab cd"}},
		{"(B)" + x("abc"), []string{"abc", " abc", "/abc"}, []string{"xabc"}},
		{x("abc") + "(W)", []string{"abc", "abc!", "abc\x00"}, []string{"abcd", "abc1"}},
		{x("a") + "[1-2]" + x("bcde"), []string{"a.bcde", "a..bcde"}, []string{"abcde", "a...bcde"}},
		{x("abcd") + "[0-1]" + x("e"), []string{"abcde", "abcd.e"}, []string{"abcd..e", "abcd"}},
		// The second part may begin behind any place of the first one, not only behind the first place.
		{x("abc") + "{4}" + x("def") + "{1-2}" + x("ghi"), []string{"abcabcabc....def.ghi", "abc.abc....def..ghi"}, []string{"abc...def.ghi"}},
		// What is found for the second part before the first one was does not count.
		{x("abc") + "*" + x("abc"), []string{"abcabc", "abc.abc"}, []string{"abc", "ababc"}},
	} {
		db := built(t, bodyFormat, "Test:0:*:"+c.body)
		for _, text := range c.hit {
			if find(t, db, []byte(text), everything) != "Test" {
				t.Errorf("%s is not found in %.60q", c.body, text)
			}
		}
		for _, text := range c.miss {
			if find(t, db, []byte(text), everything) != "" {
				t.Errorf("%s is found in %.60q", c.body, text)
			}
		}
	}
}

func TestOffsets(t *testing.T) {
	text := "0123456789" + strings.Repeat(".", 500) + "abcdefghij" // 520 bytes
	for _, c := range []struct {
		offset, body string
		want         bool
	}{
		{"*", "4567", true},
		{"4", "4567", true},
		{"3", "4567", false},
		{"5", "4567", false},
		{"0,10", "4567", true},
		{"0,3", "4567", false},
		{"EOF-10", "abcd", true},
		{"EOF-9", "abcd", false},
		{"EOF-12,2", "abcd", true},
		{"EOF-12,1", "abcd", false},
		{"EOF-4", "ghij", true},
		{"EOF-3", "ghij", false},
		{"EOF-521", "0123", false}, // before the start
		{"600", "abcd", false},     // behind the end
	} {
		db := built(t, bodyFormat, "Test:0:"+c.offset+":"+x(c.body))
		if got := find(t, db, []byte(text), everything) == "Test"; got != c.want {
			t.Errorf("%s at %s: found is %v", c.body, c.offset, got)
		}
		// The same with a part behind it, so that places are kept across parts.
		db = built(t, bodyFormat, "Test:0:"+c.offset+":"+x(c.body[:2])+"*"+x(c.body[2:]))
		if got := find(t, db, []byte(text), everything) == "Test"; got != c.want {
			t.Errorf("%s in two parts at %s: found is %v", c.body, c.offset, got)
		}
	}
}

func TestOffsetsInRealPrograms(t *testing.T) {
	program, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	var entry uint64
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && f.Entry >= p.Vaddr && f.Entry < p.Vaddr+p.Memsz {
			entry = f.Entry - p.Vaddr + p.Off
		}
	}
	text, last := f.Section(".text"), f.Sections[len(f.Sections)-1]
	number := 0
	for i, s := range f.Sections {
		if s.Name == ".text" {
			number = i
		}
	}
	if entry == 0 || number == 0 {
		t.Fatal("/bin/ls has no entry, or no .text")
	}
	at := func(place uint64, n int) string { return hex.EncodeToString(program[place : int(place)+n]) }
	for _, c := range []struct {
		offset, body string
		want         bool
	}{
		{"EP+0", at(entry, 16), true},
		{"EP+3", at(entry+3, 16), true},
		{"EP-5", at(entry-5, 16), true},
		{"EP+1", at(entry, 16), false},
		{"EP+0,40", at(entry+30, 16), true},
		{fmt.Sprintf("S%d+8", number), at(text.Offset+8, 16), true},
		{fmt.Sprintf("S%d+9", number), at(text.Offset+8, 16), false},
		{fmt.Sprintf("SE%d", number), at(text.Offset+text.FileSize/2, 24), true},
		{fmt.Sprintf("SE%d", number-1), at(text.Offset+text.FileSize/2, 24), false},
		{"SL+2", at(last.Offset+2, 16), true},
		{"S250+0", at(entry, 16), false}, // there is no such section
	} {
		db := built(t, bodyFormat, "Test:6:"+c.offset+":"+c.body)
		if got := find(t, db, program, everything) == "Test"; got != c.want {
			t.Errorf("%s at %s: found is %v", c.body, c.offset, got)
		}
	}
	// A header that lies about its tables costs the offsets, not the scan.
	db := built(t, bodyFormat, "Test:6:EP+0:"+at(entry, 16), "Any:0:*:"+at(entry, 16))
	broken := bytes.Clone(program)
	broken[0x3c], broken[0x3d] = 0xff, 0xff // e_shnum
	if got := find(t, db, broken, everything); got != "Any" {
		t.Errorf("with a broken header: %q", got)
	}
}

func TestTargets(t *testing.T) {
	body := "some longish body"
	file := func(begin string) []byte { return []byte(begin + strings.Repeat("\x01\x02\x03", 100) + body) }
	for _, c := range []struct {
		target    int
		mediaType string
		content   []byte
		want      bool
	}{
		{0, "", file(""), true},
		{1, "", file("MZ"), true},
		{1, "", file("\x7fELF"), false},
		{2, "", file("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), true},
		{2, "", file("MZ"), false},
		{3, "text/html", []byte("<html>" + body), true},
		{3, "", []byte("<html>" + body), true},
		{3, "text/html", file("MZ"), true}, // a browser shows what it is told to show
		{3, "", file("\x89PNG"), false},
		{4, "", []byte("From: me\r\n\r\n" + body), true},
		{5, "", file("GIF89a"), true},
		{5, "", file("MZ"), false},
		{6, "", file("\x7fELF"), true},
		{7, "", []byte(body), true},
		{7, "", file("\x7fELF"), false},
		{9, "", file("\xcf\xfa\xed\xfe"), true},
		{10, "", file("%PDF-1.7\n"), true},
		{10, "", file("junk first %PDF-1.7\n"), true},
		{10, "", file("MZ"), false},
		{11, "", file("CWS"), true},
		{12, "", file("\xca\xfe\xba\xbe"), true},
		{14, "", file("?"), true},
	} {
		e, _ := engine(t, map[string]string{"a.ndb": fmt.Sprintf("Test:%d:*:%s\n", c.target, x(body))})
		want := "clean"
		if c.want {
			want = "Test"
		}
		if got := judgedAs(t, e, c.content, c.mediaType); got != want {
			t.Errorf("target %d, %q as %q: %s, want %s", c.target, c.content[:8], c.mediaType, got, want)
		}
	}
}

// Who writes <SCRIPT> in capitals, or with more spaces, must not get by.
func TestTextIsFolded(t *testing.T) {
	e, _ := engine(t, map[string]string{"a.ndb": "Test:7:*:" + x("<script> eval(bad)") + "\nEnd:7:EOF-6:" + x("theend") + "\n"})
	for _, c := range []struct{ text, want string }{
		{"<script> eval(bad)", "Test"},
		{"<SCRIPT>\r\n\t EVAL(Bad)", "Test"},
		{"<scr\x00ipt> ev\x80al(bad)", "Test"},
		{"<\x00S\x00C\x00R\x00I\x00P\x00T\x00>\x00 \x00e\x00v\x00a\x00l\x00(\x00b\x00a\x00d\x00)\x00", "Test"}, // UTF-16
		{strings.Repeat("A line   of text.\n", 60_000) + "<Script>  Eval(bad)", "Test"},
		{strings.Repeat("A line   of text.\n", 60_000) + "THEEND", "End"},
		{"<script>eval(bad)", "clean"},
	} {
		if got := judged(t, e, []byte(c.text)); got != c.want {
			t.Errorf("%.40q: %s, want %s", c.text, got, c.want)
		}
	}
}

// What stands at one place of the folded text is found where nothing counts from its end, so that its size is unknown.
func TestFoldedTextHasPlacesAndABudget(t *testing.T) {
	e, _ := engine(t, map[string]string{"a.ndb": "Begin:7:0:" + x("<script> eval") + "\nHalf:7:*:" + x("repeated wordx") + "\n"})
	if got := judged(t, e, []byte("<SCRIPT>   Eval")); got != "Begin" {
		t.Errorf("at the start: %s", got)
	}
	if got := judged(t, e, []byte(strings.Repeat("Repeated Word ", 200_000))); got != "clean" {
		t.Errorf("a long text: %s", got)
	}
}

// The bodies that are pinned to a place must not make every small file look like too much work.
func TestManyPinsDoNotCondemnAShortText(t *testing.T) {
	lines := make([]string, 0, 20_000)
	for i := range 20_000 {
		place := "0"
		if i%2 == 1 {
			place = "EOF-3"
		}
		lines = append(lines, fmt.Sprintf("Test-%d:0:%s:%s%08x", i, place, x("MZ-")[:6], i*7))
	}
	db := built(t, bodyFormat, lines...)
	for _, text := range []string{"a", "MZ-", "abcdefg", "MZ-\x01\x02\x03\x04MZ-"} {
		if got := find(t, db, []byte(text), everything); got != "" {
			t.Errorf("%q: %s", text, got)
		}
	}
	if got := find(t, db, []byte("MZ-\x00\x00\x00\x0e"), everything); got != "Test-2" {
		t.Errorf("the third one: %q", got)
	}
}

// Runs of one byte are passed over; what is pinned within them, or what is behind them, must still be found.
func TestRepeatsHideNothing(t *testing.T) {
	zeros := make([]byte, 3<<20)
	for _, c := range []struct {
		line string
		at   int
		put  string
	}{
		{"Test:0:2000000:000000000000000000*00000000000000000000", -1, ""},
		{"Test:0:2000000:0000*0000", -1, ""},
		{"Test:0:EOF-1000000:000000000000000000{100-200}00000000000000000000", -1, ""},
		{"Test:0:2000000,5:000000000000000000*00000000000000000000", -1, ""},
		{"Test:0:*:" + x("start") + "*000000000000000000000000", 1 << 20, "start"},
		{"Test:0:*:0000000000000000000000" + x("e"), 2 << 20, "e"},
		{"Test:0:*:00000000000000000000*" + x("ending"), 3<<20 - 6, "ending"},
	} {
		db := built(t, bodyFormat, c.line)
		text := bytes.Clone(zeros)
		if c.at >= 0 {
			if find(t, db, text, everything) != "" {
				t.Errorf("%s is found in zeros", c.line)
			}
			copy(text[c.at:], c.put)
		}
		if find(t, db, text, everything) != "Test" {
			t.Errorf("%s is not found", c.line)
		}
	}
}

// TestLaterPartsAreFound puts the parts of a body at many distances, in one block and in several, as far as the gaps allow and
// one byte further: later parts are only looked for where an earlier one says so.
func TestLaterPartsAreFound(t *testing.T) {
	m := rand.New(rand.NewPCG(5, 5))
	const gap, most = 40, 3 * blockSize
	const middle = "a part that is long enough for a tier"
	for _, size := range []int{3, 7, 20} { // as long as the grams of different tiers ask for
		second, third := fmt.Sprintf("%x", middle[:size]), fmt.Sprintf("%x", "the last")
		for _, c := range []struct {
			sig  string
			last int // the longest distance between the first part and the second
		}{
			{fmt.Sprintf("%x*%s*%s", "the beginning", second, third), most},
			{fmt.Sprintf("%x{-%d}%s*%s", "the beginning", gap, second, third), gap},
			{fmt.Sprintf("%x{-%d}%s{-%d}%s", "the beginning", 2*blockSize, second, gap, third), 2 * blockSize},
		} {
			db := built(t, bodyFormat, "Test:0:*:"+c.sig)
			if db.first.tiers == ([tiers]*tier{}) || db.later.tiers == ([tiers]*tier{}) {
				t.Fatalf("%s: not in both stages", c.sig)
			}
			for _, distance := range []int{0, 1, gap - 1, gap, gap + 1, blockSize - 20, blockSize, 2 * blockSize, 2*blockSize + 1, most} {
				text := make([]byte, 8*blockSize)
				for i := range text {
					text[i] = byte(0x80 | m.Uint32())
				}
				at := m.IntN(2*blockSize) + copy(text, middle[:size]) // a part of no use, before the first one
				at += copy(text[at:], "the beginning") + distance
				at += copy(text[at:], middle[:size]) + m.IntN(gap+1)
				copy(text[at:], "the last")
				if got, want := find(t, db, text, everything) == "Test", distance <= c.last; got != want {
					t.Errorf("%s with %d bytes in between: %v, want %v", c.sig, distance, got, want)
				}
			}
		}
	}
}

// What is too much work is said so: neither clean, nor compared for ever.
func TestTooMuchWorkIsIncomplete(t *testing.T) {
	e, dir := engine(t, map[string]string{"a.ndb": "Test:0:*:000000{1000000}000000" + x("e") + "\n"})
	zeros := make([]byte, 8<<20)
	if got := judged(t, e, zeros); !strings.HasPrefix(got, "incomplete: bomb: ") {
		t.Errorf("zeros: %s", got)
	}
	// The digests of such an object are still looked up, and the allow-list holds.
	sums := hashes(zeros)
	for _, c := range [][2]string{{"a.hdb", "Known"}, {"a.sfp", "clean"}} {
		write(t, filepath.Join(dir, c[0]), fmt.Sprintf("%s:%d:Known\n", sums["MD5"], len(zeros)))
		if err := e.Reload(); err != nil {
			t.Fatal(err)
		}
		if got := judged(t, e, zeros); got != c[1] {
			t.Errorf("with %s: %s, want %s", c[0], got, c[1])
		}
	}
}

// turning is a context that ends when it was asked so many times.
type turning struct {
	context.Context
	left atomic.Int64
}

func (c *turning) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelledInTheMidstOfAScan(t *testing.T) {
	e, _ := engine(t, map[string]string{"a.ndb": "Test:0:*:" + x("neverfound") + "*" + x("nothere") + "\n"})
	for _, size := range []int{60 << 10, 8 << 20} { // in memory, and on disk
		o := scantest.Object(t, scantest.Pool(t), scantest.Text(size))
		asked := &turning{Context: context.Background()}
		asked.left.Store(1 << 40)
		if v, err := e.Scan(asked, o); err != nil || v.Outcome != scan.Clean {
			t.Fatalf("%d bytes: %v, %v", size, v, err)
		}
		times := 1<<40 - asked.left.Load()
		if times < 3 || size > 1<<20 && times < 30 {
			t.Errorf("%d bytes: the context is looked at %d times only", size, times)
		}
		for _, left := range []int64{0, 1, times / 2, times - 1} {
			ends := &turning{Context: context.Background()}
			ends.left.Store(left)
			if _, err := e.Scan(ends, o); !errors.Is(err, context.Canceled) {
				t.Errorf("%d bytes, ended at look %d of %d: %v", size, left, times, err)
			}
		}
	}
}
