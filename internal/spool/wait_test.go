package spool

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/units"
)

// waitingWriter returns a Writer that waits for room.
func waitingWriter(p *Pool, claim int64) *Writer {
	w := p.New()
	w.Wait(claim, Waiting{})
	return w
}

// TestManyObjectsThroughALittleRoom has very many objects of known and of unknown size want far more room than there is, at the
// same time, in small portions: each gets it in the end.
func TestManyObjectsThroughALittleRoom(t *testing.T) {
	p := testPool(t, func(c *Config) {
		c.Memory, c.TotalMemory = 1*units.KiB, 64*units.KiB
		c.MaxObject, c.TotalDisk = 8*units.MiB, 24*units.MiB
	})
	// It is full until somebody waits: on a fast machine nobody might have to.
	var full []*Blob
	for range 3 {
		b, err := p.Of(random(8 << 20))
		if err != nil {
			t.Fatal(err)
		}
		full = append(full, b)
	}
	var most, waited atomic.Int64
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				most.Store(max(most.Load(), p.Usage().Disk))
			}
			if waited.Load() > 0 {
				for _, b := range full {
					_ = b.Close() // room for the others
				}
				full = nil
			}
		}
	})
	var wg sync.WaitGroup
	piece := random(256 << 10)
	for i := range 120 {
		wg.Go(func() {
			size := 1 + rand.IntN(8<<20)
			claim := int64(size)
			if i%3 == 0 {
				claim = 0 // it does not say
			}
			w := p.New()
			w.Wait(claim, Waiting{Note: func() func() { waited.Add(1); return func() {} }})
			defer w.Discard()
			for n := 0; n < size; n += len(piece) {
				if _, err := w.Write(piece[:min(len(piece), size-n)]); err != nil {
					t.Errorf("object %d of %d bytes, %d of them written: %v", i, size, n, err)
					return
				}
			}
			if i%10 == 0 {
				return // its sender has broken off
			}
			b, err := w.Seal()
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			if n, err := io.Copy(io.Discard, b.NewReader()); n != int64(size) || err != nil {
				t.Errorf("%d of %d bytes, %v", n, size, err)
			}
		})
	}
	wg.Wait()
	close(stop)
	watch.Wait()
	if waited.Load() == 0 {
		t.Error("nobody had to wait: nothing was tested")
	}
	if m := most.Load(); m > int64(p.cfg.TotalDisk) || m == 0 {
		t.Errorf("up to %d bytes of %d were on disk", m, p.cfg.TotalDisk)
	}
	if u := p.Usage(); u != (Usage{}) || p.Waiting() != 0 || len(p.room.growing) != 0 {
		t.Errorf("afterwards: %+v, %d wait, %d grow", u, p.Waiting(), len(p.room.growing))
	}
}

func TestTwoObjectsDoNotWaitForEachOther(t *testing.T) {
	p := testPool(t, func(c *Config) { c.MaxObject, c.TotalDisk = 12*units.MiB, 16*units.MiB })
	a, b := waitingWriter(p, 0), waitingWriter(p, 0)
	defer a.Discard()
	defer b.Discard()
	if _, err := a.Write(random(4 << 20)); err != nil {
		t.Fatal(err)
	}
	// A portion of 4 MiB for b would be there, but then neither could be finished: b waits from the beginning on.
	done := make(chan error, 1)
	go func() { _, err := b.Write(random(8 << 20)); done <- err }()
	for p.Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := a.Write(random(8 << 20)); err != nil {
		t.Fatal(err)
	}
	blob, err := a.Seal()
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWaitingEnds(t *testing.T) {
	gone := make(chan struct{})
	close(gone)
	for name, x := range map[string]struct {
		wait units.Duration
		done chan struct{}
	}{"with its time": {units.Duration(time.Millisecond), nil}, "with its client": {units.Duration(time.Hour), gone}} {
		p := testPool(t, func(c *Config) { c.MaxObject, c.TotalDisk, c.Wait = 8*units.MiB, 8*units.MiB, x.wait })
		first, err := p.Of(random(6 << 20))
		if err != nil {
			t.Fatal(err)
		}
		w := p.New()
		w.Wait(0, Waiting{Done: x.done})
		if _, err := w.Write(random(3 << 20)); !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v", name, err)
		}
		w.Discard()
		first.Close()
	}
}

func TestWhatIsKeptWithoutNeedIsGivenUp(t *testing.T) {
	p := testPool(t, func(c *Config) { c.MaxObject, c.TotalDisk = 8*units.MiB, 8*units.MiB })
	var kept []*Blob
	for range 3 {
		b, err := p.Of(random(2 << 20))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, b)
	}
	p.OnShortage(func() bool {
		if len(kept) == 0 {
			return false
		}
		kept[0].Close()
		kept = kept[1:]
		return true
	})
	for _, waits := range []bool{true, false} {
		w := p.New()
		if waits {
			w.Wait(0, Waiting{})
		}
		if _, err := w.Write(random(4 << 20)); err != nil {
			t.Errorf("waits %v: %v", waits, err)
		}
		w.Discard()
	}
	if len(kept) == 0 {
		t.Error("more was given up than had to be")
	}
	for _, b := range kept {
		b.Close()
	}
}
