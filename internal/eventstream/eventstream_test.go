package eventstream

import (
	"slices"
	"strings"
	"testing"
)

// seen writes down what an Observer is told: "[" before an event's first line, "|" before each other one.
type seen struct{ strings.Builder }

func (s *seen) Line(first bool) {
	if first {
		s.WriteByte('[')
	} else {
		s.WriteByte('|')
	}
}
func (s *seen) Value(p []byte) { s.Write(p) }

// filtered returns what passes of text, and what is told of it, in pieces of n bytes.
func filtered(text string, n int) (passed, data string) {
	s := &seen{}
	f := New(s)
	var out []byte
	for piece := range slices.Chunk([]byte(text), n) {
		out = f.Next(out, piece)
	}
	return string(out), s.String()
}

func TestWhatReadersUnderstandPassesByteForByte(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\r\n"} {
		text := "\ufeff" + strings.Join([]string{
			": a comment", ":", "retry: 10000", "event: add", "id: 1", "data: 73857293", "", "data", "data:", "data:x", "data:  y", "", "id", "event",
			"data: [remote] 日本語", "data: second", "", "", ":  ", "data:: colon", "",
		}, end) + end
		want := "[73857293[||x| y[[remote] 日本語|second[: colon"
		for n := 1; n < 12; n++ {
			got, data := filtered(text, n)
			if got != text {
				t.Errorf("%q in pieces of %d: %q", end, n, got)
			}
			if data != want {
				t.Errorf("%q in pieces of %d: data %q, want %q", end, n, data, want)
			}
		}
	}
}

func TestWhatReadersIgnoreIsDropped(t *testing.T) {
	for text, want := range map[string]string{
		"PK\x03\x04 zip\n": "", "datax: 1\n": "", "dat\n": "", "dat: 1\n": "", "Data: 1\n": "", " data: 1\n": "", "data : 1\n": "", "\xef\xbbx\n": "",
		"On Error Resume Next\r\ndata: 1\r\nx\r\n\r\n": "data: 1\r\n\r\n",
		"\ufeff\ufeffdata: 1\n":                        "\ufeff",
		"data: 1\n\ufeffdata: 2\n":                     "data: 1\n",
		"x\ndata: 1\ry\n\ndata: 2\n":                   "data: 1\r\n\ndata: 2\n", // the blank line stays one
		"x\rdata: 1\ry\r\n\r":                          "data: 1\r\r",
		"retryx":                                       "", "dat": "", "data": "", "data:": "data:", // the end of the stream
		"eventid: 1\nid: 2\n": "id: 2\n",
	} {
		for n := 1; n < 6; n++ {
			if got, _ := filtered(text, n); got != want {
				t.Errorf("%q in pieces of %d: %q, want %q", text, n, got, want)
			}
		}
	}
}

// TestNothingWaits has each byte of a value come at once, and a name when it is complete.
func TestNothingWaits(t *testing.T) {
	f := New(nil)
	for _, step := range []struct{ piece, want string }{
		{"da", ""}, {"ta", ""}, {":", "data:"}, {" ", " "}, {"x", "x"}, {"\r", "\r"}, {"\n", "\n"}, {"\n", "\n"}, {":", ":"}, {"y", "y"},
	} {
		if got := string(f.Next(nil, []byte(step.piece))); got != step.want {
			t.Errorf("after %q came %q, want %q", step.piece, got, step.want)
		}
	}
}

// event is what a reader dispatches.
type event struct{ data, event, id, retry string }

// parse is section 9.2.6 to the letter, of a stream that is there as a whole.
func parse(text string) (all []event) {
	text = strings.TrimPrefix(text, "\ufeff")
	lines := strings.Split(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n")
	var e event
	for _, line := range lines[:len(lines)-1] {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.data != "" {
				all = append(all, event{strings.TrimSuffix(e.data, "\n"), e.event, e.id, e.retry})
			}
			e.data, e.event = "", ""
		case field == "data":
			e.data += value + "\n"
		case field == "event":
			e.event = value
		case field == "id":
			e.id = value
		case field == "retry":
			e.retry = value
		}
	}
	return all
}

// FuzzFilter has a reader see the same events with and without what is dropped, whatever the pieces, and nothing dropped twice.
func FuzzFilter(f *testing.F) {
	f.Add("\ufeffdata: 1\r\nid: 2\rx: y\n\n", uint8(1))
	f.Add("data: 1\ry\n\ndata\n\nevent: x\r\n: c\r\n\r\n", uint8(3))
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		size := max(int(n), 1)
		got, data := filtered(text, size)
		if again, _ := filtered(got, size); again != got {
			t.Errorf("%q becomes %q, and that %q", text, got, again)
		}
		if whole, all := filtered(text, len(text)+1); whole != got || all != data {
			t.Errorf("%q is %q (%q) at once, and %q (%q) in pieces of %d", text, whole, all, got, data, size)
		}
		if want := parse(text); !slices.Equal(parse(got), want) {
			t.Errorf("%q has the events %q, and %q has %q", text, want, got, parse(got))
		}
		for line := range strings.FieldsFuncSeq(strings.TrimPrefix(got, "\ufeff"), func(r rune) bool { return r == '\r' || r == '\n' }) {
			if field, _, _ := strings.Cut(line, ":"); !slices.Contains([]string{"", "data", "event", "id", "retry"}, field) {
				t.Errorf("%q passes in %q", line, text)
			}
		}
	})
}
