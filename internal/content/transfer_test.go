package content

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
)

func compress(t testing.TB, s string, open func(io.Writer) io.WriteCloser) string {
	t.Helper()
	var b bytes.Buffer
	w := open(&b)
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func br(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) }
func zl(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
func df(w io.Writer) io.WriteCloser {
	z, _ := flate.NewWriter(w, 9) // the level is a good one
	return z
}

func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "=%02X", s[i])
		if i%20 == 19 {
			b.WriteString("=\r\n")
		}
	}
	return b.String()
}

func TestUndeclaredCodingsAreUndone(t *testing.T) {
	text := secret + "It is followed by some words that are not the same, 0123456789, The Quick Brown Fox, and so on.\n"
	b64 := base64.StdEncoding.EncodeToString([]byte(text))
	for name, body := range map[string]string{
		"br": compress(t, text, br), "zlib": compress(t, text, zl), "bare deflate": compress(t, text, df),
		"br, cut off": strings.TrimSuffix(compress(t, text, br), compress(t, text, br)[len(compress(t, text, br))-20:]), "base64": b64, "base64 in lines": b64[:76] + "\r\n" + b64[76:] + "\r\n",
		"base64 of the URL's alphabet": base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe\xfb" + text)),
		"base64 in two padded pieces":  base64.StdEncoding.EncodeToString([]byte("x")) + base64.StdEncoding.EncodeToString([]byte(text)),
		"quoted-printable":             escaped(text), "an answer": "HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + text,
		"base64 on disk": base64.StdEncoding.EncodeToString([]byte(strings.Repeat(secret, 20_000))),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "an answer" && !strings.Contains(body, secret) {
				t.Fatal("nothing to look at")
			}
			parts, problems := find(t, body, "application/octet-stream", Default(), false)
			want := secret
			if strings.HasSuffix(name, "cut off") {
				want = secret[:30]
			}
			if !slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, want) }) || len(problems) > 0 {
				t.Errorf("parts %.300q, problems %v", parts, problems)
			}
		})
	}
}

// What is no base64, br or deflate is left alone: a guess that is wrong costs a scan.
func TestOrdinaryContentHasNoOtherReadings(t *testing.T) {
	for name, body := range map[string]string{
		"page": ordinary(4 << 10), "short": "ok\n", "numbers": "1, 2, 3\n", "picture": "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + strings.Repeat("\x07\xf1\x83\x55", 100),
		"script": "var a=10,b=20,c=30;if(a==b){c=0xFF}", "query": "a=1&b=22&c=33&d=44&e=55",
	} {
		if parts, problems := find(t, body, "application/octet-stream", Default(), false); len(parts)+len(problems) > 0 {
			t.Errorf("%s: parts %.200q, problems %v", name, parts, problems)
		}
	}
}

func TestFragmentsOfStreams(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(secret, 3)))
	wide := strings.Join(strings.Split(secret, ""), "\x00")
	var percent strings.Builder
	for i := range len(secret) {
		fmt.Fprintf(&percent, "%%%02x", secret[i])
	}
	for name, text := range map[string]string{
		"base64": "data: " + b64 + "\n\n", "base64 cut at its beginning": b64[7:], "base64 cut, other": b64[2:], "UTF-16": "data: " + wide,
		"UTF-16, the other half": wide[1:] + "\x00", "base64 over the lines of an event": "data: " + b64[:50] + "\ndata: " + b64[50:120] + "\ndata: " + b64[120:] + "\n\n",
		"base64 in UTF-16": strings.Join(strings.Split(b64, ""), "\x00"), "percent": "data: " + percent.String(), "quoted-printable": escaped(secret),
		"base64 behind a line that ends in words": "a: base64\r\n\r\n" + b64, "behind several": "a: b\nword\nwo\nx\n" + b64 + "\n",
		"behind one, in lines":              "--b\nhe\n" + b64[:76] + "\r\n" + b64[76:] + "\r\n--",
		"plain, over two lines of an event": "data: " + secret[:20] + "\ndata: " + secret[20:],
	} {
		if out := string(Fragments([]byte(text))); !strings.Contains(out, secret[8:40]) {
			t.Errorf("%s: %.300q", name, out)
		}
	}
	if out := Fragments([]byte(ordinary(8 << 10))); bytes.Contains(out, []byte{0}) || len(out) > 32<<10 {
		t.Errorf("an ordinary page has %d bytes of other readings", len(out))
	}
	if out := Fragments(bytes.Repeat([]byte("data:AAAA\n%41\x00="), 40<<10/16)); len(out) > fragmentMost+fragmentMost/64 {
		t.Errorf("%d bytes of readings", len(out))
	}
}

func FuzzFragments(f *testing.F) {
	for _, s := range []string{"data: aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8=\n\n", "a\x00b\x00%41=41", "=\r\n=\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if out := Fragments(text); len(out) > fragmentMost+fragmentMost/minData {
			t.Errorf("%d bytes of readings", len(out))
		}
	})
}
