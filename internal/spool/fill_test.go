package spool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// fillFrom has a Writer that expects expected bytes take r, the way the gate does, and returns what came of it.
func fillFrom(t *testing.T, p *Pool, limit, expected int64, r io.Reader) (*Blob, error) {
	t.Helper()
	w := p.NewLimited(limit)
	w.Expect(expected)
	ended, err := w.Fill(r)
	if err != nil {
		w.Discard()
		return nil, err
	}
	if !ended {
		if _, err := io.Copy(w, r); err != nil {
			w.Discard()
			return nil, err
		}
	}
	return w.Seal()
}

func TestFilledIsWhatWasRead(t *testing.T) {
	want := random(100_000)
	for _, expected := range []int64{-1, 0, 1, 50_000, 99_999, 100_000, 100_001, 256 << 10, 1 << 20} {
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(want), "in bytes": iotest.OneByteReader(bytes.NewReader(want)), "with its end": iotest.DataErrReader(bytes.NewReader(want)),
		} {
			b, err := fillFrom(t, testPool(t, nil), 1<<20, expected, r)
			if err != nil {
				t.Fatalf("%s, %d expected: %v", name, expected, err)
			}
			got, err := io.ReadAll(b.NewReader())
			if err != nil || !bytes.Equal(got, want) || b.Size() != int64(len(want)) || b.SHA256() != sha256.Sum256(want) {
				t.Errorf("%s, %d expected: %d bytes that differ, or %v", name, expected, len(got), err)
			}
			_ = b.Close()
		}
	}
}

func TestFillIsLimited(t *testing.T) {
	p := testPool(t, nil)
	if _, err := fillFrom(t, p, 1000, 2000, bytes.NewReader(random(1001))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a byte too many: %v", err)
	}
	b, err := fillFrom(t, p, 1000, 2000, bytes.NewReader(random(1000)))
	if err != nil {
		t.Fatalf("as much as may be: %v", err)
	}
	_ = b.Close()
	broken := errors.New("broken off")
	if _, err := fillFrom(t, p, 1000, 500, io.MultiReader(bytes.NewReader(random(300)), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a reader that breaks off: %v", err)
	}
	if _, err := fillFrom(t, p, 1000, 500, silent{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
	if u := p.Usage(); u.Memory != 0 || u.Disk != 0 {
		t.Errorf("%+v is still taken", u)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }
