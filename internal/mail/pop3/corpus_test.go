package pop3

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"mime/quotedprintable"
	"sort"
	"strings"
	"testing"

	"lazaret/internal/scan"
)

// The corpus: messages that each hide EICAR once from somebody's parser, and clean ones that are odd and legal. They go
// through the whole relay, judged by a scanner that decodes nothing by itself, so that what is found was found by the
// gateway's own readings.
//
// The families are those of design notes on MIME evasion: ambiguous transfer encodings, broken base64 and quoted-printable,
// boundaries that parsers disagree about, structure, encodings from before MIME, archives, and sheer quantity.

const hello = "Hello,\n\nthis is the text of the mail, and there is nothing else to it.\n\nGrace\n"

// eicarB64 is EICAR in base64, in one line; its lines are short enough to be broken in all the odd ways.
func eicarB64() string { return base64.StdEncoding.EncodeToString(scan.EICAR()) }

func broken(s string, n int) string {
	var b strings.Builder
	for len(s) > n {
		b.WriteString(s[:n] + "\n")
		s = s[n:]
	}
	return b.String() + s + "\n"
}

// mixed is a message of a text and an attachment with this header (each line with its end) and body.
func mixed(header, body string) string { return bounded(`boundary="XX"`, "XX", header, body) }

func bounded(parameter, boundary, header, body string) string {
	return lf(head) + "MIME-Version: 1.0\nContent-Type: multipart/mixed; " + parameter + "\n\nThis is MIME.\n--" + boundary +
		"\nContent-Type: text/plain\n\n" + hello + "\n--" + boundary + "\nContent-Type: application/octet-stream; name=a.com\n" +
		header + "\n" + body + "\n--" + boundary + "--\n"
}

