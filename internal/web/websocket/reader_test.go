package websocket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/flate"
)

// frame returns a frame: first is FIN, RSV bits and the opcode.
func frame(first byte, payload string) []byte {
	var b bytes.Buffer
	w := NewWriter(&b, false)
	head, _ := w.head(nil, 0, uint64(len(payload)))
	head[0] = first
	return append(head, payload...)
}

// masked returns a client's frame.
func masked(first byte, payload string) []byte {
	f := frame(first, payload)
	at := len(f) - len(payload)
	key := [4]byte{1, 2, 3, 250}
	out := slices.Clone(f[:at])
	out[1] |= 0x80
	out = append(out, key[:]...)
	body := []byte(payload)
	maskBytes(key, 0, body)
	return append(out, body...)
}

// compressed returns what permessage-deflate makes of messages, sharing their window or not.
func compressed(t testing.TB, takeover bool, messages ...string) []string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range messages {
		b.Reset()
		if !takeover {
			w.Reset(&b)
		}
		if _, err := io.WriteString(w, m); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimSuffix(b.String(), "\x00\x00\xff\xff"))
	}
	return out
}

// readAll returns what a Reader makes of a stream: "op:content" for each message and control frame.
func readAll(src io.Reader, opt Options) (got []string, err error) {
	opt.Control = func(op Op, p []byte) error {
		got = append(got, fmt.Sprintf("%x:%s", byte(op), p))
		return nil
	}
	r := NewReader(src, opt)
	for {
		op, err := r.Next()
		if err != nil {
			return got, err
		}
		if op == Close {
			c, _ := r.Closed()
			return append(got, fmt.Sprintf("8:%d %s", c.Code, c.Reason)), nil
		}
		content, err := io.ReadAll(r)
		if err != nil {
			if next, nextErr := r.Next(); nextErr == nil && next == Close {
				c, _ := r.Closed()
				return append(got, fmt.Sprintf("8:%d %s", c.Code, c.Reason)), nil
			}
			return got, err
		}
		got = append(got, fmt.Sprintf("%x:%s", byte(op), content))
	}
}

func join(frames ...[]byte) []byte { return slices.Concat(frames...) }

func TestMessagesArePutTogether(t *testing.T) {
	long := strings.Repeat("0123456789", 7000)
	for name, c := range map[string]struct {
		in   []byte
		want []string
	}{
		"one frame":               {frame(0x81, "hello"), []string{"1:hello"}},
		"empty":                   {join(frame(0x82, ""), frame(0x81, "")), []string{"2:", "1:"}},
		"16-bit length":           {frame(0x82, long[:300]), []string{"2:" + long[:300]}},
		"64-bit length":           {frame(0x82, long), []string{"2:" + long}},
		"fragments":               {join(frame(0x01, "he"), frame(0x00, "ll"), frame(0x80, "o")), []string{"1:hello"}},
		"empty fragments":         {join(frame(0x01, ""), frame(0x00, ""), frame(0x00, "x"), frame(0x80, "")), []string{"1:x"}},
		"nothing but fragments":   {join(frame(0x02, ""), frame(0x00, ""), frame(0x80, "")), []string{"2:"}},
		"ping between fragments":  {join(frame(0x01, "he"), frame(0x89, "p"), frame(0x8A, ""), frame(0x80, "llo")), []string{"9:p", "a:", "1:hello"}},
		"largest ping":            {frame(0x89, long[:125]), []string{"9:" + long[:125]}},
		"close":                   {join(frame(0x81, "a"), frame(0x88, "\x03\xe8bye"), frame(0x81, "late")), []string{"1:a", "8:1000 bye"}},
		"close without code":      {frame(0x88, ""), []string{"8:0 "}},
		"close inside a message":  {join(frame(0x01, "a"), frame(0x88, "\x03\xe9")), []string{"8:1001 "}},
		"private code":            {frame(0x88, "\x0f\xa0"), []string{"8:4000 "}},
		"character across frames": {join(frame(0x01, "\xe2"), frame(0x00, "\x82"), frame(0x80, "\xac")), []string{"1:\u20ac"}},
		"binary is not text":      {frame(0x82, "\xff\xfe"), []string{"2:\xff\xfe"}},
	} {
		for way, src := range map[string]func([]byte) io.Reader{
			"whole":    func(b []byte) io.Reader { return bytes.NewReader(b) },
			"bytewise": func(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) },
		} {
			got, err := readAll(src(c.in), Options{})
			if err != nil && !errors.Is(err, io.EOF) || !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: %.200q, %v; want %.200q", name, way, got, err, c.want)
			}
		}
	}
}

