package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"lazaret/internal/units"

	"github.com/klauspost/compress/gzip"
)

func decode(b []byte, codings ...string) ([]byte, error) {
	return decodeFrom(bytes.NewReader(b), Limits{}, codings...)
}

func decodeFrom(r io.Reader, lim Limits, codings ...string) ([]byte, error) {
	d, err := NewDecoder(r, codings, lim)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

// wire returns the name that a header uses for a coding of encode.
func wire(coding string) string {
	switch coding {
	case "deflate-raw":
		return "deflate"
	case "snappy-block":
		return "snappy"
	}
	return coding
}

var codings = []string{"gzip", "x-gzip", "deflate", "deflate-raw", "br", "zstd", "snappy", "snappy-block"}

func TestDecoderUndoesEveryCoding(t *testing.T) {
	for _, coding := range codings {
		for _, body := range [][]byte{nil, []byte("a"), eicar(), text(60 << 10), random(300 << 10), make([]byte, 1<<20)} {
			enc := encode(t, coding, body)
			for name, r := range map[string]io.Reader{
				"at once":        bytes.NewReader(enc),
				"byte by byte":   iotest.OneByteReader(bytes.NewReader(enc)),
				"with the error": iotest.DataErrReader(bytes.NewReader(enc)),
			} {
				got, err := decodeFrom(r, Limits{}, wire(coding))
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s of %d bytes, %s: %d bytes, %v", coding, len(body), name, len(got), err)
				}
			}
		}
	}
}

func TestDecoderUndoesStacksInReverseOrder(t *testing.T) {
	body := text(100 << 10)
	for _, stack := range [][]string{
		{"gzip", "br"},
		{"br", "gzip"},
		{"deflate", "gzip"},
		{"gzip", "gzip"},
		{"identity", "zstd", "identity", "br"},
		{"gzip", "deflate", "br", "zstd", "gzip"},
		{"identity"},
		{},
		{"deflate-raw", "deflate-raw"},
	} {
		enc := body
		names := make([]string, 0, len(stack))
		for _, c := range stack {
			enc = encode(t, c, enc)
			names = append(names, strings.ToUpper(wire(c)))
		}
		if got, err := decode(enc, names...); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%v: %d bytes, %v", stack, len(got), err)
		}
	}
}

func TestDecoderReadsWhatRealToolsWrite(t *testing.T) {
	body := text(300 << 10)
	for _, c := range []struct {
		coding string
		cmd    []string
	}{
		{"gzip", []string{"gzip", "-9c"}},
		{"br", []string{"brotli", "-c", "-q", "9"}},
		{"br", []string{"brotli", "-c", "-w", "24"}},
		{"zstd", []string{"zstd", "-c", "-q", "-19"}},
		{"zstd", []string{"zstd", "-c", "-q", "--no-check"}},
	} {
		cmd := exec.Command(c.cmd[0], c.cmd[1:]...)
		cmd.Stdin = bytes.NewReader(body)
		enc, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v (scripts/peers installs it): %v", c.cmd, err)
		}
		if got, err := decode(enc, c.coding); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%v: %d bytes, %v", c.cmd, len(got), err)
		}
	}
}

func TestEmptyBodyIsEmptyInEveryCoding(t *testing.T) {
	for _, coding := range codings {
		if got, err := decode(nil, wire(coding)); err != nil || len(got) != 0 {
			t.Errorf("%s: %q, %v", coding, got, err)
		}
	}
	if got, err := decode(nil, "gzip", "br"); err != nil || len(got) != 0 {
		t.Errorf("a stack: %q, %v", got, err)
	}
}

func TestTruncatedBodyIsUndecodable(t *testing.T) {
	body := append(text(2000), random(50)...)
	for _, coding := range codings {
		enc := encode(t, coding, body)
		for cut := 1; cut < len(enc); cut++ {
			if coding == "snappy" && cut == len(snappyStream) {
				continue // frames have no end of their own, and it is their beginning
			}
			if _, err := decode(enc[:cut], wire(coding)); err == nil {
				t.Fatalf("%s cut to %d of %d bytes was decoded without an error", coding, cut, len(enc))
			} else if kindOf(err) != Undecodable {
				t.Fatalf("%s cut to %d: %v", coding, cut, err)
			}
		}
	}
}