func lf(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

const (
	b64  = "Content-Transfer-Encoding: base64\n"
	quot = "Content-Transfer-Encoding: quoted-printable\n"
)

// escaped is quoted-printable with every character escaped.
func escaped(s string) string {
	var b strings.Builder
	for i, c := range []byte(s) {
		fmt.Fprintf(&b, "=%02X", c)
		if i%20 == 19 {
			b.WriteString("=\n")
		}
	}
	return b.String() + "\n"
}

type corpus map[string]string

func (c corpus) add(t *testing.T, name, mail string) {
	t.Helper()
	if _, twice := c[name]; twice {
		t.Fatalf("%s is there twice", name)
	}
	c[name] = mail
}

func (c corpus) transferEncodings(t *testing.T) {
	for what, body := range map[string]string{"base64": broken(eicarB64(), 20), "quoted-printable": escaped(string(scan.EICAR()))} {
		for name, h := range map[string]string{
			"plain":                     "Content-Transfer-Encoding: " + what,
			"upper case":                "CONTENT-TRANSFER-ENCODING: " + strings.ToUpper(what),
			"mixed case":                "cOnTeNt-TrAnSfEr-EnCoDiNg: " + strings.ToUpper(what[:1]) + what[1:],
			"comment before":            "Content-Transfer-Encoding: (x) " + what,
			"comment behind":            "Content-Transfer-Encoding: " + what + " (7bit)",
			"nested comment":            "Content-Transfer-Encoding: (a (b) c) " + what,
			"folded":                    "Content-Transfer-Encoding:\n " + what,
			"folded with a tab":         "Content-Transfer-Encoding:\n\t" + what,
			"folded twice":              "Content-Transfer-Encoding:\n \n\t" + what,
			"7bit first":                "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: " + what,
			"7bit last":                 "Content-Transfer-Encoding: " + what + "\nContent-Transfer-Encoding: 7bit",
			"three":                     "Content-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: " + what + "\nContent-Transfer-Encoding: binary",
			"misspelt field":            "Content-Transfer-Encodin: " + what,
			"another misspelt field":    "Content-Tranfer-Encoding: " + what,
			"underscores":               "Content_Transfer_Encoding: " + what,
			"Content-Encoding":          "Content-Encoding: " + what,
			"space before the colon":    "Content-Transfer-Encoding : " + what,
			"tab before the colon":      "Content-Transfer-Encoding\t: " + what,
			"no space":                  "Content-Transfer-Encoding:" + what,
			"many spaces":               "Content-Transfer-Encoding:      " + what + "      ",
			"quoted":                    "Content-Transfer-Encoding: \"" + what + "\"",
			"semicolon":                 "Content-Transfer-Encoding: " + what + ";",
			"parameter":                 "Content-Transfer-Encoding: " + what + "; charset=x",
			"list":                      "Content-Transfer-Encoding: 7bit, " + what,
			"x-":                        "Content-Transfer-Encoding: x-" + what,
			"encoded word":              "Content-Transfer-Encoding: =?us-ascii?q?" + what + "?=",
			"NUL":                       "Content-Transfer-Encoding: " + what + "\x00",
			"none":                      "X-None: none",
			"lying 7bit":                "Content-Transfer-Encoding: 7bit",
			"lying 8bit":                "Content-Transfer-Encoding: 8bit",
			"lying binary":              "Content-Transfer-Encoding: binary",
			"unknown":                   "Content-Transfer-Encoding: wavelet",
			"empty":                     "Content-Transfer-Encoding:",
			"no colon":                  "Content-Transfer-Encoding " + what,
			"in the type":               "Content-Type: application/octet-stream; encoding=" + what,
			"behind a line of nonsense": "what is this\nContent-Transfer-Encoding: " + what,
			"the other one too":         "Content-Transfer-Encoding: quoted-printable\nContent-Transfer-Encoding: base64",
		} {
			c.add(t, "transfer encoding "+what+", "+name, mixed(h+"\n", body))
		}
	}
}

func (c corpus) base64(t *testing.T) {
	s := eicarB64()
	lines, half := broken(s, 20), base64.StdEncoding.EncodeToString(scan.EICAR()[:20])
	rest := base64.StdEncoding.EncodeToString(scan.EICAR()[20:])
	for name, body := range map[string]string{
		"junk between all characters":      strings.Join(strings.Split(lines, ""), "!"),
		"junk of other alphabets":          strings.Join(strings.Split(lines, ""), "é"),
		"dots at line ends":                strings.ReplaceAll(lines, "\n", ".\n"),
		"lines of junk":                    strings.ReplaceAll(lines, "\n", "\n*** junk ***\n"),
		"spaces between all":               strings.Join(strings.Split(s, ""), " ") + "\n",
		"tabs between all":                 strings.Join(strings.Split(s, ""), "\t") + "\n",
		"one a line":                       broken(s, 1),
		"two a line":                       broken(s, 2),
		"three a line":                     broken(s, 3),
		"five a line":                      broken(s, 5),
		"one line":                         s + "\n",
		"empty lines":                      strings.ReplaceAll(lines, "\n", "\n\n"),
		"indented":                         " " + strings.ReplaceAll(lines, "\n", "\n "),
		"padding before":                   "QQ==\n" + lines,
		"padding before on the same line":  "QQ==" + lines,
		"padding and an empty line before": "QQ==\n\n" + lines,
		"two streams":                      half + "\n" + rest + "\n",
		"two streams on a line":            half + rest + "\n",
		"two streams and an empty line":    half + "\n\n" + rest + "\n",
		"an equals sign inside":            s[:8] + "=" + s[8:] + "\n",
		"many equals signs at the end":     s + "=====\n",
		"text behind":                      lines + "\nThis is a text behind it.\n",
		"text before":                      "Some words before it.\n" + lines,
		"a word before":                    "word\n\n" + lines,
		"no padding in any line":           unpadded(string(scan.EICAR()), 10),
		"a word before, no break":          "abc\n" + lines,
		"no padding":                       strings.TrimRight(s, "=") + "\n",
		"a NUL before each line":           strings.ReplaceAll("\n"+lines, "\n", "\n\x00"),
		"a comment character":              lines[:21] + "# no comment\n" + lines[21:],
	} {
		c.add(t, "base64, "+name, mixed(b64, body))
	}
}

func (c corpus) quotedPrintable(t *testing.T) {
	e := string(scan.EICAR())
	for name, body := range map[string]string{
		"soft line break":              e[:20] + "=\n" + e[20:] + "\n",
		"white space behind the break": e[:20] + "= \t\n" + e[20:] + "\n",
		"two breaks":                   e[:20] + "=\n=\n" + e[20:] + "\n",
		"a break each character":       strings.Join(strings.Split(e, ""), "=\n") + "\n",
		"lower case":                   strings.ToLower(escaped(e[:1])[:3]) + e[1:] + "\n",
		"one in the middle":            e[:30] + fmt.Sprintf("=%02X", e[30]) + e[31:] + "\n",
		"every other":                  "=58" + e[1:] + "\n",
		"last":                         e[:67] + fmt.Sprintf("=%02X", e[67]) + "\n",
	} {
		c.add(t, "quoted-printable, "+name, mixed(quot, body))
		c.add(t, "quoted-printable as 7bit, "+name, mixed("Content-Transfer-Encoding: 7bit\n", body))
	}
}

func (c corpus) boundaries(t *testing.T) {
	lines := broken(eicarB64(), 20)
	for name, p := range map[string]string{
		"unquoted": "boundary=XX", "quoted": `boundary="XX"`, "single quotes": `boundary='XX'`, "RFC 2231": "boundary*=us-ascii''XX",
		"RFC 2231 in parts": "boundary*0=X; boundary*1=X", "RFC 2231 out of order": "boundary*1=X; boundary*0=X", "space around": `boundary = "XX"`,
		"wrong one first": "boundary=YY; boundary=XX", "wrong one last": "boundary=XX; boundary=YY", "upper case": "BOUNDARY=XX", "none": "charset=x", "comment": "boundary=(x)XX",
		"trailing space": `boundary="XX "`, "prefix": "boundary=X", "longer": "boundary=XXX", "empty": "boundary=", "empty quotes": `boundary=""`, "tab": "boundary=\tXX",
		"folded": "\n boundary=XX", "escaped": `boundary="X\X"`, "half quoted": `boundary="XX`, "encoded word": "boundary==?us-ascii?q?XX?=", "no equals": "boundary XX", "NUL": "boundary=XX\x00",
		"colon": "boundary:XX", "semicolons": ";;; boundary=XX;;;", "percent": "boundary*=us-ascii''%58X",
	} {
		c.add(t, "boundary, "+name, bounded(p, "XX", b64, lines))
	}
	m := func(s string) string {
		return lf(head) + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=XX\n" + s
	}
	evil := b64 + "\n" + lines
	for name, mail := range map[string]string{
		"in the preamble":            m(b64 + "\n" + lines + "\n--XX\n\nHello\n--XX--\n"),
		"in the epilogue":            m("\n--XX\n\nHello\n--XX--\n" + evil),
		"behind a second end":        m("\n--XX\n\nHello\n--XX--\n--XX\n" + evil + "--XX--\n"),
		"no end":                     m("\n--XX\n\nHello\n--XX\n" + evil),
		"only an end":                m("\n--XX--\n" + evil),
		"space behind":               m("\n--XX  \n" + evil + "--XX--\n"),
		"text behind":                m("\n--XX what\n" + evil + "--XX--\n"),
		"space before":               m("\n --XX\n" + evil + " --XX--\n"),
		"three dashes":               m("\n---XX\n" + evil + "---XX--\n"),
		"one dash":                   m("\n-XX\n" + evil + "-XX-\n"),
		"no line break before":       m("\nHello--XX\n" + evil + "--XX--\n"),
		"directly behind the header": m("--XX\n" + evil + "--XX--\n"),
		"lower case":                 m("\n--xx\n" + evil + "--xx--\n"),
		"another one":                m("\n--YY\n" + evil + "--YY--\n"),
		"a part without a header":    m("\n--XX\n\n" + lines + "--XX--\n"),
		"header without its end":     m("\n--XX\n" + b64 + lines + "--XX--\n"),
		"declared in a part": m("\n--XX\nContent-Type: multipart/mixed; boundary=YY\n\n--YY\n" + evil +
			"--YY--\n--XX--\n"),
		"nested with the same": m("\n--XX\nContent-Type: multipart/mixed; boundary=XX\n\n--XX\n" + evil + "--XX--\n--XX--\n"),
		"the inner is a prefix of the outer": m("\n--XX\nContent-Type: multipart/mixed; boundary=X\n\n--X\n" + evil +
			"--X--\n--XX--\n"),
	} {
		c.add(t, "delimiter, "+name, mail)
	}
}

func (c corpus) structure(t *testing.T) {
	lines := broken(eicarB64(), 20)
	inner := "From: x@example.org\nSubject: inner\nMIME-Version: 1.0\n" + b64 + "\n" + lines
	encoded := broken(base64.StdEncoding.EncodeToString([]byte(inner)), 76)
	deep := b64 + "\n" + lines
	for i := range 200 {
		deep = fmt.Sprintf("Content-Type: multipart/mixed; boundary=\"b%d\"\n\n--b%d\n%s\n--b%d--\n", i, i, deep, i)
	}
	for name, mail := range map[string]string{
		"no multipart at all":             lf(head) + b64 + "\n" + lines,
		"no MIME-Version":                 lf(head) + "Content-Type: application/octet-stream\n" + b64 + "\n" + lines,
		"no empty line behind the header": lf(head) + b64 + lines,
		"a line of a space for it":        lf(head) + b64 + " \n" + lines,
		"message/rfc822":                  mixed("Content-Type: message/rfc822\n", inner),
		"message/rfc822 in base64":        mixed("Content-Type: message/rfc822\n"+b64, encoded),
		"text/plain":                      mixed("Content-Type: text/plain\n"+b64, lines),
		"two types":                       mixed("Content-Type: text/plain\nContent-Type: application/zip\n"+b64, lines),
		"type without a slash":            mixed("Content-Type: octet\n"+b64, lines),
		"empty type":                      mixed("Content-Type:\n"+b64, lines),
		"message/delivery-status":         mixed("Content-Type: message/delivery-status\n"+b64, lines),
		"message/external-body":           mixed("Content-Type: message/external-body; access-type=local-file\n\nContent-Type: x/y\n"+b64, lines),
		"multipart/digest":                strings.Replace(mixed("", inner), "multipart/mixed", "multipart/digest", 1),
		"multipart/unheard-of":            strings.Replace(mixed(b64, lines), "multipart/mixed", "multipart/unheard-of", 1),
		"a bounce that quotes it":         mixed("Content-Type: text/rfc822-headers\n", inner),
		"file name in conflict":           mixed("Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.com\n"+b64, lines),
		"200 deep":                        lf(head) + "MIME-Version: 1.0\n" + deep,
		"a forwarded mail in the text":    lf(head) + "\n" + hello + "\n-------- Forwarded --------\n" + inner,
		"an empty header first":           "\n" + lf(head) + b64 + "\n" + lines,
	} {
		c.add(t, "structure, "+name, mail)
	}
	for name, mail := range map[string]string{
		"1 MB of header":           strings.Repeat("X-Filler: "+strings.Repeat("a", 60)+"\n", 14_000) + mixed(b64, lines),
		"a header line of 1 MB":    "X-Filler: " + strings.Repeat("a", 1<<20) + "\n" + mixed(b64, lines),
		"10,000 empty parts":       bounded(`boundary="XX"`, "XX", strings.Repeat("\n--XX\n", 10_000)+b64, lines),
		"a line of 1 MB before":    lf(head) + "\n" + strings.Repeat("x", 1<<20) + "\n" + b64 + "\n" + lines,
		"100,000 lines of text":    lf(head) + "\n" + strings.Repeat("Hello, world\n", 100_000) + "\n" + b64 + "\n" + lines,
		"1 MB of spaces in base64": mixed(b64, lines[:20]+strings.Repeat(" ", 1<<20)+lines[20:]),
	} {
		c.add(t, "quantity, "+name, mail)
	}
}

func uuencoded(body string) string {
	var b strings.Builder
	b.WriteString("begin 644 a.com\n")
	for len(body) > 0 {
		n := min(45, len(body))
		chunk := []byte(body[:n] + "\x00\x00")
		b.WriteByte(byte(n) + ' ')
		for i := 0; i < n; i += 3 {
			for _, v := range []byte{chunk[i] >> 2, chunk[i]<<4&0x30 | chunk[i+1]>>4, chunk[i+1]<<2&0x3c | chunk[i+2]>>6, chunk[i+2] & 0x3f} {
				b.WriteByte(v + ' ')
			}
		}
		b.WriteByte('\n')
		body = body[n:]
	}
	return b.String() + "`\nend\n"
}

func yEncoded(body string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "=ybegin line=128 size=%d name=a.com\n", len(body))
	for _, c := range []byte(body) {
		c += 42
		if c == 0 || c == '\n' || c == '\r' || c == '=' {
			b.WriteByte('=')
			c += 64
		}
		b.WriteByte(c)
	}
	return b.String() + fmt.Sprintf("\n=yend size=%d\n", len(body))
}