func TestMasksAreUndone(t *testing.T) {
	in := join(masked(0x01, "hel"), masked(0x89, "ping"), masked(0x00, "lo, wor"), masked(0x80, "ld of masks"), masked(0x88, "\x03\xe8"))
	got, err := readAll(iotest.HalfReader(bytes.NewReader(in)), Options{Masked: true})
	if want := []string{"9:ping", "1:hello, world of masks", "8:1000 "}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBreachesOfTheProtocol(t *testing.T) {
	deflate := Options{Deflate: &Deflate{}}
	for name, c := range map[string]struct {
		in   []byte
		opt  Options
		code Code
	}{
		"RSV1 without extension":        {frame(0xC1, "a"), Options{}, ProtocolError},
		"RSV2":                          {frame(0xA1, "a"), deflate, ProtocolError},
		"RSV3":                          {frame(0x91, "a"), deflate, ProtocolError},
		"RSV1 in a continuation":        {join(frame(0x01, "a"), frame(0xC0, "b")), deflate, ProtocolError},
		"RSV1 in a ping":                {frame(0xC9, ""), deflate, ProtocolError},
		"reserved data opcode":          {frame(0x83, ""), Options{}, ProtocolError},
		"reserved control opcode":       {frame(0x8B, ""), Options{}, ProtocolError},
		"fragmented ping":               {frame(0x09, ""), Options{}, ProtocolError},
		"large ping":                    {frame(0x89, strings.Repeat("x", 126)), Options{}, ProtocolError},
		"continuation of nothing":       {frame(0x80, "a"), Options{}, ProtocolError},
		"message inside a message":      {join(frame(0x01, "a"), frame(0x81, "b")), Options{}, ProtocolError},
		"unmasked from a client":        {frame(0x81, "a"), Options{Masked: true}, ProtocolError},
		"masked from a server":          {masked(0x81, "a"), Options{}, ProtocolError},
		"long form of a short length":   {[]byte{0x82, 126, 0, 5, 1, 2, 3, 4, 5}, Options{}, ProtocolError},
		"longest form of a length":      {[]byte{0x82, 127, 0, 0, 0, 0, 0, 0, 1, 0}, Options{}, ProtocolError},
		"negative length":               {[]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, Options{}, ProtocolError},
		"text that is not UTF-8":        {frame(0x81, "a\xff"), Options{}, InvalidData},
		"surrogates":                    {frame(0x81, "\xed\xa0\x80"), Options{}, InvalidData},
		"text ends inside a character":  {frame(0x81, "\xe2\x82"), Options{}, InvalidData},
		"bad character across frames":   {join(frame(0x01, "\xe2"), frame(0x80, "\xe2")), Options{}, InvalidData},
		"close with half a code":        {frame(0x88, "\x03"), Options{}, ProtocolError},
		"close with code 1005":          {frame(0x88, "\x03\xed"), Options{}, ProtocolError},
		"close with code 1016":          {frame(0x88, "\x03\xf8"), Options{}, ProtocolError},
		"close with code 999":           {frame(0x88, "\x03\xe7"), Options{}, ProtocolError},
		"close with code 5000":          {frame(0x88, "\x13\x88"), Options{}, ProtocolError},
		"close with a reason in Latin1": {frame(0x88, "\x03\xe8\xe9"), Options{}, InvalidData},
		"compressed garbage":            {frame(0xC2, "\xff\xff\xff"), deflate, InvalidData},
		"compressed text not UTF-8":     {frame(0xC1, compressed(t, false, "a\xff")[0]), deflate, InvalidData},
	} {
		got, err := readAll(bytes.NewReader(c.in), c.opt)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: %q, %v, want code %d", name, got, err, c.code)
		}
		if len(got) > 0 {
			t.Errorf("%s: delivered %q", name, got)
		}
	}
}

func TestBrokenOffConnections(t *testing.T) {
	whole := join(frame(0x01, "hello"), frame(0x80, strings.Repeat("x", 200)))
	for n := range whole {
		got, err := readAll(bytes.NewReader(whole[:n]), Options{})
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) || len(got) > 0 {
			t.Fatalf("cut at %d: %q, %v", n, got, err)
		}
	}
}

func TestDeflate(t *testing.T) {
	messages := []string{"Hello", "Hello", strings.Repeat("Hello, World! ", 6000), "", "Hello, World! Hello"}
	for name, takeover := range map[string]bool{"with context takeover": true, "without": false} {
		var in []byte
		var want []string
		for i, c := range compressed(t, takeover, messages...) {
			if i%2 == 0 { // in fragments, with a ping between
				half := len(c) / 2
				in = join(in, frame(0x42, c[:half]), frame(0x89, ""), frame(0x00, c[half:]), frame(0x80, ""))
				want = append(want, "9:")
			} else {
				in = append(in, frame(0xC2, c)...)
			}
			want = append(want, "2:"+messages[i])
			in = append(in, frame(0x81, "plain")...) // does not count for the window
			want = append(want, "1:plain")
		}
		got, err := readAll(iotest.HalfReader(bytes.NewReader(in)), Options{Deflate: &Deflate{NoTakeover: !takeover}})
		if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
			t.Errorf("%s: %d items, %v: %.300q", name, len(got), err, got)
		}
	}
}

