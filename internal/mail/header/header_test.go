package header

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, v := range []struct {
		name, text string
		names      string
		body       int
		odd        bool
	}{
		{"plain", "A: 1\r\nB: 2\r\n 3\r\n\r\nbody", "a b", 18, false},
		{"no body", "A: 1\r\n", "a", -1, false},
		{"bare line feeds", "A: 1\nB: 2\n\nbody", "a b", 11, true},
		{"no field", "A: 1\r\nfoo\r\nB: 2\r\n\r\n", "a b", 19, true},
		{"blank continuation", "A: 1\r\n \r\nB: 2\r\n\r\n", "a b", 17, true},
		{"continuation of nothing", " x\r\nA: 1\r\n\r\n", "a", 12, true},
		{"carriage return in a line", "A: 1\rB: 2\r\n\r\n", "a", 13, true},
		{"cut", "A: 1\r\nB", "a", -1, true},
		{"space before the colon", "A : 1\r\n\r\n", "", 9, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			h := Parse([]byte(v.text))
			var names []string
			for _, f := range h.Fields {
				names = append(names, f.Name)
				if v.text[f.Start:f.End] != string(f.Raw) {
					t.Errorf("%s: %q is not at its place", f.Name, f.Raw)
				}
			}
			if got := strings.Join(names, " "); got != v.names || h.Body != v.body || h.Odd != v.odd {
				t.Errorf("got %q, %d, %v", got, h.Body, h.Odd)
			}
		})
	}
}

func TestValues(t *testing.T) {
	h := Parse([]byte("Subject: =?iso-8859-1?Q?caf=E9?=\r\n =?utf-8?B?4oKs?=\r\n\r\n"))
	if got := Decode(h.Value("subject")); got != "café€" {
		t.Errorf("got %q", got)
	}
	if got := Decode("=?no-such-charset?Q?x?="); got != "=?no-such-charset?Q?x?=" {
		t.Errorf("got %q", got)
	}
}

func TestEncodeIsNeverMoreThanAValue(t *testing.T) {
	for _, s := range []string{"plain", "a\r\nBcc: x", "=?utf-8?Q?x?=", "été", strings.Repeat("é", 300), "\xff\xfe", " x ", strings.Repeat("a", 2000), ""} {
		got := Encode(s)
		for i, line := range strings.Split(got, "\r\n") {
			if i > 0 && !strings.HasPrefix(line, " =?utf-8?B?") || len(line) > 900 {
				t.Errorf("%q: line %q", s, line)
			}
		}
		if back := Decode(got); back != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q came back as %q", s, back)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("A: 1\r\nB: 2\r\n 3\r\n\r\nbody"))
	f.Add([]byte("A: 1\n\n\r\n \r\n: x\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, last := Parse(text), 0
		for _, f := range h.Fields {
			if f.Start < last || f.End <= f.Start || f.End > len(text) || string(text[f.Start:f.End]) != string(f.Raw) {
				t.Fatalf("%q: field at %d to %d", text, f.Start, f.End)
			}
			last = f.End
		}
		if h.End < last || h.Body >= 0 && h.Body <= h.End {
			t.Fatalf("%q: ends at %d, body at %d", text, h.End, h.Body)
		}
	})
}

func TestLeadingFieldsAreTheSameToEverybody(t *testing.T) {
	for text, want := range map[string][]Field{
		"A: b\r\n\r\nC: d\r\n":         {{"a", 0, 6, []byte("A: b\r\n")}},
		"A: b\r\n\tc\r\nD:\r\nE: f":    {{"a", 0, 10, []byte("A: b\r\n\tc\r\n")}, {"d", 10, 14, []byte("D:\r\n")}},
		"A: b\r\nC: d\nE: f\r\n":       {{"a", 0, 6, []byte("A: b\r\n")}},
		"A: b\r\n \x01\r\nE: f\r\n":    {{"a", 0, 6, []byte("A: b\r\n")}},
		"A: b\r\nno field\r\nE: f\r\n": {{"a", 0, 6, []byte("A: b\r\n")}},
		" A: b\r\n":                    nil,
		"":                             nil,
	} {
		if got := Leading([]byte(text)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
