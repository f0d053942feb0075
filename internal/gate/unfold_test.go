package gate

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"lazaret/internal/scan"

	"github.com/andybalholm/brotli"
)

// unfoldAll returns what is found in r by undoing what nobody declared.
func unfoldAll(t *testing.T, r io.Reader) scan.Verdict {
	t.Helper()
	f := newFixture(t, nil)
	st := f.acquire()
	defer st.using.RUnlock()
	s := &stream{g: f.Gate, ctx: t.Context(), kind: "event-stream"}
	buf := make([]byte, streamPiece)
	for {
		n, err := r.Read(buf)
		if v := s.unfold(st, buf[:n]); v.Outcome != scan.Clean {
			return v
		}
		if err != nil {
			return scan.CleanVerdict()
		}
	}
}

// TestStreamsThatCouldBeCompressedPass: their first bytes could be those of a coding without a magic number, as many are.
func TestStreamsThatCouldBeCompressedPass(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('!' + r.IntN(94))
		}
		return string(b)
	}
	for i := range 160 {
		body := ""
		switch i % 4 {
		case 0:
			body = fmt.Sprintf(": %s\n\ndata: %d\n\n", word(i), i)
		case 1:
			body = fmt.Sprintf("%s: %s\ndata: {\"a\":%d}\n\n", word(1+i%9), word(20), i)
		case 2:
			body = fmt.Sprintf("--%s\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n", word(1+i%60), word(2000))
		case 3:
			body = fmt.Sprintf("--b%d\r\nContent-Type: text/plain\r\n\r\n%d\r\n", i, i)
		}
		body = strings.Repeat(body, 1+i%50)
		if v := unfoldAll(t, iotest.HalfReader(strings.NewReader(body))); v.Outcome != scan.Clean {
			t.Errorf("%d, %d bytes: %+v", i, len(body), v)
		}
		if got, stopped := readEvents(t, newFixture(t, nil), iotest.HalfReader(strings.NewReader(body))); stopped != nil || i%4 == 0 && got != body {
			t.Errorf("%d: %d bytes of %d, %+v", i, len(got), len(body), stopped)
		}
	}
}

func coders(t *testing.T) map[string]func(io.Writer) io.WriteCloser {
	raw := func(w io.Writer) io.WriteCloser {
		z, err := flate.NewWriter(w, 9)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	return map[string]func(io.Writer) io.WriteCloser{
		"br": func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) }, "bare deflate": raw,
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	}
}

// TestVirusInAStreamThatIsCompressedWithoutSayingSo has it come late, behind much else, in pieces of many sizes.
func TestVirusInAStreamThatIsCompressedWithoutSayingSo(t *testing.T) {
	for name, coder := range coders(t) {
		for _, before := range []string{"", strings.Repeat("a picture of 1,000 words\r\n", 20), strings.Repeat("a", 3<<20), noiseText(200 << 10)} {
			var b bytes.Buffer
			w := coder(&b)
			_, _ = io.WriteString(w, "--b\r\nContent-Type: text/plain\r\n\r\n"+before)
			_, _ = w.Write(scan.EICAR())
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			for _, slow := range []bool{false, true} {
				r := io.Reader(bytes.NewReader(b.Bytes()))
				if slow {
					r = &pieces{r}
				}
				if v := unfoldAll(t, r); v.Outcome != scan.Infected {
					t.Errorf("%s, %d bytes before: %+v", name, len(before), v)
				}
			}
		}
	}
}

// pieces gives 1,000 bytes at a time.
type pieces struct{ r io.Reader }

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), 1000)]) }

func noiseText(n int) string {
	r := rand.New(rand.NewPCG(5, 6))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	return string(b)
}

func TestBombInAStreamThatIsCompressedWithoutSayingSo(t *testing.T) {
	var b bytes.Buffer
	w := brotli.NewWriter(&b)
	for range unfoldMost>>20 + 1 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if v := unfoldAll(t, &b); v.Reason != scan.Undecodable {
		t.Errorf("%+v", v)
	}
}
