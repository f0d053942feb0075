package signatures

import (
	"bytes"
	"flag"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var train = flag.String("train", "", "comma-separated folders of programs, documents and texts from which bigrams.bin is made anew")

// TestTrain makes bigrams.bin, when it is asked to:
//
//	go test -run TestTrain -train /usr/bin,/usr/lib,/usr/share ./internal/scan/signatures
//
// Each file counts the same however large it is, up to its first 4 MiB.
func TestTrain(t *testing.T) {
	if *train == "" {
		t.Skip("no -train")
	}
	joint := make([]float64, 1<<16)
	files := 0
	for _, dir := range strings.Split(*train, ",") {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || files > 40_000 {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			b := make([]byte, 4<<20)
			n, _ := f.ReadAt(b, 0)
			if b = b[:n]; n < 1024 {
				return nil
			}
			files++
			weight := 1 / float64(n)
			if bytes.IndexByte(b[:1024], 0) >= 0 {
				weight *= 4 // programs are fewer than texts
			}
			for i := 1; i < n; i++ {
				joint[int(b[i-1])<<8|int(b[i])] += weight
			}
			return nil
		})
	}
	if files < 100 {
		t.Fatalf("only %d files: not enough to learn from", files)
	}
	out := make([]byte, 257<<8)
	first := make([]float64, 256)
	total := 0.0
	for a := range 256 {
		row := joint[a<<8 : a<<8+256]
		sum := 0.0
		for _, v := range row {
			sum += v
		}
		first[a], total = sum, total+sum
		// A fifth is kept for what was not seen: compressed and encrypted content has every pair alike.
		for b, v := range row {
			out[a<<8|b] = cost(0.8*v/max(sum, 1e-9) + 0.2/256)
		}
	}
	for a := range 256 {
		out[256<<8|a] = cost(0.8*first[a]/total + 0.2/256)
	}
	if err := os.WriteFile("bigrams.bin", out, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files", files)
}

func cost(p float64) byte {
	return byte(min(255, math.Round(-costScale*math.Log2(p))))
}
