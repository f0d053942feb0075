package spool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"lazaret/internal/units"
)

func testPool(t *testing.T, change func(*Config)) *Pool {
	t.Helper()
	cfg := Default()
	cfg.Dir = t.TempDir()
	cfg.MinFree = 0
	if change != nil {
		change(&cfg)
	}
	p, err := NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestBlobIsWhatWasWritten(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 256 << 10, 256<<10 + 1, 5 << 20} {
		p := testPool(t, nil)
		want := random(size)
		w := p.New()
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 10_000)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatalf("%d: %v", size, err)
			}
			rest = rest[n:]
		}
		b, err := w.Seal()
		if err != nil {
			t.Fatal(err)
		}
		if b.Size() != int64(size) || b.SHA256() != sha256.Sum256(want) {
			t.Errorf("%d: size %d or digest differ", size, b.Size())
		}
		if _, inMemory := b.Bytes(); inMemory != (size <= 256<<10) {
			t.Errorf("%d: in memory: %v", size, inMemory)
		}
		for range 2 { // reopenable
			got, err := io.ReadAll(b.NewReader())
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: reader differs: %v", size, err)
			}
		}
		for range 2 { // each file has a position of its own
			f, err := b.File()
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: file differs: %v", size, err)
			}
			f.Close()
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if u := p.Usage(); u != (Usage{}) {
			t.Errorf("%d: after close the pool still holds %+v", size, u)
		}
	}
}

func TestReadFromTakesEverything(t *testing.T) {
	broken := errors.New("broken off")
	for _, c := range []struct {
		size  int
		limit int64
		end   error // of the reader
		want  error
	}{
		{0, 1 << 20, nil, nil},
		{300_001, 1 << 20, nil, nil},
		{300_001, 300_000, nil, ErrTooLarge},
		{300_001, 1 << 20, broken, broken},
	} {
		w := testPool(t, nil).NewLimited(c.limit)
		content := random(c.size)
		r := iotest.OneByteReader(bytes.NewReader(content))
		if c.end != nil {
			r = io.MultiReader(r, iotest.ErrReader(c.end))
		}
		n, err := io.Copy(w, r)
		if !errors.Is(err, c.want) || n != w.Size() {
			t.Errorf("%+v: %d of %d bytes, %v", c, n, w.Size(), err)
		}
		if c.want == nil {
			b, err := w.Seal()
			if err != nil || b.SHA256() != sha256.Sum256(content) {
				t.Errorf("%+v: something else was written (%v)", c, err)
			}
		}
		w.Discard()
	}
}

func TestFilesHaveNoName(t *testing.T) {
	p := testPool(t, nil)
	b, err := p.Of(random(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if p.Usage().Disk == 0 {
		t.Fatal("the object is not on disk: nothing is tested")
	}
	names, err := os.ReadDir(p.cfg.Dir)
	if err != nil || len(names) != 0 {
		t.Fatalf("the spool directory lists %v, %v", names, err)
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		held   int // taken before
		size   int
		want   error
	}{
		{"object in memory", func(c *Config) { c.MaxObject = 100 }, 0, 101, ErrTooLarge},
		{"object on disk", func(c *Config) { c.MaxObject = units.MiB }, 0, 1<<20 + 1, ErrTooLarge},
		{"exactly the limit", func(c *Config) { c.MaxObject = units.MiB }, 0, 1 << 20, nil},
		{"disk in all", func(c *Config) { c.MaxObject, c.TotalDisk = 2*units.MiB, 2*units.MiB }, 1 << 20, 1<<20 + 1, ErrFull},
		{"disk just enough", func(c *Config) { c.MaxObject, c.TotalDisk = 2*units.MiB, 2*units.MiB }, 1 << 20, 1 << 20, nil},
		{"memory in all goes to disk", func(c *Config) { c.TotalMemory = 256 * units.KiB }, 200 << 10, 200 << 10, nil},
		{"no free disk", func(c *Config) { c.MinFree = 1 << 60 }, 0, 1 << 20, ErrFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := testPool(t, c.change)
			if c.held > 0 {
				held, err := p.Of(random(c.held))
				if err != nil {
					t.Fatal(err)
				}
				defer held.Close()
			}
			before := p.Usage()
			b, err := p.Of(random(c.size))
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				b.Close()
			}
			if after := p.Usage(); after != before {
				t.Errorf("the pool held %+v before and %+v after", before, after)
			}
		})
	}
}

func TestFailedWriteStays(t *testing.T) {
	p := testPool(t, func(c *Config) { c.MaxObject = 10 })
	w := p.New()
	if _, err := w.Write(random(11)); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a later write that would fit said %v", err)
	}
	if _, err := w.Seal(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Seal made a whole object of a part: %v", err)
	}
}

func TestClosedBlobGivesNothing(t *testing.T) {
	p := testPool(t, nil)
	b, err := p.Of(random(100))
	if err != nil {
		t.Fatal(err)
	}
	b.Retain()
	b.Close()
	if _, err := b.File(); err != nil {
		t.Errorf("a retained blob is gone: %v", err)
	}
	b.Close()
	b.Close() // once too often
	if _, err := b.File(); !errors.Is(err, ErrClosed) {
		t.Errorf("File after the end: %v", err)
	}
	if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("ReadAt after the end: %v", err)
	}
	if u := p.Usage(); u != (Usage{}) {
		t.Errorf("usage %+v", u)
	}
}

func TestParallelWritersAreAccounted(t *testing.T) {
	p := testPool(t, func(c *Config) { c.TotalMemory = units.MiB })
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			b, err := p.Of(random(i * 20_000))
			if err != nil {
				t.Error(err)
				return
			}
			b.Close()
			w := p.New()
			_, _ = w.Write(random(i * 20_000))
			w.Discard()
			w.Discard()
		})
	}
	wg.Wait()
	if u := p.Usage(); u != (Usage{}) {
		t.Errorf("usage %+v", u)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{Memory: 10, TotalMemory: 5, MaxObject: 0, TotalDisk: -1}
	err := bad.Validate()
	for _, key := range []string{"max_object", "total_disk", "total_memory"} {
		if err == nil || !strings.Contains(err.Error(), key+": ") {
			t.Errorf("no error about %s in %v", key, err)
		}
	}
	bad = Default()
	bad.Dir = "/proc/nowhere"
	if _, err := NewPool(bad); err == nil {
		t.Error("a directory that cannot be made was accepted")
	}
}
