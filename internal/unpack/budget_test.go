package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/spool"
	"lazaret/internal/units"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// resize gives the process's decoders another budget for a test.
func resize(t *testing.T, total units.Size) {
	t.Helper()
	Memory().Resize(total)
	t.Cleanup(func() {
		Memory().Resize(Default().TotalMemory)
		if now, _ := Memory().Used(); now != 0 || Memory().Waiting() != 0 {
			t.Errorf("decoders still have %d bytes, %d wait", now, Memory().Waiting())
		}
	})
}

// brotliOf encodes b with a window of 2^lgwin bytes.
func brotliOf(t testing.TB, lgwin int, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: 2, LGWin: lgwin})
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// used returns what decoders have now.
func used() int64 {
	now, _ := Memory().Used()
	return now
}

// heap returns how much memory is reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestDecodersTakeWhatTheyAllocate compares what decoders take of the budget with what they allocate.
func TestDecodersTakeWhatTheyAllocate(t *testing.T) {
	var frames bytes.Buffer
	zstdOf := func(window int, b []byte) []byte {
		frames.Reset()
		w, err := zstd.NewWriter(&frames, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(b)
		_ = w.Close()
		return bytes.Clone(frames.Bytes())
	}
	noise := random(40 << 20)
	for _, c := range []struct {
		name, coding string
		enc          []byte
		window       int64
	}{
		{"br 2^10", "br", brotliOf(t, 10, noise), 1 << 10},
		{"br 2^16", "br", brotliOf(t, 16, noise), 1 << 16},
		{"br 2^18", "br", brotliOf(t, 18, noise), 1 << 18},
		{"br 2^22", "br", brotliOf(t, 22, noise), 1 << 22},
		{"br 2^24", "br", brotliOf(t, 24, noise), 1 << 24},
		{"zstd 1 KiB", "zstd", zstdOf(1<<10, noise), 1 << 10},
		{"zstd 1 MiB", "zstd", zstdOf(1<<20, noise), 1 << 20},
		{"zstd 8 MiB", "zstd", zstdOf(8<<20, noise), 8 << 20},
		{"zstd, a larger frame second", "zstd", append(zstdOf(1<<10, noise[:1<<10]), zstdOf(8<<20, noise)...), 8 << 20},
		{"gzip", "gzip", encode(t, "gzip", noise), 0},
		{"deflate", "deflate", encode(t, "deflate", noise), 0},
		{"snappy, frames", "snappy", encode(t, "snappy", noise), 0},
	} {
		before := heap()
		d, err := NewDecoder(bytes.NewReader(c.enc), []string{c.coding}, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if used() != 0 {
			t.Errorf("%s: taken before anything was read: %d", c.name, used())
		}
		if _, err := io.CopyN(io.Discard, d, 30<<20); err != nil {
			t.Fatal(err)
		}
		took, kept := used(), heap()-before
		t.Logf("%s: %d KiB taken, %d KiB allocated", c.name, took>>10, kept>>10)
		if took < c.window || took > c.window+brotliTables+littleMemory {
			t.Errorf("%s: %d bytes were taken", c.name, took)
		}
		if kept > took {
			t.Errorf("%s: %d bytes were allocated, %d were taken", c.name, kept, took)
		}
		if err := d.Close(); err != nil || used() != 0 {
			t.Errorf("%s: after Close decoders have %d", c.name, used())
		}
	}
}

func TestEveryDecoderGivesItsMemoryBack(t *testing.T) {
	resize(t, 128*units.MiB)
	body := text(200_000)
	for _, coding := range codings {
		enc := encode(t, coding, body)
		for name, b := range map[string][]byte{"whole": enc, "cut": enc[:len(enc)/2], "garbage": random(5000), "empty": nil} {
			d, err := NewDecoder(bytes.NewReader(b), []string{wire(coding)}, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, d)
			if used() != 0 {
				t.Errorf("%s, %s: %d bytes at the end, before Close", coding, name, used())
			}
			_ = d.Close()
			_ = d.Close()
			if used() != 0 {
				t.Fatalf("%s, %s: %d bytes after Close", coding, name, used())
			}
		}
	}
}

// TestStacksOfWindowsAreRefused has content in more codings than one object has memory for.
func TestStacksOfWindowsAreRefused(t *testing.T) {
	resize(t, 256*units.MiB)
	for _, c := range []struct {
		lgwin, times int
		refused      bool
	}{{24, 5, true}, {24, 4, true}, {24, 3, false}, {16, 5, false}} {
		enc := eicar()
		stack := make([]string, c.times)
		for i := range stack {
			enc, stack[i] = brotliOf(t, c.lgwin, enc), "br"
		}
		got, err := decode(enc, stack...)
		if !c.refused {
			if err != nil || !bytes.Equal(got, eicar()) {
				t.Errorf("%+v: %q, %v", c, got, err)
			}
			continue
		}
		wantKind(t, err, TooLarge)
		if !strings.Contains(fmt.Sprint(err), "memory") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, most := Memory().Used(); most > objectMemory {
		t.Errorf("up to %d bytes were taken", most)
	}
}

// stalling is content that comes to a standstill.
type stalling struct {
	io.Reader
	goOn <-chan struct{}
}

func (s *stalling) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if n == 0 {
		<-s.goOn
	}
	return n, err
}

// TestDecodersThatStallStayWithinTheBudget has far more decoders want memory than there is for them, and stall.
func TestDecodersThatStallStayWithinTheBudget(t *testing.T) {
	const total = 128 << 20
	resize(t, total)
	enc := brotliOf(t, 24, random(20<<20))
	before := heap()
	goOn := make(chan struct{})
	var begun, ended sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[bool]int{}
	for range 60 {
		begun.Add(1)
		ended.Go(func() {
			d, err := NewDecoderIn(&stalling{bytes.NewReader(enc[:len(enc)-1000]), goOn}, []string{"br"}, Limits{}, Room{Share: Lasting})
			if err != nil {
				t.Error(err)
			}
			defer d.Close()
			n, err := io.CopyN(io.Discard, d, 18<<20)
			mu.Lock()
			outcomes[err == nil]++
			mu.Unlock()
			if err != nil {
				wantKind(t, err, SpoolFull)
				if n > 0 {
					t.Errorf("refused after %d bytes", n)
				}
			}
			begun.Done()
			_, _ = d.Read(make([]byte, 4<<20))
			<-goOn
		})
	}
	begun.Wait()
	if n := used(); n > total/2 || n == 0 || outcomes[true] == 0 || outcomes[false] == 0 {
		t.Errorf("%d of %d bytes are in use by %d decoders, %d were refused", n, total, outcomes[true], outcomes[false])
	}
	if grown := heap() - before; grown > total {
		t.Errorf("the heap has grown by %d", grown)
	}
	for _, coding := range codings { // what is at hand does not wait for them
		d, err := NewDecoderIn(bytes.NewReader(encode(t, coding, text(50_000))), []string{wire(coding)}, Limits{}, Room{Share: Brief})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, d); n != 50_000 || err != nil {
			t.Errorf("%s: %d bytes, %v", coding, n, err)
		}
	}
	close(goOn)
	ended.Wait()
}

// TestContentWithoutAnEndHasAShareOfItsOwn has decoders of such hold all that they may.
func TestContentWithoutAnEndHasAShareOfItsOwn(t *testing.T) {
	resize(t, 96*units.MiB)
	enc := brotliOf(t, 22, random(2<<20)) // 7 MiB
	begin := func(s Share) (io.Closer, error) {
		d, err := NewDecoderIn(bytes.NewReader(enc), []string{"br"}, Limits{}, Room{Share: s})
		if err == nil {
			_, err = d.Read(make([]byte, 1))
		}
		return d, err
	}
	var open []io.Closer
	for _, s := range []Share{Lasting, Endless, Endless, Endless, Lasting, Lasting} { // 21 of 24, and 21 of the 24 others
		d, err := begin(s)
		if err != nil {
			t.Fatalf("decoder %d: %v", len(open), err)
		}
		open = append(open, d)
		if s == Lasting {
			continue
		}
		if err := Ready([]string{"gzip", "identity"}, Endless); err != nil {
			t.Errorf("little: %v", err)
		}
	}
	for _, s := range []Share{Endless, Lasting} {
		_, err := begin(s)
		wantKind(t, err, SpoolFull)
	}
	wantKind(t, Ready([]string{"br"}, Endless), SpoolFull)
	wantKind(t, Ready([]string{"rot13"}, Endless), Undecodable)
	_ = open[0].Close() // there is room again, for others
	_, err := begin(Endless)
	wantKind(t, err, SpoolFull)
	d, err := begin(Lasting)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(open, d) {
		_ = c.Close()
	}
	before := used()
	if err := Ready([]string{"br"}, Endless); err != nil || used() != before || Memory().endless != 0 {
		t.Errorf("%v; %d bytes, %d by content without an end", err, used(), Memory().endless)
	}
}

func TestDecodersWaitForMemory(t *testing.T) {
	resize(t, 96*units.MiB)
	held := &claim{b: Memory()}
	if err := held.take(90<<20, Inner, Patience{}, "test"); err != nil {
		t.Fatal(err)
	}
	noted := make(chan bool, 2)
	wait := Patience{For: time.Hour, Waiting: spool.Waiting{Note: func() func() { noted <- true; return func() { noted <- false } }}}
	done := make(chan error, 1)
	go func() {
		d, err := NewDecoderIn(bytes.NewReader(encode(t, "br", text(1000))), []string{"br"}, Limits{}, Room{Share: Brief, Patience: wait})
		if err == nil {
			_, err = io.Copy(io.Discard, d)
		}
		done <- err
	}()
	if !<-noted {
		t.Error("the end of the waiting was noted first")
	}
	held.give(90 << 20)
	if err := <-done; err != nil || <-noted {
		t.Errorf("%v, or its end was not noted", err)
	}
}

// TestWaitingForMemoryIsNotForEver has a decoder wait whose client goes, and one whose time is up.
func TestWaitingForMemoryIsNotForEver(t *testing.T) {
	resize(t, 96*units.MiB)
	held := &claim{b: Memory()}
	if err := held.take(96<<20, Inner, Patience{}, "test"); err != nil {
		t.Fatal(err)
	}
	defer held.give(96 << 20)
	gone := make(chan struct{})
	close(gone)
	for name, p := range map[string]Patience{
		"at once": {}, "its time": {For: time.Millisecond}, "its client": {For: time.Hour, Waiting: spool.Waiting{Done: gone}},
	} {
		d, err := NewDecoderIn(bytes.NewReader(encode(t, "gzip", text(1000))), []string{"gzip"}, Limits{}, Room{Patience: p})
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, d)
		t.Log(name, err)
		wantKind(t, err, SpoolFull)
	}
}

