package content

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/envelope"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// packed returns text in a coding.
func packed(t testing.TB, coding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	case "snappy":
		w = snappy.NewBufferedWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// framed returns a message as it is sent.
func framed(flags byte, content string) string {
	return string(envelope.Head{Flags: flags, Length: uint32(len(content))}.Append(nil)) + content //nolint:gosec // it is short
}

// field returns a field of a message of Protocol Buffers.
func field(content string) string {
	return string(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(content)))) + content
}

func TestCompressedMessagesAreFound(t *testing.T) {
	for _, coding := range messageCodings {
		for _, typ := range []string{"application/grpc-web+proto", "application/grpc", "application/connect+json; charset=x", "application/grpc-web-text"} {
			body := framed(0, "first") + framed(1, packed(t, coding, secret))
			if strings.Contains(typ, "text") {
				body = base64.StdEncoding.EncodeToString([]byte(body))
			}
			parts, problems := find(t, body, typ, Default(), false)
			if !slices.Contains(parts, secret) || len(problems) > 0 {
				t.Errorf("%s in %s: %q, %v", coding, typ, parts, problems)
			}
		}
	}
}

func TestMessagesThatCannotBeRead(t *testing.T) {
	for name, body := range map[string]string{
		"unknown coding":  framed(1, secret),
		"broken gzip":     framed(1, packed(t, "gzip", secret)[:30]),
		"reserved flags":  framed(4, secret),
		"the end missing": framed(0, secret)[:40],
	} {
		if _, problems := find(t, body, "application/grpc-web", Default(), false); len(problems) != 1 || problems[0].Kind != Undecodable {
			t.Errorf("%s: %v", name, problems)
		}
	}
	for name, body := range map[string]string{"nothing": "", "one": framed(0, "x"), "trailers": framed(0, "x") + framed(0x80, "grpc-status: 0\r\n"), "empty": framed(1, "")} {
		if parts, problems := find(t, body, "application/grpc-web", Default(), false); len(parts)+len(problems) > 0 {
			t.Errorf("%s: %q, %v", name, parts, problems)
		}
	}
}

// TestArchivesInFieldsAreFound: they do not begin where the message does.
func TestArchivesInFieldsAreFound(t *testing.T) {
	var tarred bytes.Buffer
	w := tar.NewWriter(&tarred)
	_ = w.WriteHeader(&tar.Header{Name: "x", Size: int64(len(secret)), Mode: 0o600})
	_, _ = io.WriteString(w, secret)
	_ = w.Close()
	gz := packed(t, "gzip", secret)
	archives := map[string]string{
		"gzip": gz, "zstd": packed(t, "zstd", secret), "tar": tarred.String(), "large": packed(t, "gzip", string(noise(300<<10))),
	}
	for name, a := range archives {
		for _, m := range []string{field(a), field(field(a)), "\x08\x96\x01" + field("some text") + field(a) + field("behind")} {
			if parts, problems := find(t, m, "application/protobuf", Default(), false); !slices.Contains(parts, a) || len(problems) > 0 {
				t.Errorf("%s: %d parts, %v", name, len(parts), problems)
			}
			if parts, problems := find(t, framed(0, m), "application/grpc-web", Default(), false); !slices.Contains(parts, a) || len(problems) > 0 {
				t.Errorf("%s in a message: %d parts, %v", name, len(parts), problems)
			}
		}
	}
	for _, at := range []int{window - fieldHead - 12, window - fieldHead - 7, window - fieldHead - 6, window - fieldHead - 1, window - 8, window, 2 * window} {
		m := field(strings.Repeat("x", at)) + field(gz) + field(strings.Repeat("x", 2*window))
		if parts, problems := find(t, m, "application/protobuf", Default(), false); !slices.Contains(parts, gz) || len(problems) > 0 {
			t.Errorf("at %d: %d parts, %v", at, len(parts), problems)
		}
	}
	if parts, _ := find(t, field(secret+"\xff")+gz, "application/protobuf", Default(), false); len(parts) > 0 {
		t.Errorf("what is no field: %q", parts)
	}
}

// noise returns n bytes that cannot be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x) //nolint:gosec // the lowest bits are meant
	}
	return b
}

func BenchmarkFields(b *testing.B) {
	body := string(noise(1 << 20))
	for _, typ := range []string{"application/protobuf", "application/octet-stream"} { // the difference is what fields cost
		b.Run(typ, func(b *testing.B) {
			b.SetBytes(1 << 20)
			for range b.N {
				find(b, body, typ, Default(), false)
			}
		})
	}
}