func TestChangedBodyIsNeverDecodedToSomethingElse(t *testing.T) {
	body := append(text(3000), random(300)...)
	for _, coding := range []string{"gzip", "deflate", "zstd"} { // those with a checksum
		enc := encode(t, coding, body)
		for i := range enc {
			bad := slices.Clone(enc)
			bad[i] ^= 0x10
			if got, err := decode(bad, wire(coding)); err == nil && !bytes.Equal(got, body) {
				t.Errorf("%s with byte %d changed was decoded to something else", coding, i)
			}
		}
	}
}

func TestGzipMembersAreOneBody(t *testing.T) {
	enc := slices.Concat(encode(t, "gzip", []byte("harmless ")), encode(t, "gzip", nil), encode(t, "gzip", eicar()))
	got, err := decode(enc, "gzip")
	if want := "harmless " + string(eicar()); err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

func TestZstdFramesAreOneBody(t *testing.T) {
	skippable := append([]byte{0x53, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "skip"...)
	enc := slices.Concat(skippable, encode(t, "zstd", []byte("harmless ")), skippable, encode(t, "zstd", eicar()), skippable)
	got, err := decode(enc, "zstd")
	if want := "harmless " + string(eicar()); err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWhatFollowsTheEndOfTheContent(t *testing.T) {
	body := text(20_000)
	tail := map[string][]byte{
		"zero":        {0},
		"zeros":       make([]byte, 10_000),
		"garbage":     []byte("garbage"),
		"zeros first": append(make([]byte, 9000), 'x'),
		"half magic":  {0x1f},
	}
	for _, coding := range codings {
		for name, rest := range tail {
			enc := append(encode(t, coding, body), rest...)
			padded := strings.HasPrefix(name, "zero") && name != "zeros first" && (strings.HasSuffix(coding, "gzip") || wire(coding) == "deflate")
			for _, r := range []io.Reader{bytes.NewReader(enc), iotest.OneByteReader(bytes.NewReader(enc))} {
				got, err := decodeFrom(r, Limits{}, wire(coding))
				switch {
				case padded && (err != nil || !bytes.Equal(got, body)):
					t.Errorf("%s, then %s: %d bytes, %v", coding, name, len(got), err)
				case !padded && err == nil:
					t.Errorf("%s, then %s: no error", coding, name)
				case !padded:
					wantKind(t, err, Undecodable)
				}
			}
		}
	}
	member := encode(t, "gzip", eicar())
	if _, err := decode(slices.Concat(member, make([]byte, 5), member), "gzip"); err == nil {
		t.Error("a gzip member after zeros: clients differ, and there was no error")
	}
}

func TestDeflateBombInsideAHeaderLookalike(t *testing.T) {
	// A stored block with padding bits that make it look like a zlib header: no client decodes it as raw deflate first.
	raw := []byte{0x78, 0x01, 0x00, 0xfe, 0xff, 'x'}
	if _, err := decode(raw, "deflate"); err == nil {
		t.Error("decoded without an error")
	}
	for first := range 256 { // whatever begins a raw stream, the result is the content or an error
		if got, err := decode([]byte{byte(first), 5, 0, 0xfa, 0xff, 'h', 'e', 'l', 'l', 'o'}, "deflate"); err == nil && string(got) != "hello" {
			t.Errorf("first byte %#x: %q", first, got)
		}
	}
}

func TestUnknownCodings(t *testing.T) {
	for _, c := range [][]string{{"compress"}, {"gzip", "aes128gcm"}, {""}, {"gzip\x00"}, {"bzip2", "gzip"}} {
		_, err := NewDecoder(strings.NewReader(""), c, Limits{})
		if err == nil {
			t.Errorf("%q was accepted", c)
			continue
		}
		wantKind(t, err, Undecodable)
	}
	_, err := NewDecoder(strings.NewReader(""), slices.Repeat([]string{"gzip"}, maxCodings+1), Limits{})
	wantKind(t, err, TooDeep)
}

// zeros is n zero bytes.
type zeros int64

func (z *zeros) Read(p []byte) (int, error) {
	if *z == 0 {
		return 0, io.EOF
	}
	n := min(int(*z), len(p))
	clear(p[:n])
	*z -= zeros(n)
	return n, nil
}

func TestBodyLimits(t *testing.T) {
	lim := Limits{MemberBytes: units.MiB, Ratio: 10, RatioFrom: 256 * units.KiB}
	for _, coding := range codings {
		_, err := decodeFrom(bytes.NewReader(encode(t, coding, make([]byte, 1<<20))), lim, wire(coding))
		wantKind(t, err, Bomb)
		_, err = decodeFrom(bytes.NewReader(encode(t, coding, random(1<<20+1))), lim, wire(coding))
		wantKind(t, err, TooLarge)
		if got, err := decodeFrom(bytes.NewReader(encode(t, coding, random(1<<20))), lim, wire(coding)); err != nil || len(got) != 1<<20 {
			t.Errorf("%s: exactly the limit: %d bytes, %v", coding, len(got), err)
		}
	}
	_, err := decodeFrom(bytes.NewReader(random(1<<20+1)), lim)
	wantKind(t, err, TooLarge)
}

func TestBombInTheMiddleOfAStackIsSeen(t *testing.T) {
	// 100 MiB of skippable zstd frame, which vanish in the next stage, from a few KiB.
	frame := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, 100<<20)
	z := zeros(100 << 20)
	var enc bytes.Buffer
	w := gzip.NewWriter(&enc)
	w.Write(frame)
	io.Copy(w, &z)
	w.Close()
	_, err := decodeFrom(bytes.NewReader(enc.Bytes()), Limits{Ratio: 100, RatioFrom: units.MiB}, "zstd", "gzip")
	wantKind(t, err, Bomb)
}

func TestTenGiBOfZerosStopEarly(t *testing.T) {
	frames := bytes.Repeat(encode(t, "zstd", make([]byte, 64<<20)), 160)
	d, err := NewDecoder(bytes.NewReader(frames), []string{"zstd"}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n, err := io.Copy(io.Discard, d)
	wantKind(t, err, Bomb)
	if n > 2<<30 {
		t.Errorf("%d bytes came out first", n)
	}
}

func TestZstdWindowIsLimited(t *testing.T) {
	for _, c := range []struct {
		log int
		ok  bool
	}{{23, true}, {24, false}, {27, false}} {
		cmd := exec.Command("zstd", "-c", "-q", fmt.Sprintf("--zstd=wlog=%d", c.log))
		cmd.Stdin = io.LimitReader(bytes.NewReader(text(9<<20)), 9<<20)
		enc, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		_, err = decode(enc, "zstd")
		if c.ok && err != nil {
			t.Errorf("a window of 2^%d: %v", c.log, err)
		}
		if !c.ok {
			wantKind(t, err, Undecodable)
		}
	}
}

func TestBrotliLargeWindowIsRefused(t *testing.T) {
	cmd := exec.Command("brotli", "-c", "--large_window=28", "-q", "5")
	cmd.Stdin = bytes.NewReader(text(1 << 20))
	enc, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, err = decode(enc, "br")
	wantKind(t, err, Undecodable)
}

func TestSendersOwnErrorIsUnchanged(t *testing.T) {
	mine := errors.New("connection reset")
	for _, stack := range [][]string{{"gzip"}, {"deflate"}, {"br"}, {"zstd"}, {"br", "gzip"}, nil} {
		enc := text(10_000)
		for _, c := range stack {
			enc = encode(t, c, enc)
		}
		r := io.MultiReader(bytes.NewReader(enc[:len(enc)/2]), iotest.ErrReader(mine))
		if _, err := decodeFrom(r, Limits{}, stack...); err != mine { //nolint:errorlint // it must be the same
			t.Errorf("%v: %v", stack, err)
		}
	}
}

func TestDecoderErrorStays(t *testing.T) {
	d, err := NewDecoder(strings.NewReader("not gzip at all"), []string{"gzip"}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n, err := d.Read(make([]byte, 10))
		if n != 0 {
			t.Error("bytes after an error")
		}
		wantKind(t, err, Undecodable)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if n, err := d.Read(make([]byte, 10)); n != 0 || err == nil {
		t.Errorf("after Close: %d, %v", n, err)
	}
}

func TestPooledDecodersShareNothing(t *testing.T) {
	bodies := map[string][]byte{}
	encoded := map[string][]byte{}
	for _, c := range codings {
		bodies[c] = append([]byte(c), text(40_000)...)
		encoded[c] = encode(t, c, bodies[c])
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				for _, c := range codings {
					_, _ = decode(encoded[c][:len(encoded[c])/3], wire(c)) // leaves a decoder in the middle
					if got, err := decode(encoded[c], wire(c)); err != nil || !bytes.Equal(got, bodies[c]) {
						t.Errorf("%s: %d bytes, %v", c, len(got), err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestParseContentEncoding(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want []string
		kind Kind
	}{
		{nil, nil, 0},
		{[]string{""}, nil, 0},
		{[]string{" ,, ,"}, nil, 0},
		{[]string{"gzip"}, []string{"gzip"}, 0},
		{[]string{"GZip, BR"}, []string{"gzip", "br"}, 0},
		{[]string{"gzip", "deflate ,\tzstd"}, []string{"gzip", "deflate", "zstd"}, 0},
		{[]string{"what-ever!"}, []string{"what-ever!"}, 0},
	} {
		got, err := ParseContentEncoding(c.in)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.in, got, err)
		}
	}
	for _, in := range []string{"gzip br", "gz\x00ip", "gzip;q=1", `"gzip"`, "gzïp", "gzip\r\nX: y"} {
		_, err := ParseContentEncoding([]string{in})
		wantKind(t, err, Undecodable)
	}
	_, err := ParseContentEncoding([]string{strings.Repeat("gzip,", maxListed+1)})
	wantKind(t, err, TooDeep)
}

func TestSupportedIsDecoded(t *testing.T) {
	names, err := ParseContentEncoding([]string{Supported()})
	if err != nil || len(names) < 4 {
		t.Fatalf("%q, %v", names, err)
	}
	for _, n := range names {
		if got, err := decode(encode(t, n, eicar()), n); err != nil || !bytes.Equal(got, eicar()) {
			t.Errorf("%s: %q, %v", n, got, err)
		}
	}
}

func FuzzNewDecoder(f *testing.F) {
	for i, c := range codings {
		f.Add(encode(f, c, append(text(500), eicar()...)), uint8(i), uint8(0))
		f.Add(encode(f, "gzip", encode(f, c, text(100))), uint8(i), uint8(1))
	}
	f.Add(append(encode(f, "gzip", eicar()), 0, 0), uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, first, second uint8) {
		stack := []string{wire(codings[int(first)%len(codings)])}
		if second > 0 {
			stack = append(stack, wire(codings[int(second-1)%len(codings)]))
		}
		lim := Limits{MemberBytes: units.MiB, Ratio: 50, RatioFrom: 64 * units.KiB}
		d, err := NewDecoder(bytes.NewReader(b), stack, lim)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		n, err := io.Copy(io.Discard, d)
		if n > int64(lim.MemberBytes) {
			t.Errorf("%d bytes came out", n)
		}
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("an error of type %T: %v", err, err)
		}
		if err != nil && strings.Contains(err.Error(), "the decoder broke") {
			t.Logf("a library panicked: %v", err)
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	for _, size := range []int{1 << 10, 60 << 10, 4 << 20} {
		for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
			enc := encode(b, coding, text(size))
			b.Run(fmt.Sprintf("%s/%dKiB", coding, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				buf := make([]byte, 32<<10)
				for b.Loop() {
					d, err := NewDecoder(bytes.NewReader(enc), []string{coding}, Limits{})
					if err != nil {
						b.Fatal(err)
					}
					n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{d}, buf)
					d.Close()
					if n != int64(size) || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}

// TestLargeSnappyBlocksAreRefused: they are decoded in memory, and anybody can announce anything.
func TestLargeSnappyBlocksAreRefused(t *testing.T) {
	_, err := decode(encode(t, "snappy-block", make([]byte, snappyBlock+1)), "snappy")
	wantKind(t, err, TooLarge)
	_, err = decode([]byte("\xff\xff\xff\x03\x00x"), "snappy")
	wantKind(t, err, Undecodable)
	_, err = decode(append(encode(t, "snappy-block", eicar()), "behind"...), "snappy")
	wantKind(t, err, Undecodable)
}
