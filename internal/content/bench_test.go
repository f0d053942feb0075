package content

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"lazaret/internal/spool"
)

// ordinary is a page of about size bytes, as sites have them.
func ordinary(size int) string {
	const line = `<p class="text">An ordinary line of an ordinary page, with a <a href="https://www.example.org/path?id=42&amp;page=7">link</a>, ` +
		`50% of it mark-up: it has 1 + 1 = 2, some words, and style="width:100%".</p>` + "\n"
	return "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"></head><body>\n" + strings.Repeat(line, size/len(line)) + "</body></html>\n"
}

// BenchmarkFind is what looking for other readings costs where there are none.
func BenchmarkFind(b *testing.B) {
	noise := func(size int) string {
		out := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{1}).Read(out) // it never fails
		return "\x89PNG\r\n\x1a\n" + string(out)
	}
	for _, c := range []struct{ name, typ, body string }{
		{"page of 1 KiB", "text/html; charset=utf-8", ordinary(1 << 10)},
		{"page of 60 KiB", "text/html; charset=utf-8", ordinary(60 << 10)},
		{"page of 10 MiB", "text/html; charset=utf-8", ordinary(10 << 20)},
		{"picture of 60 KiB", "image/png", noise(60 << 10)},
		{"download of 10 MiB", "application/octet-stream", noise(10 << 20)},
	} {
		b.Run(c.name, func(b *testing.B) {
			sc := spool.Default()
			sc.Dir = b.TempDir()
			pool, err := spool.NewPool(sc)
			if err != nil {
				b.Fatal(err)
			}
			blob, err := pool.Of([]byte(c.body))
			if err != nil {
				b.Fatal(err)
			}
			defer blob.Close()
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				problems := Find(context.Background(), pool, Source{Blob: blob, Type: c.typ}, Default(), func(p Part) error {
					b.Fatalf("a reading of ordinary content: %s", p.Path)
					return nil
				})
				if len(problems) > 0 {
					b.Fatal(problems)
				}
			}
		})
	}
}