// tnef is winmail.dat with a file (MS-OXTNEF, attAttachData).
func tnef(body []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte("\x78\x9f\x3e\x22\x01\x00\x02\x0f\x80\x06\x00"), uint32(len(body)))
	return append(append(b, body...), 0, 0)
}

// signed is CMS SignedData (RFC 5652, 5.1) with body in it, in two pieces, as far as mail programs need it to show that.
func signed(body []byte) []byte {
	piece := func(b []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{4, 0x82}, uint16(len(b))), b...)
	}
	b := []byte("\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80\x02\x01\x01\x31\x00" +
		"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x80\x24\x80")
	b = append(append(b, piece(body[:len(body)-30])...), piece(body[len(body)-30:])...)
	return append(b, make([]byte, 12)...)
}

// unpadded is base64 of n bytes a line, without padding.
func unpadded(body string, n int) string {
	var b strings.Builder
	for len(body) > 0 {
		k := min(n, len(body))
		b.WriteString(base64.RawStdEncoding.EncodeToString([]byte(body[:k])) + "\n")
		body = body[k:]
	}
	return b.String()
}

func zipped(t *testing.T, name string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err == nil {
		_, err = f.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t *testing.T, name string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encodedPart(body []byte) string {
	return mixed(b64, broken(base64.StdEncoding.EncodeToString(body), 76))
}

func (c corpus) embedded(t *testing.T) {
	e := scan.EICAR()
	text := lf(head) + "\n" + hello + "\n"
	for name, mail := range map[string]string{
		"uuencode":                  text + uuencoded(string(e)),
		"uuencode without an end":   text + strings.TrimSuffix(uuencoded(string(e)), "`\nend\n"),
		"uuencode with spaces":      text + strings.ReplaceAll(uuencoded(string(e)), "`", " "),
		"uuencode as x-uuencode":    mixed("Content-Transfer-Encoding: x-uuencode\n", uuencoded(string(e))),
		"uuencode as uue":           mixed("Content-Transfer-Encoding: uue\n", uuencoded(string(e))),
		"uuencode without begin":    mixed("Content-Transfer-Encoding: x-uuencode\n", strings.TrimPrefix(uuencoded(string(e)), "begin 644 a.com\n")),
		"uuencode in base64":        encodedPart([]byte(uuencoded(string(e)))),
		"uuencode in quoted":        mixed(quot, escaped(uuencoded(string(e)))),
		"yEnc in base64":            encodedPart([]byte(yEncoded(string(e)))),
		"zip in TNEF":               encodedPart(tnef(zipped(t, "a.com", e))),
		"signed by S/MIME":          encodedPart(signed([]byte(mixed(b64, broken(eicarB64(), 20))))),
		"attachment of a calendar":  mixed("Content-Type: text/calendar\n", "BEGIN:VEVENT\nATTACH;ENCODING=BASE64;VALUE=BINARY:"+strings.ReplaceAll(broken(eicarB64(), 40), "\n", "\n ")+"\n"),
		"mail of one field, base64": mixed("Content-Type: message/rfc822\n"+b64, broken(base64.StdEncoding.EncodeToString([]byte(b64+"\n"+broken(eicarB64(), 20))), 76)),
		"multipart in base64":       mixed("Content-Type: multipart/mixed; boundary=YY\n"+b64, broken(base64.StdEncoding.EncodeToString([]byte("Text.\n--YY\n"+b64+"\n"+broken(eicarB64(), 20)+"--YY--\n")), 76)),
		"begin-base64":              text + "begin-base64 644 a.com\n" + broken(eicarB64(), 60) + "====\n",
		"yEnc":                      text + yEncoded(string(e)),
		"yEnc in a part":            mixed("Content-Transfer-Encoding: yenc\n", yEncoded(string(e))),
		"zip":                       encodedPart(zipped(t, "a.com", e)),
		"zip with a text before it": encodedPart(append([]byte("MZ this is a prefix\r\n"), zipped(t, "a.com", e)...)),
		"zip with a text behind it": encodedPart(append(zipped(t, "a.com", e), "this is a suffix\r\n"...)),
		"zip in zip":                encodedPart(zipped(t, "b.zip", zipped(t, "a.com", e))),
		"zip in zip in zip":         encodedPart(zipped(t, "c.zip", zipped(t, "b.zip", zipped(t, "a.com", e)))),
		"two zips joined":           encodedPart(append(zipped(t, "a.com", e), zipped(t, "b.txt", []byte(hello))...)),
		"two zips joined otherwise": encodedPart(append(zipped(t, "b.txt", []byte(hello)), zipped(t, "a.com", e)...)),
		"gzip":                      encodedPart(gzipped(t, e)),
		"gzip joined":               encodedPart(append(gzipped(t, []byte(hello)), gzipped(t, e)...)),
		"tar":                       encodedPart(tarred(t, "a.com", e)),
		"tar.gz":                    encodedPart(gzipped(t, tarred(t, "a.com", e))),
		"a mail in a zip":           encodedPart(zipped(t, "a.eml", []byte(crlf(mixed(b64, broken(eicarB64(), 20)))))),
		"zip in quoted-printable":   mixed(quot, escaped(string(zipped(t, "a.com", e)))),
		"zip in uuencode":           text + uuencoded(string(zipped(t, "a.com", e))),
		"zip called a text":         mixed("Content-Type: text/plain; name=a.txt\n"+b64, broken(base64.StdEncoding.EncodeToString(zipped(t, "a.com", e)), 76)),
	} {
		c.add(t, "embedded, "+name, mail)
	}
}

// constructs returns every construct.
func constructs(t *testing.T) corpus {
	t.Helper()
	c := corpus{}
	c.transferEncodings(t)
	c.base64(t)
	c.quotedPrintable(t)
	c.boundaries(t)
	c.structure(t)
	c.embedded(t)
	c.decoders(t)
	c.cutInside(t)
	c.cutAnyhow(t)
	c.openPGPs(t)
	return c
}

// TestCorpus has every construct fetched through the relay, and prints the report.
func TestCorpus(t *testing.T) {
	c, clean := constructs(t), cleanMails(t)
	if len(c) < 150 || len(clean) < 100 {
		t.Fatalf("the corpus has %d constructs and %d clean mails", len(c), len(clean))
	}
	fetch := fetcher(t)
	missed, wrongly := 0, 0
	for _, name := range sorted(c) {
		wire := stuffed(crlf(c[name]))
		if strings.Contains(wire, string(scan.EICAR())) {
			t.Errorf("%s hides nothing", name)
		}
		if got := fetch(wire); !strings.Contains(got, virusNotice) {
			missed++
			t.Errorf("missed: %s", name)
		}
	}
	for _, name := range sorted(clean) {
		wire := stuffed(clean[name])
		if got := fetch(wire); got != wire {
			wrongly++
			t.Errorf("not byte for byte: %s: %.800q", name, got)
		}
	}
	t.Logf("corpus: %d constructs, missed %d; %d clean mails, wrongly replaced or changed %d", len(c), missed, len(clean), wrongly)
}

func stuffed(msg string) string {
	var s stuffer
	return strings.TrimSuffix(string(s.end(s.append(nil, []byte(msg)))), ".\r\n")
}

func sorted(c corpus) []string {
	names := make([]string, 0, len(c))
	for n := range c {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func qpOf(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
