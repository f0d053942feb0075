package attachment

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzDecoded holds decoded against the standard library: what is strict reads the same there, whole and in pieces.
func FuzzDecoded(f *testing.F) {
	random := make([]byte, 40_000) // more than the buffers hold
	for i := range random {
		random[i] = byte(rand.Uint32()) //nolint:gosec // any bytes will do
	}
	long := base64.StdEncoding.EncodeToString(random)
	for _, s := range []string{
		"", "QUJD\r\n", "QUI=\r\n", "QQ==\r\n\r\n", "QQ==QQ==", "QQ=", "QQ", "Q", "QQ===", "QQ======", "=", "QU\r\nJD", "QU JD", "QUI=\n=", "QUJDQUI=",
		long, strings.ReplaceAll(long, "A", "A\r\n"), long + "\r\nQ",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := decoded(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if slow, err := decoded(iotest.OneByteReader(bytes.NewReader(text))); err != nil || slow != c {
			t.Errorf("byte by byte %+v (%v), otherwise %+v", slow, err, c)
		}
		want, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(text)))
		behind := strings.Trim(string(text[max(0, bytes.IndexByte(text, '=')):]), "=\r\n") != "" && bytes.IndexByte(text, '=') >= 0
		if strict := err == nil && !behind; strict != c.strict {
			t.Fatalf("strict: %v, by the library %v (%v)", c.strict, strict, err)
		}
		if c.strict && (c.content != sha256.Sum256(want) || c.encoded != sha256.Sum256(text) || c.size != int64(len(want))) {
			t.Error("read otherwise by the library")
		}
	})
}
