package pop3

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
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

// cutters are lines of junk in base64 that could be delimiters, or headers, to somebody.
var cutters = map[string]string{
	"a dash line":                          "---\n",
	"a dash line of junk":                  "--!!\n",
	"a dash line and a field":              "--!!\n!!!:\n",
	"a dash line and an empty line":        "--!!\n\n",
	"dash lines and fields":                "--!!\n!!!: !!\n\n--!!\n!!!: !!\n\n",
	"a delimiter with something behind it": "--XX!!!!\n",
}

// cutInside are constructs of all kinds whose base64 has one of cutters in it.
func (c corpus) cutInside(t *testing.T) {
	all := corpus{}
	all.transferEncodings(t)
	all.base64(t)
	all.boundaries(t)
	all.structure(t)
	all.embedded(t)
	n := 0
	for name, mail := range all {
		for cutter, line := range cutters {
			first := eicarB64()[:20]
			if strings.Contains(name, "quantity") || !strings.Contains(mail, "\n"+first+"\n") || strings.Contains(line, "XX") && (strings.HasPrefix(name, "boundary") || strings.Contains(name, "a word before, no break")) {
				continue
			}
			c.add(t, cutter+" in "+name, strings.Replace(mail, "\n"+first+"\n", "\n"+first+"\n"+line, 1))
			n++
		}
	}
	if n < 300 {
		t.Fatalf("only %d", n)
	}
}

// cutAnyhow are single constructs of that kind.
func (c corpus) cutAnyhow(t *testing.T) {
	s := eicarB64()
	zip := zipped(t, "a.com", scan.EICAR())
	z := broken(base64.StdEncoding.EncodeToString(zip), 76)
	c.add(t, "cut, zip, a dash line", mixed(b64, strings.Replace(z, "\n", "\n---\n", 1)))
	c.add(t, "cut, zip, a dash line in each", mixed(b64, strings.ReplaceAll(z, "\n", "\n--\u00a0\n")))
	c.add(t, "cut, a delimiter of another boundary", "X-Junk: boundary=zz\n"+mixed(b64, s[:40]+"\n--!!\n"+s[40:]))
	for name, field := range map[string]string{
		"in another field": "X-Junk: boundary=\"!!\"\n", "in a comment": "Content-Description: (boundary=!!)\n", "in a second Content-Type": "Content-Type: x/y; boundary=\"!!\"\n",
	} {
		c.add(t, "cut, a boundary declared "+name, field+mixed(b64, s[:40]+"\n--!!\n"+s[40:]))
		c.add(t, "cut, a boundary declared in the part, "+name, mixed(field+b64, s[:40]+"\n--!!\n"+s[40:]))
		c.add(t, "cut, the end of a boundary declared "+name, field+mixed(b64, s[:40]+"\n--!!--\n"+s[40:]))
	}
	c.add(t, "cut, the delimiter of a multipart that has ended", strings.Replace(mixed(b64, s[:40]+"\n--!!\n"+s[40:]), "--XX\nContent-Type: text/plain",
		"--XX\nContent-Type: multipart/mixed; boundary=\"!!\"\n\n--!!\n\nHello\n--!!--\n--XX\nContent-Type: text/plain", 1))
	c.add(t, "cut, the delimiter of a multipart in base64", mixed("Content-Type: multipart/mixed; boundary=\"!!\"\n"+b64, s[:40]+"\n--!!\n"+s[40:]))
	c.add(t, "cut, a thousand boundaries", mixed(manyBoundaries()+b64, s[:40]+"\n--!!\n"+s[40:]))
	c.add(t, "cut, quoted-printable, zip with dashes", mixed(quot, dashed(escaped(string(zipped(t, "a.com", append([]byte("\n--!!\n"), scan.EICAR()...)))))))
	uuBody := []byte("a\n")
	uuBody = append(uuBody, zip...)
	lines := uuLines(uuBody[:1]) + "-" + uuLines(uuBody[1:14])[1:] + uuLines(uuBody[14:])
	c.add(t, "cut, uuencode with a line that begins with a dash", lf(head)+"\n"+hello+"\nbegin 644 a.zip\n"+lines+"`\nend\n")
	inner := "Subject: inner\n" + b64 + "\n" + s[:40] + "\n---\n" + s[40:]
	c.add(t, "cut, in message/rfc822", mixed("Content-Type: message/rfc822\n", inner))
	c.add(t, "cut, in message/rfc822 with lines of junk", mixed("Content-Type: message/rfc822\n", "Content-Type: a/b\n"+b64+"\n"+strings.Join(strings.Split(s[:40], ""), "!")+"\n---\n"+s[40:]+"!\n"))
	c.add(t, "cut, in message/rfc822 in message/rfc822", mixed("Content-Type: message/rfc822\n", "Content-Type: message/rfc822\n\nContent-Type: a/b\n"+b64+"\n"+s[:39]+"!\n---\n"+s[39:]+"!\n"))
}

// manyBoundaries are parts that declare more boundaries than are remembered, and the beginning of another.
func manyBoundaries() string {
	var b strings.Builder
	for part := range 25 {
		for i := range 49 {
			fmt.Fprintf(&b, "X-Junk: boundary=b%d.%d\n", part, i)
		}
		b.WriteString("\nHello\n--XX\n")
	}
	return b.String()
}