// TestExamplesOfRFC7692 reads the examples of RFC 7692, 7.2.3.
func TestExamplesOfRFC7692(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"7.2.3.1, one frame":           {"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", []string{"1:Hello"}},
		"7.2.3.1, two frames":          {"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00", []string{"1:Hello"}},
		"7.2.3.2, sharing the window":  {"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00", []string{"1:Hello", "1:Hello"}},
		"7.2.3.3, no compression":      {"\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", []string{"1:Hello"}},
		"7.2.3.4, BFINAL":              {"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00", []string{"1:Hello"}},
		"7.2.3.5, two blocks":          {"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", []string{"1:Hello"}},
		"BFINAL with nothing after it": {"\xc1\x07\xf3\x48\xcd\xc9\xc9\x07\x00", []string{"1:Hello"}},
	} {
		got, err := readAll(strings.NewReader(c.in), Options{Deflate: &Deflate{}})
		if !errors.Is(err, io.EOF) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestContentBehindAFinalBlockIsRead: a reader that stops at BFINAL would not see what another one goes on to.
func TestContentBehindAFinalBlockIsRead(t *testing.T) {
	first := "\xf3\x48\xcd\xc9\xc9\x07\x00" // "Hello", final
	second := compressed(t, false, " and more")[0]
	got, err := readAll(bytes.NewReader(frame(0xC1, first+second)), Options{Deflate: &Deflate{}})
	if want := []string{"1:Hello and more"}; !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestMessagesThatAreNotReadAreSkipped: what is left of a message does not get into the next one, nor out of the window.
func TestMessagesThatAreNotReadAreSkipped(t *testing.T) {
	c := compressed(t, true, strings.Repeat("skip me ", 100), "skip me not")
	r := NewReader(bytes.NewReader(join(frame(0xC1, c[0]), frame(0xC1, c[1]))), Options{Deflate: &Deflate{}})
	for range 2 {
		if op, err := r.Next(); op != Text || err != nil {
			t.Fatal(op, err)
		}
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "skip me not" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestControlErrorsEndTheReading(t *testing.T) {
	gone := errors.New("gone")
	r := NewReader(bytes.NewReader(frame(0x89, "")), Options{Control: func(Op, []byte) error { return gone }})
	if _, err := r.Next(); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestWriterIsReadBack(t *testing.T) {
	for _, mask := range []bool{true, false} {
		var b bytes.Buffer
		w := NewWriter(&b, mask)
		var want []string
		for _, n := range []int{0, 1, 125, 126, 16<<10 - 5, 16 << 10, 65535, 65536, 100001} {
			content := strings.Repeat("abcdefg", n/7+1)[:n]
			if err := w.Message(Binary, int64(n), strings.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			want = append(want, "2:"+content)
		}
		if err := errors.Join(w.Control(Ping, []byte("x")), w.Close(CloseFrame{Code: Policy, Reason: strings.Repeat("\u20ac", 60)}), w.Close(CloseFrame{}), w.Message(Text, 1, strings.NewReader("a"))); err != nil {
			t.Fatal(err)
		}
		want = append(want, "9:x", "8:1008 "+strings.Repeat("\u20ac", 41))
		got, err := readAll(&b, Options{Masked: mask})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("mask %v: %d items, %v", mask, len(got), err)
		}
		if b.Len() != 0 {
			t.Errorf("mask %v: %d bytes after the Close frame", mask, b.Len())
		}
	}
}

func TestWriterOfAShortMessageSaysSo(t *testing.T) {
	w := NewWriter(io.Discard, false)
	if err := w.Message(Text, 5, strings.NewReader("abc")); err == nil {
		t.Error("no error")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(frame(0x81, "hello"), false, false)
	f.Add(join(masked(0x01, "he"), masked(0x89, ""), masked(0x80, "llo")), true, false)
	for _, c := range compressed(f, true, "hello", "hello hello") {
		f.Add(frame(0xC1, c), false, true)
	}
	f.Add(frame(0xC1, "\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00"), false, true)
	f.Add(frame(0x88, "\x03\xe8bye"), false, false)
	f.Fuzz(func(t *testing.T, in []byte, mask, deflate bool) {
		opt := Options{Masked: mask}
		if deflate {
			opt.Deflate = &Deflate{}
		}
		got, err := readAll(io.LimitReader(bytes.NewReader(in), 1<<16), opt)
		again, againErr := readAll(iotest.OneByteReader(io.LimitReader(bytes.NewReader(in), 1<<16)), opt)
		if !slices.Equal(got, again) || (err == nil) != (againErr == nil) {
			t.Errorf("read as %q, %v and, byte by byte, %q, %v", got, err, again, againErr)
		}
	})
}
