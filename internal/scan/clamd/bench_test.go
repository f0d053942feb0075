package clamd_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
)

// BenchmarkTransport compares the ways to ask a real clamd, with a database so small that the transport is what counts.
// "repeated" is answered from clamd's cache of clean objects.
func BenchmarkTransport(b *testing.B) {
	r := startReal(b)
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20, 16 << 20} {
		for _, unique := range []bool{false, true} {
			for _, tr := range []*clamd.Transport{
				{Address: r.unix, HandOver: true, Keep: true},
				{Address: r.unix, HandOver: true},
				{Address: r.unix, Keep: true},
				{Address: r.unix},
				{Address: r.tcp, Keep: true},
				{Address: r.tcp},
			} {
				b.Run(fmt.Sprintf("%dKiB/unique=%v/%s", size>>10, unique, transportName(tr)), func(b *testing.B) {
					transport(b, tr, size, unique)
				})
			}
		}
	}
}

func transportName(tr *clamd.Transport) string {
	name := tr.Address[:4] + "/INSTREAM"
	if tr.HandOver {
		name = "unix/FILDES"
	}
	if tr.Keep {
		return name + "/session"
	}
	return name + "/connection-each"
}

func transport(b *testing.B, tr *clamd.Transport, size int, unique bool) {
	defer tr.Close()
	p := scantest.Pool(b)
	content := scantest.Text(size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if unique {
			binary.BigEndian.PutUint64(content, uint64(i)|1<<63)
		}
		blob, err := p.Of(content)
		if err != nil {
			b.Fatal(err)
		}
		v, err := tr.Ask(b.Context(), &scan.Object{Body: blob})
		if err != nil || v.Outcome != scan.Clean {
			b.Fatalf("%+v, %v", v, err)
		}
		_ = blob.Close()
	}
}

// BenchmarkScanner is what a scan costs through the Scanner, with all that it sees to.
func BenchmarkScanner(b *testing.B) {
	r := startReal(b, "AlertExceedsMax yes")
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := newScanner(b, r.unix)
			defer func() { _ = s.Close() }()
			p := scantest.Pool(b)
			blob, err := p.Of(scantest.Text(size))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = blob.Close() }()
			o := &scan.Object{Body: blob}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if v := scan.Ask(b.Context(), s, o); v.Outcome != scan.Clean {
					b.Fatalf("%+v", v)
				}
			}
		})
	}
}
