package unpack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"lazaret/internal/spool"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// eicar returns the standard test file. This package may not import scan, which has it too; it is put together here so
// that no file of the repository contains it.
func eicar() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)` + `7CC)7}$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`)
}

func testPool(t testing.TB, change func(*spool.Config)) *spool.Pool {
	t.Helper()
	cfg := spool.Default()
	cfg.Dir = t.TempDir()
	cfg.MinFree = 0
	if change != nil {
		change(&cfg)
	}
	p, err := spool.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func blobOf(t testing.TB, p *spool.Pool, b []byte) *spool.Blob {
	t.Helper()
	blob, err := p.Of(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blob.Close() })
	return blob
}

// random returns n bytes that do not compress, the same ones each time.
func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8(sha256.Sum256([]byte("unpack")))
	_, _ = r.Read(b)
	return b
}

// text returns n bytes that compress like a page does.
func text(n int) []byte {
	words := strings.Fields("the quick brown fox jumps over a lazy dog while <div class=\"row\"> </div> nothing else happens 0 1 2 3")
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(' ')
	}
	return b.Bytes()[:n]
}

// encode applies one content coding; "deflate-raw" is the deflate without the zlib wrapping.
func encode(t testing.TB, coding string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch coding {
	case "gzip", "x-gzip":
		w = gzip.NewWriter(&out)
	case "deflate":
		w = zlib.NewWriter(&out)
	case "deflate-raw":
		w, err = flate.NewWriter(&out, 6)
	case "br":
		w = brotli.NewWriterLevel(&out, 5)
	case "zstd":
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	case "snappy":
		w = snappy.NewBufferedWriter(&out)
	case "snappy-block":
		return snappy.Encode(nil, b)
	case "identity":
		return b
	default:
		t.Fatalf("no encoder for %q", coding)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// wantKind checks that err is an *Error of the kind.
func wantKind(t testing.TB, err error, want Kind) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Errorf("error %v, want an *Error of kind %v", err, want)
	}
}
