package gate

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

type nowhere struct{}

func (nowhere) Record(audit.Record) {}

// BenchmarkGate is what the gate itself costs, with an engine that costs nothing: objects that are new, and objects whose
// verdict is remembered.
func BenchmarkGate(b *testing.B) {
	for name, size := range map[string]int{"1KiB": 1 << 10, "60KiB": 60 << 10, "1MiB": 1 << 20} {
		for _, unique := range []bool{true, false} {
			kind := "/remembered"
			if unique {
				kind = "/new"
			}
			b.Run(name+kind, func(b *testing.B) {
				sc := spool.Default()
				sc.Dir = b.TempDir()
				pool, err := spool.NewPool(sc)
				if err != nil {
					b.Fatal(err)
				}
				g := New(Default(), Options{Pool: pool, Limits: unpack.Default(), Content: content.Default(), Sink: nowhere{}, Log: slog.New(slog.DiscardHandler)})
				engine := scantest.Always(scan.CleanVerdict())
				g.Use(scan.NewSet(scan.Member{Scanner: versioned{engine}, Required: true}), policy.Default(), false)
				defer g.Close()
				body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if unique {
						binary.LittleEndian.PutUint64(body, uint64(i))
					}
					o, err := g.Take(bytes.NewReader(body), Intake{Size: int64(size)})
					if err != nil {
						b.Fatal(err)
					}
					if d, _ := g.Judge(context.Background(), policy.Facts{}, o); d.Action != policy.Pass {
						b.Fatal(d)
					}
					o.Body.Close()
				}
			})
		}
	}
}

type versioned struct{ scan.Scanner }

func (versioned) Version() (scan.Version, bool) {
	return scan.Version{Engine: "none", Signatures: "1"}, true
}
