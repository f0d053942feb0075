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
		kind, body := "event-stream", ""
		switch i % 4 {
		case 0:
			body = fmt.Sprintf(": %s\n\ndata: %d\n\n", word(i), i)
		case 1:
			body = fmt.Sprintf("%s: %s\ndata: {\"a\":%d}\n\n", word(1+i%9), word(20), i)
		case 2:
			kind, body = "mixed-replace", fmt.Sprintf("--%s\r\nContent-Type: image/jpeg\r\n\r\n%s\r\n", word(1+i%60), word(2000))
		case 3:
			kind, body = "mixed-replace", fmt.Sprintf("--b%d\r\nContent-Type: text/plain\r\n\r\n%d\r\n", i, i)
		}
		body = strings.Repeat(body, 1+i%50)
		if got, stopped := readStream(t, newFixture(t, nil), kind, iotest.HalfReader(strings.NewReader(body))); stopped != nil || got != body {
			t.Errorf("%d, a %s: %d bytes of %d, %+v", i, kind, len(got), len(body), stopped)
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
				_, stopped := readStream(t, newFixture(t, nil), "mixed-replace", r)
				if stopped == nil || stopped.Notice.Verdict.Outcome != scan.Infected {
					t.Errorf("%s, %d bytes before: %+v", name, len(before), stopped)
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
	_, stopped := readStream(t, newFixture(t, nil), "mixed-replace", &b)
	if stopped == nil || stopped.Notice.Verdict.Reason != scan.Undecodable {
		t.Errorf("%+v", stopped)
	}
}
