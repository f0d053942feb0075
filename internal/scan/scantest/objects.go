package scantest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/units"
)

// InMemory is the size up to which Pool keeps an object in memory; larger ones are on disk.
const InMemory = 64 * units.KiB

// Pool returns a spool for the objects of one test, in the test's own directory.
func Pool(tb testing.TB) *spool.Pool {
	tb.Helper()
	p, err := spool.NewPool(spool.Config{
		Dir: tb.TempDir(), Memory: InMemory, MaxObject: 8 * units.GiB, TotalMemory: 64 * units.MiB, TotalDisk: 16 * units.GiB,
	})
	if err != nil {
		tb.Fatalf("spool: %v", err)
	}
	return p
}

// Object returns an object of the given content, whose body is closed when the test ends.
func Object(tb testing.TB, p *spool.Pool, content []byte) *scan.Object {
	tb.Helper()
	b, err := p.Of(content)
	if err != nil {
		tb.Fatalf("spooling %d bytes: %v", len(content), err)
	}
	tb.Cleanup(func() { _ = b.Close() })
	return &scan.Object{Body: b, Name: "object"}
}

// Text returns n bytes of harmless text.
func Text(n int) []byte {
	line := []byte("The quick brown fox jumps over the lazy dog, and nobody is harmed by it.\n")
	return bytes.Repeat(line, n/len(line)+1)[:n]
}

// CheckUnchanged fails the test unless the body of o still has the content that it was sealed with, read anew through
// every way in which a Blob is read.
func CheckUnchanged(tb testing.TB, o *scan.Object) {
	tb.Helper()
	want := o.Body.SHA256()
	check := func(how string, r io.Reader) {
		h := sha256.New()
		n, err := io.Copy(h, r)
		if err != nil {
			tb.Errorf("after the scan, %s: %v", how, err)
			return
		}
		if n != o.Body.Size() || !bytes.Equal(h.Sum(nil), want[:]) {
			tb.Errorf("after the scan, %s gives other bytes than were scanned (%d of %d)", how, n, o.Body.Size())
		}
	}
	check("a new reader", o.Body.NewReader())
	f, err := o.Body.File()
	if err != nil {
		tb.Errorf("after the scan, File: %v", err)
		return
	}
	defer func() { _ = f.Close() }()
	check("a new file", f)
}
