package clamd_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
)

// paced gives content at a rate, in portions as they come from a connection.
type paced struct {
	content []byte
	rate    int // bytes a second; 0: as fast as can be
	began   time.Time
	given   int
}

func (p *paced) Read(b []byte) (int, error) {
	if p.given == len(p.content) {
		return 0, io.EOF
	}
	if p.rate > 0 {
		if p.began.IsZero() {
			p.began = time.Now()
		}
		time.Sleep(time.Until(p.began.Add(time.Duration(p.given) * time.Second / time.Duration(p.rate))))
	}
	n := copy(b[:min(len(b), 32<<10)], p.content[p.given:])
	p.given += n
	return n, nil
}

// BenchmarkOverlap compares handing an object over when it has come (FILDES) with sending it while it comes (INSTREAM). Besides
// the time in all it reports what is waited for when the last byte has come. See docs/decisions/0012.
func BenchmarkOverlap(b *testing.B) {
	r := startReal(b, "StreamMaxLength 200M", "MaxFileSize 200M", "MaxScanSize 200M")
	for _, mib := range []int{1, 10, 100} {
		content := scantest.Text(mib << 20)
		for _, rate := range []int{0, 50 << 20} {
			for _, while := range []bool{false, true} {
				name := "FILDES-after"
				if while {
					name = "INSTREAM-while"
				}
				b.Run(fmt.Sprintf("%dMiB/rate=%dMiB/%s", mib, rate>>20, name), func(b *testing.B) {
					tr := &clamd.Transport{Address: r.unix, HandOver: true}
					p := scantest.Pool(b)
					var after time.Duration
					b.SetBytes(int64(len(content)))
					for i := 0; b.Loop(); i++ {
						binary.BigEndian.PutUint64(content, uint64(time.Now().UnixNano()))
						after += overlap(b, tr, &paced{content: content, rate: rate}, p.New(), while)
					}
					b.ReportMetric(float64(after.Microseconds())/1000/float64(b.N), "ms-after-the-end/op")
				})
			}
		}
	}
}

// overlap has one object scanned, and returns how long the verdict took from the object's end on.
func overlap(b *testing.B, tr *clamd.Transport, src io.Reader, w *spool.Writer, while bool) time.Duration {
	b.Helper()
	defer w.Discard()
	out, streamed := io.Writer(w), (*clamd.Streamed)(nil)
	if while {
		var err error
		if streamed, err = tr.Begin(b.Context()); err != nil {
			b.Fatal(err)
		}
		out = io.MultiWriter(w, streamed)
	}
	if _, err := io.Copy(out, src); err != nil {
		b.Fatal(err)
	}
	ended := time.Now()
	blob, err := w.Seal()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = blob.Close() }()
	var v scan.Verdict
	if while {
		v, err = streamed.End()
	} else {
		v, err = tr.Ask(b.Context(), &scan.Object{Body: blob})
	}
	if err != nil || v.Outcome != scan.Clean {
		b.Fatalf("%+v, %v", v, err)
	}
	return time.Since(ended)
}
