package daemon

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"lazaret/internal/unpack"
)

// TestDecodersMemoryIsCounted has a decoder at work.
func TestDecodersMemoryIsCounted(t *testing.T) {
	var coded bytes.Buffer
	z := gzip.NewWriter(&coded)
	_, _ = z.Write(make([]byte, 1000))
	_ = z.Close()
	d, err := unpack.NewDecoder(&coded, []string{"gzip"}, unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(d, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if s := decoders(); s.Used == 0 || s.Most < s.Used || s.Total != int64(unpack.Default().TotalMemory) || s.Waiting != 0 {
		t.Errorf("at work: %+v", s)
	}
	_ = d.Close()
	if s := decoders(); s.Used != 0 || s.Most == 0 {
		t.Errorf("afterwards: %+v", s)
	}
}