// TestThoseThatHoldRoomWaitForTheirShareAlone has all memory of the smaller shares be held, perhaps by those who wait for room on disk.
func TestThoseThatHoldRoomWaitForTheirShareAlone(t *testing.T) {
	resize(t, 96*units.MiB)
	others := &claim{b: Memory()}
	if err := others.take(72<<20, Brief, Patience{}, "test"); err != nil {
		t.Fatal(err)
	}
	defer others.give(72 << 20)
	body := text(1000)
	once := brotliOf(t, 24, body)
	twice := brotliOf(t, 24, once)
	for name, c := range map[string]struct {
		enc     []byte
		codings []string
	}{"in the share": {once, []string{"br"}}, "more": {twice, []string{"br", "br"}}} {
		room := Room{Share: Inner, Patience: Patience{For: time.Hour}}
		d, err := NewDecoderIn(bytes.NewReader(c.enc), c.codings, Limits{}, room)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(d)
		if len(c.codings) > 1 {
			wantKind(t, err, SpoolFull)
		} else if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestThoseThatHoldMemoryDoNotWaitForEachOther has walks that hold some want more, which none of them can have before another ends.
func TestThoseThatHoldMemoryDoNotWaitForEachOther(t *testing.T) {
	b := NewBudget(100)
	patient := Patience{For: time.Hour}
	walks := make([]*claim, 3)
	results := make(chan error, len(walks))
	for i := range walks {
		walks[i] = &claim{b: b}
		if err := walks[i].take(30, Inner, patient, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range walks {
		go func() {
			err := c.take(40, Inner, patient, "")
			if err == nil {
				c.give(40)
			}
			c.give(30)
			results <- err
		}()
	}
	failed := 0
	for range walks {
		if err := <-results; err != nil {
			failed++
			wantKind(t, err, SpoolFull)
		}
	}
	if failed != 1 {
		t.Errorf("%d were refused, where one was enough", failed)
	}
	if now, _ := b.Used(); now != 0 || len(b.claims) != 0 || b.Waiting() != 0 {
		t.Errorf("%d in use, %d hold some, %d wait", now, len(b.claims), b.Waiting())
	}
}

// TestArchivesShareTheMemory has two archives want more together than there is: one waits for the other.
func TestArchivesShareTheMemory(t *testing.T) {
	resize(t, 96*units.MiB)
	dir := tree(t)
	enc := run(t, dir, "xz -c --lzma2=dict=64MiB text.txt >$OUT")
	pool := testPool(t, nil)
	ctx := Together(context.Background())
	held := claimOf(ctx)
	if err := held.take(64<<20, Inner, Patience{}, "test"); err != nil {
		t.Fatal(err)
	}
	done := make(chan []Problem)
	visited := false
	go func() {
		done <- Walk(context.Background(), pool, Source{Blob: blobOf(t, pool, enc), Name: "a"}, Limits{}, func(Part) error {
			visited = true
			return nil
		})
	}()
	for Memory().Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	held.give(64 << 20)
	if p := <-done; len(p) > 0 || !visited {
		t.Errorf("problems %v, visited %v", p, visited)
	}
}

// TestLargeDecodersAreNotKept looks into what is kept for the next body.
func TestLargeDecodersAreNotKept(t *testing.T) {
	for _, lgwin := range []int{16, 24} {
		c := new(brotliCoder)
		c.reset(bytes.NewReader(brotliOf(t, lgwin, random(20<<20))), nil)
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
		if n := brotliHolds(c.zr); n < 1<<lgwin || n > 1<<lgwin+littleMemory {
			t.Errorf("a decoder with a window of 2^%d is said to hold %d bytes", lgwin, n)
		}
		if c.release(); (c.zr == nil) != (lgwin == 24) {
			t.Errorf("window 2^%d: kept %v", lgwin, c.zr != nil)
		}
	}
	z := zstdCoders.New().(*zstdCoder)
	enc := encode(t, "zstd", random(10<<20))
	z.reset(bytes.NewReader(enc), nil)
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Fatal(err)
	}
	if z.release(); z.zr != nil || z.cur != nil {
		t.Error("a decoder with a large window is kept")
	}
}

func TestBrotliWindowsAreRead(t *testing.T) {
	for lgwin := 10; lgwin <= 24; lgwin++ {
		if got := brotliWindow(brotliOf(t, lgwin, text(100))[0]); got != 1<<lgwin {
			t.Errorf("2^%d is read as %d", lgwin, got)
		}
	}
	var e *Error
	if _, err := decode([]byte{0x11, 0x3f, 0}, "br"); !errors.As(err, &e) { // a large window
		t.Errorf("a large window: %v", err)
	}
}
