package pop3

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"lazaret/internal/scan"
)

// uuLines is uuencode without its beginning and its end.
func uuLines(body []byte) string {
	return strings.TrimSuffix(strings.TrimPrefix(uuencoded(string(body)), "begin 644 a.com\n"), "`\nend\n")
}

// zeroPadded is base64 in which the "A" at the beginning of groups are "=", as GLib reads them.
func zeroPadded(t *testing.T, body []byte) string {
	t.Helper()
	s, n := base64.StdEncoding.EncodeToString(body), 0
	var b strings.Builder
	for ; len(s) >= 4; s = s[4:] {
		g := s[:4]
		switch {
		case strings.Contains(g, "="):
		case g[:2] == "AA":
			g = "==" + g[2:]
			n++
		case g[0] == 'A':
			g = "=" + g[1:]
			n++
		}
		b.WriteString(g)
	}
	if n == 0 {
		t.Fatal("nothing to replace")
	}
	return broken(b.String(), 76)
}

// decoders are constructs that single decoders are known to read.
func (c corpus) decoders(t *testing.T) {
	e, text := scan.EICAR(), lf(head)+"\n"+hello+"\n"
	zip := zipped(t, "a.com", e)
	c.add(t, "base64, equals signs for leading zeros (GLib)", mixed(b64, zeroPadded(t, zip)))
	for name, junk := range map[string]string{"CR CR LF": "\r\r\n", "CR, junk, LF": "\rjunk here\r\n", "CR, escapes, LF": "\r=41=42=\r\n"} {
		c.add(t, "quoted-printable, soft break before "+name, mixed(quot, string(e[:20])+"="+junk+string(e[20:])+"\n"))
	}
	c.add(t, "uuencode, END in capitals", text+"begin 644 a.zip\nEND\n"+uuLines(zip)+"`\nend\n")
	c.add(t, "uuencode, END in capitals inside", text+"begin 644 a.com\n"+uuLines(e[:45])+"END\n"+uuLines(append(e[45:], zip...))+"`\nend\n")
	c.add(t, "uuencode, an end that comes early", text+"begin 644 a.zip\nend\n"+uuLines(zip)+"`\nend\n")
}

// TestTooManyEmbedded: the ninth file that begins in a text and does not end is not looked at, and that is told.
func TestTooManyEmbedded(t *testing.T) {
	zip := uuencoded(string(zipped(t, "a.com", scan.EICAR())))
	b64part := func(s string) string {
		return mixed(b64, broken(base64.StdEncoding.EncodeToString([]byte(s)), 76))
	}
	c := corpus{
		"begin-base64":           lf(head) + "\n" + hello + strings.Repeat("begin-base64 644 a\n", 8) + zip,
		"begin-base64 in base64": b64part(strings.Repeat("begin-base64 644 a\n", 8) + zip),
		"uuencode":               lf(head) + "\n" + strings.Repeat("begin 644 a\n", 8) + zip,
		"begin-base64 in quoted": mixed(quot, escaped(strings.Repeat("begin-base64 644 a\n", 8)+zip)),
	}
	for i := range 7 {
		c["yEnc"+fmt.Sprint(i)] = lf(head) + "\n" + strings.Repeat("=ybegin line=128 size=1 name=a\nx\n", 8+i) + zip
	}
	refused(t, c)
	// One in which nothing has come yet gives way.
	found(t, corpus{"yEnc": lf(head) + "\n" + strings.Repeat("=ybegin line=128 size=1 name=a\n", 20) + strings.SplitN(yEncoded(string(scan.EICAR())), "\n", 2)[1]})
}