// dashed writes the line break and the dashes in quoted-printable as they are.
func dashed(s string) string {
	s = strings.ReplaceAll(s, "=\n", "")
	return strings.Replace(s, "=0A=2D=2D=21=21=0A", "\n--!!\n", 1)
}

// fetcher returns what has a mail, as it is on the wire, fetched through the relay, and returns what the client gets.
func fetcher(t *testing.T) func(wire string) string {
	r := newRig(t, scantest.FindsEICAR(), knobs{})
	client, server := r.session()
	return func(wire string) string {
		client.says("RETR 1\r\n")
		server.hears("RETR 1\r\n")
		done := make(chan struct{})
		go func() { defer close(done); server.says("+OK\r\n" + wire + ".\r\n") }()
		got := client.message()
		<-done
		return got
	}
}

const virusNotice = "[Virus] found in a mail to you: Eicar-Test-Signature"

// found has mails fetched that all are infected.
func found(t *testing.T, c corpus) {
	t.Helper()
	fetch := fetcher(t)
	for _, name := range sorted(c) {
		if got := fetch(stuffed(crlf(c[name]))); !strings.Contains(got, virusNotice) {
			t.Errorf("missed: %s", name)
		}
	}
}

// refused has mails fetched that all are replaced by a notice.
func refused(t *testing.T, c corpus) {
	t.Helper()
	fetch := fetcher(t)
	for _, name := range sorted(c) {
		if got := fetch(stuffed(crlf(c[name]))); !strings.Contains(got, "[Not delivered]") && !strings.Contains(got, virusNotice) {
			t.Errorf("delivered: %s", name)
		}
	}
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

// openPGP are messages with body in them that anybody can read: literal, compressed, and with a signature around it (RFC 9580, 5.6, 5.9).
func openPGP(t *testing.T, body []byte) map[string][]byte {
	t.Helper()
	packet := func(tag byte, parts ...[]byte) []byte {
		b := bytes.Join(parts, nil)
		return append(binary.BigEndian.AppendUint32([]byte{0xc0 | tag, 255}, uint32(len(b))), b...)
	}
	var deflated bytes.Buffer
	literal := packet(11, []byte("b\x05a.com\x00\x00\x00\x00"), body)
	w := zlib.NewWriter(&deflated)
	if _, err := w.Write(literal); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"literal": literal, "signed": append(packet(4, []byte{3, 0, 8, 1, 1, 2, 3, 4, 5, 6, 7, 8, 1}), literal...),
		"ZIP": packet(8, []byte{1}, deflated.Bytes()[2:deflated.Len()-4]), "ZLIB": packet(8, []byte{2}, deflated.Bytes()),
	}
}

// openPGPs are mails with such messages.
func (c corpus) openPGPs(t *testing.T) {
	entity := []byte("Content-Type: application/octet-stream; name=a.com\r\n" + crlf(b64) + "\r\n" + crlf(broken(eicarB64(), 20)))
	all := openPGP(t, scan.EICAR())
	all["BZIP2"] = bzip2PGP(t)
	for name, b := range openPGP(t, zipped(t, "a.com", scan.EICAR())) {
		all["zip in "+name] = b
	}
	for name, b := range openPGP(t, entity) {
		all["a part in "+name] = b
	}
	for name, b := range all {
		text := broken(base64.StdEncoding.EncodeToString(b), 64)
		armoured := "-----BEGIN PGP MESSAGE-----\nVersion: x\n\n" + text + "=abcd\n-----END PGP MESSAGE-----\n"
		c.add(t, "OpenPGP "+name+", inline", lf(head)+"\n"+hello+"\n"+armoured)
		c.add(t, "OpenPGP "+name+", inline without a checksum", lf(head)+"\n"+strings.Replace(strings.Replace(armoured, "=abcd\n", "", 1), "Version: x\n", "", 1))
		c.add(t, "OpenPGP "+name+", PGP/MIME", strings.Replace(mixed("", armoured), "multipart/mixed", "multipart/encrypted; protocol=\"application/pgp-encrypted\"", 1))
		c.add(t, "OpenPGP "+name+", .asc in base64", mixed("Content-Disposition: attachment; filename=a.asc\n"+b64, inBase64([]byte(armoured))))
		c.add(t, "OpenPGP "+name+", .asc in quoted-printable", mixed(quot, strings.ReplaceAll(strings.ReplaceAll(armoured, "=", "=3D"), "-----BEGIN", "=2D----BEGIN")))
		c.add(t, "OpenPGP "+name+", .gpg", mixed("Content-Disposition: attachment; filename=a.com.gpg\n"+b64, inBase64(b)))
	}
}

// bzip2PGP is what GnuPG makes of EICAR with --compress-algo bzip2.
func bzip2PGP(t *testing.T) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString("owNCWmg2MUFZJlNZwUZbHgAAJ9+RAgImewagb2XfXRoKgAIABAACIABURT1BoDQAA0GgHqPUIoANABo0yDIeiBoPRUex6WMMgDqSrs7FgYGmlzTTQ7wmoR1IRT6BZFMsCtUTfAgjyGPEBmnQRLBY7l38ZqM/xdyRThQkMFGWx4A=")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
