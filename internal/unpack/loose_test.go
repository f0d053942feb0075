package unpack

import (
	"archive/zip"
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"lazaret/internal/spool"
)

func TestLoose(t *testing.T) {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.Create("a.txt")
	if err == nil {
		_, err = w.Write(bytes.Repeat([]byte("some text, "), 100))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	whole := out.String()
	member, _, _ := strings.Cut(whole, sigCentral)
	cfg := spool.Default()
	cfg.Dir, cfg.MinFree = t.TempDir(), 0
	pool, err := spool.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("PK\x03\x04PK no picture ", 10_000)
	for name, c := range map[string]struct {
		body string
		want bool
	}{
		"nothing": {"", false}, "a text": {long, false}, "an archive": {whole, false}, "an archive behind something": {long + whole, false},
		"a member behind something": {"x" + member, true}, "far behind": {long + member, true}, "and before": {"x" + member + long, true},
		"over a border": {long[:64<<10-10] + member, true}, "the directory alone": {whole[len(member):], false},
	} {
		b, err := pool.Of([]byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Loose(b); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if got, err := hasMember(iotest.OneByteReader(strings.NewReader(c.body))); len(c.body) < 5000 && got != strings.Contains(c.body, member) || err != nil {
			t.Errorf("%s, byte by byte: %v, %v", name, got, err)
		}
		_ = b.Close()
	}
	if _, err := hasMember(iotest.ErrReader(errors.New("gone"))); err == nil {
		t.Error("an error was lost")
	}
}
