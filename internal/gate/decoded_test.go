package gate

import (
	"bytes"
	"io"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/units"
	"lazaret/internal/unpack"

	"github.com/andybalholm/brotli"
)

// littleMemory gives the process's decoders 96 MiB for a test, of which those that may last have 48.
func littleMemory(t *testing.T) {
	t.Helper()
	unpack.Memory().Resize(96 * units.MiB)
	t.Cleanup(func() {
		unpack.Memory().Resize(unpack.Default().TotalMemory)
		if now, _ := unpack.Memory().Used(); now != 0 || unpack.Memory().Waiting() != 0 {
			t.Errorf("decoders still have %d bytes, %d wait", now, unpack.Memory().Waiting())
		}
	})
}

func brotliOf(t *testing.T, lgwin int, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: 2, LGWin: lgwin})
	_, _ = w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// noise returns n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// pausing is a body whose end comes when it may.
type pausing struct {
	head, tail io.Reader
	goOn       <-chan struct{}
}

func (s *pausing) Read(p []byte) (int, error) {
	if n, err := s.head.Read(p); n > 0 || err != io.EOF {
		return n, err
	}
	<-s.goOn
	return s.tail.Read(p)
}

// TestDecodersDoNotWaitForSenders has more bodies stall in the middle than there is memory for decoders: they have their share, and
// all others do without a decoder until they have come.
func TestDecodersDoNotWaitForSenders(t *testing.T) {
	littleMemory(t)
	f := newFixture(t, nil)
	want := noise(3 << 20)
	enc := brotliOf(t, 22, want)
	goOn := make(chan struct{})
	const bodies = 20
	started, done := make(chan struct{}, bodies), make(chan *scan.Object, bodies)
	for range bodies {
		go func() {
			r := &pausing{head: io.MultiReader(bytes.NewReader(enc[:2<<20]), sends(started)), tail: bytes.NewReader(enc[2<<20:]), goOn: goOn}
			o, err := f.Take(r, Intake{Encodings: []string{"br"}, Wait: &spool.Waiting{}})
			if err != nil {
				t.Error(err)
			}
			done <- o
		}()
	}
	for range bodies {
		<-started
	}
	if now, most := unpack.Memory().Used(); now == 0 || most > 48<<20 {
		t.Errorf("decoders have %d bytes, and had %d", now, most)
	}
	o, err := f.Take(bytes.NewReader(brotliOf(t, 24, want[:1000])), Intake{Encodings: []string{"br"}, Wait: &spool.Waiting{}})
	if err != nil || o.Body == nil || o.Body.Size() != 1000 {
		t.Errorf("a small body meanwhile: %+v, %v", o, err)
	}
	closeBody(o)
	close(goOn)
	for range bodies {
		o := <-done
		if o.Body == nil {
			t.Fatalf("no body: %v", o.Known)
		}
		if got, err := io.ReadAll(o.Body.NewReader()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		closeBody(o)
	}
}

// sends says by c that everything before it has been read, and ends.
type sends chan<- struct{}

func (c sends) Read([]byte) (int, error) {
	c <- struct{}{}
	return 0, io.EOF
}

// TestNoMemoryIsAVerdict has decoders not get any memory.
func TestNoMemoryIsAVerdict(t *testing.T) {
	littleMemory(t)
	f := newFixture(t, func(_ *Config, s *spool.Config) { s.Wait = units.Duration(10 * time.Millisecond) })
	goOn := make(chan struct{})
	var readers []io.Closer
	for range 15 { // of 7 MiB each
		d, err := unpack.NewDecoderIn(&pausing{head: bytes.NewReader(brotliOf(t, 22, noise(1000))[:500]), goOn: goOn, tail: bytes.NewReader(nil)},
			[]string{"br"}, unpack.Limits{}, unpack.Room{Share: unpack.Inner})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = d.Read(make([]byte, 1))
		readers = append(readers, d)
	}
	for name, in := range map[string]Intake{
		"from the network": {Wait: &spool.Waiting{}}, "without waiting": {}, "held already": {Held: true},
	} {
		in.Encodings = []string{"br"}
		o, err := f.Take(bytes.NewReader(brotliOf(t, 24, noise(1000))), in)
		if err != nil {
			t.Fatal(err)
		}
		if o.Body != nil || o.Known.Outcome != scan.Incomplete || o.Known.Reason != scan.SpoolFull {
			t.Errorf("%s: %v", name, o.Known)
		}
		closeBody(o)
	}
	close(goOn)
	for _, r := range readers {
		_ = r.Close()
	}
}

// TestBodiesOnDiskDoNotWaitForThoseThatWaitForRoom has a body be gathered on disk while all the memory of the smaller shares is held, as
// by decoders that wait for room on disk: both would wait for each other.
func TestBodiesOnDiskDoNotWaitForThoseThatWaitForRoom(t *testing.T) {
	littleMemory(t)
	f := newFixture(t, func(_ *Config, s *spool.Config) { s.Wait = units.Duration(time.Second) })
	want := noise(3 << 20)
	for range 10 { // of 7 MiB each: the next one does not fit
		d, err := unpack.NewDecoderIn(bytes.NewReader(brotliOf(t, 22, want)), []string{"br"}, unpack.Limits{}, unpack.Room{Share: unpack.Brief})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	o, err := f.Take(bytes.NewReader(brotliOf(t, 22, want)), Intake{Encodings: []string{"br"}, Wait: &spool.Waiting{}})
	if err != nil {
		t.Fatal(err)
	}
	if o.Body == nil || o.Body.Size() != int64(len(want)) {
		t.Errorf("%v", o.Known)
	}
	closeBody(o)
	if used := f.pool.Usage().Disk; used != 0 {
		t.Errorf("%d bytes are still on disk", used)
	}
}

// TestWhatIsBeyondIsStillDecoded has an encoded body be larger than what is taken.
func TestWhatIsBeyondIsStillDecoded(t *testing.T) {
	littleMemory(t)
	f := newFixture(t, nil)
	for _, size := range []int{100_000, 3 << 20} {
		want := noise(size)
		o, rest, err := f.TakeBeyond(bytes.NewReader(brotliOf(t, 18, want)), Intake{Encodings: []string{"br"}, Limit: 50_000, Wait: &spool.Waiting{}})
		if err != nil || rest == nil {
			t.Fatalf("%v, rest %v", err, rest)
		}
		got, err := io.ReadAll(io.MultiReader(o.Body.NewReader(), rest))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, %v", len(got), size, err)
		}
		_ = rest.Close()
		closeBody(o)
	}
}
