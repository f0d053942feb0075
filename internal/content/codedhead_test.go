package content

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"lazaret/internal/unpack"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
)

// undone returns what package unpack makes of text in a coding.
func undone(t *testing.T, text []byte, coding string) ([]byte, error) {
	t.Helper()
	r, err := unpack.NewDecoder(bytes.NewReader(text), []string{coding}, unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, int64(len(text))+1)) // a few bytes can become very many
	return out, err
}

// agrees fails where the first bits of text say something else than a decoder finds.
func agrees(t *testing.T, text []byte) (stored, neverBrotli, never bool) {
	t.Helper()
	header, neverBrotli := brotliHead(text, int64(len(text)))
	if stored = header > 0; stored || neverBrotli {
		out, err := undone(t, text, "br")
		if stored && (err == nil || !bytes.Equal(out, text[header:])) {
			t.Fatalf("%x: stored behind %d bytes, and a decoder makes %x of it, %v", text, header, out, err)
		}
		if neverBrotli && len(out) > 0 {
			t.Fatalf("%x: a decoder of br makes %x of it, %v", text, out, err)
		}
	}
	if never = neverDeflate(text); never {
		if out, err := undone(t, text, "deflate"); len(out) > 0 {
			t.Fatalf("%x: a decoder makes %x of it, %v", text, out, err)
		}
	}
	return stored, neverBrotli, never
}

func TestFirstBitsSayWhatADecoderFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any bytes will do
	const n = 40_000
	stored, neverBrotli, never := 0, 0, 0
	for range n {
		text := make([]byte, 1+r.IntN(120))
		for i := range text {
			text[i] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 && len(text) > 4 { // bodies that are stored in deflate, too
			text[0] &= 1
			size := binary.LittleEndian.Uint16(text[1:])
			binary.LittleEndian.PutUint16(text[3:], ^size)
		}
		s, b, d := agrees(t, text)
		for n, is := range map[*int]bool{&stored: s, &neverBrotli: b, &never: d} {
			if is {
				*n++
			}
		}
	}
	if stored < n/100 || neverBrotli < n/8 || never < n/4 {
		t.Errorf("of %d, %d were stored, %d never br, and %d never deflate: it finds next to nothing", n, stored, neverBrotli, never)
	}
}

func FuzzFirstBits(f *testing.F) {
	f.Add([]byte("\x0b\x02\x80hello\x03"))
	f.Add([]byte("Z\x030000"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 0 {
			agrees(t, text)
		}
	})
}

// What is in a coding is never taken for something that is not.
func TestFirstBitsOfWhatIsCoded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // any bytes will do
	for range 2000 {
		text := make([]byte, r.IntN(3000))
		letters := 1 + r.IntN(256)
		for i := range text {
			text[i] = byte(r.IntN(letters))
		}
		var br, bare bytes.Buffer
		bw := brotli.NewWriterOptions(&br, brotli.WriterOptions{Quality: r.IntN(12), LGWin: 10 + r.IntN(15)})
		fw, err := flate.NewWriter(&bare, r.IntN(10))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []io.WriteCloser{bw, fw} {
			_, err := w.Write(text)
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if header, never := brotliHead(br.Bytes(), int64(br.Len())); header > 0 || never && len(text) > 0 {
			t.Fatalf("%x has an end, and is said to be stored behind %d bytes without one, or never br: %v", br.Bytes(), header, never)
		}
		if neverDeflate(bare.Bytes()) {
			t.Fatalf("%x is said never to be deflate", bare.Bytes())
		}
		agrees(t, br.Bytes()[:1+r.IntN(br.Len())]) // what is cut off may be
	}
}
