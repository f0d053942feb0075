package pop3

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// cleanMails returns clean mails, as they are on the wire before byte-stuffing: ordinary ones, and odd ones that are legal
// or that occur.
func cleanMails(t *testing.T) corpus {
	t.Helper()
	c := corpus{}
	c.cleanTexts(t)
	c.cleanAttachments(t)
	c.cleanStructures(t)
	c.cleanOddities(t)
	c.cleanCuts(t)
	c.cleanPartials(t)
	c.cleanBounces(t)
	c.cleanOpenPGP(t)
	return c
}

func plainMail(fields, body string) string { return crlf(lf(head) + fields + "\n" + body) }

func (c corpus) cleanTexts(t *testing.T) {
	for charset, text := range map[string]string{
		"us-ascii": hello, "utf-8": "Grüße, здравствуйте, 你好, שלום, 😀\n", "iso-8859-1": "Gr\xfc\xdfe\n", "iso-8859-15": "\xa4 100\n",
		"windows-1252": "\x93quoted\x94\n", "koi8-r": "\xf0\xf2\xe9\xf7\xe5\xf4\n", "iso-2022-jp": "\x1b$B$3$s$K$A$O\x1b(B\n", "shift_jis": "\x82\xb1\x82\xf1\n",
		"gb2312": "\xc4\xe3\xba\xc3\n", "big5": "\xa7A\xa6n\n", "euc-kr": "\xbe\xc8\xb3\xe7\n", "utf-7": "+ADw-b+AD4-\n", "unknown-8bit": "\x80\x81\x82\n", "x-made-up": "text\n",
	} {
		c.add(t, "8bit "+charset, plainMail("MIME-Version: 1.0\nContent-Type: text/plain; charset="+charset+"\nContent-Transfer-Encoding: 8bit\n", text))
		c.add(t, "quoted-printable "+charset, plainMail("MIME-Version: 1.0\nContent-Type: text/plain; charset="+charset+"\n"+quot, lf(qpOf(t, text))))
		c.add(t, "base64 "+charset, plainMail("MIME-Version: 1.0\nContent-Type: text/plain; charset="+charset+"\n"+b64, broken(base64.StdEncoding.EncodeToString([]byte(text)), 76)))
	}
	for name, body := range map[string]string{
		"format=flowed": "a line that flows \non to the next \none.\n", "signature": hello + "-- \nGrace\n", "quoted": "> > text\n> text\n\nmy answer\n",
		"dots": ".\n..\n...\n. \n.x\n", "From ": "From here on\n>From there\n", "dashes": "--\n--XX\n-----\n--XX--\n", "a begin line": "begin with this\n\nend\n",
		"equals signs": "a=b&c=20=\n=3D=3d=ZZ\n", "looks like base64": "SGVsbG8gd29ybGQsIHRoaXMgaXMgbm90aGluZyBiYWQ=\n", "a header in the text": "Content-Type: text/plain\n\nis what I wrote\n",
		"a diff": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "a key": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
		"a URL": "http://www.example.org/?a=b&c=%20\n", "HTML": "<html><body>Hello<br></body></html>\n", "long words": strings.Repeat("x", 998) + "\n",
	} {
		c.add(t, "text, "+name, plainMail("", body))
	}
}

func (c corpus) cleanAttachments(t *testing.T) {
	binary := bytes.Repeat([]byte{0, 1, 2, 250, 13, 10, 46, 13, 10}, 500)
	for name, body := range map[string][]byte{
		"zip": zipped(t, "a.txt", []byte(hello)), "zip in zip": zipped(t, "b.zip", zipped(t, "a.txt", []byte(hello))), "gzip": gzipped(t, []byte(hello)),
		"tar": tarred(t, "a.txt", []byte(hello)), "tar.gz": gzipped(t, tarred(t, "a.txt", []byte(hello))), "empty zip": []byte("PK\x05\x06" + strings.Repeat("\x00", 18)),
		"octets": binary, "png": append([]byte("\x89PNG\r\n\x1a\n"), binary...), "pdf": []byte("%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"),
		"text": []byte(hello), "a mail": []byte(crlf(mixed("", hello))), "nothing": nil, "one byte": {7},
	} {
		c.add(t, "attached, "+name, crlf(encodedPart(body)))
	}
	for name, h := range map[string]string{
		"RFC 2231 name": "Content-Disposition: attachment; filename*=utf-8''%e2%82%ac%20rates.txt\n", "RFC 2231 name in parts": "Content-Disposition: attachment; filename*0=\"a\"; filename*1=\"b.txt\"\n",
		"RFC 2047 name": "Content-Disposition: attachment; filename=\"=?utf-8?b?4oKs?=.txt\"\n", "name with quotes": "Content-Disposition: attachment; filename=\"a\\\"b.txt\"\n",
		"inline": "Content-Disposition: inline\nContent-ID: <1@x>\n", "description": "Content-Description: it\n", "language": "Content-Language: de\n", "folded": "Content-Disposition: attachment;\n\tfilename=a.txt\n",
	} {
		c.add(t, "part, "+name, crlf(mixed(h+b64, broken(base64.StdEncoding.EncodeToString([]byte(hello)), 76))))
	}
	c.add(t, "attached, uuencode", plainMail("", hello+uuencoded(hello)))
	c.add(t, "attached, yEnc", plainMail("", hello+yEncoded(hello)))
	c.add(t, "attached, binary", crlf(bounded("boundary=XX", "XX", "Content-Transfer-Encoding: binary\n", "\x00\xff\xfe"))+"")
}

func (c corpus) cleanStructures(t *testing.T) {
	nested := "Content-Type: text/plain\n\n" + hello
	for i := range 8 {
		nested = fmt.Sprintf("Content-Type: multipart/mixed; boundary=\"b%d\"\n\n--b%d\n%s\n--b%d--\n", i, i, nested, i)
	}
	for _, kind := range []string{"alternative", "related", "signed; protocol=\"application/pgp-signature\"; micalg=pgp-sha256", "report; report-type=delivery-status", "parallel", "digest", "form-data", "encrypted; protocol=\"application/pgp-encrypted\""} {
		c.add(t, "multipart/"+kind, crlf(strings.Replace(mixed("", hello), "mixed", kind, 1)))
	}
	for name, mail := range map[string]string{
		"nested":              lf(head) + "MIME-Version: 1.0\n" + nested,
		"message/rfc822":      mixed("Content-Type: message/rfc822\n", lf(head)+"\n"+hello),
		"preamble, epilogue":  "X-A: b\n" + mixed("", hello) + "This is an epilogue.\n",
		"empty parts":         bounded("boundary=XX", "XX", strings.Repeat("\n--XX\n", 20), ""),
		"long boundary":       bounded("boundary=\""+strings.Repeat("=_x", 23)+"\"", strings.Repeat("=_x", 23), "", hello),
		"boundary with space": bounded("boundary=\"a b\"", "a b", "", hello),
		"calendar":            strings.Replace(mixed("Content-Type: text/calendar; method=REQUEST\n", "BEGIN:VCALENDAR\nEND:VCALENDAR\n"), "mixed", "alternative", 1),
		"S/MIME":              lf(head) + "MIME-Version: 1.0\nContent-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\n" + b64 + "\nMIAGCSqGSIb3DQEHAqCAMIACAQE=\n",
		"PGP inline":          lf(head) + "\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n- -- \nGrace\n-----BEGIN PGP SIGNATURE-----\n\niQEz=\n=abcd\n-----END PGP SIGNATURE-----\n",
	} {
		c.add(t, "structure, "+name, crlf(mail))
	}
}

func (c corpus) cleanOddities(t *testing.T) {
	for name, mail := range map[string]string{
		"empty":                 "",
		"an empty line":         "\r\n",
		"header alone":          head,
		"body alone":            "\r\nHello\r\n",
		"no header at all":      "Hello\r\nworld\r\n",
		"bare LF":               lf(head) + "\nHello\n\r\n",
		"bare CR":               head + "\r\na\rb\rc\r\n",
		"LF dot LF":             head + "\r\na\n.\nb\r\n",
		"LF dot CRLF":           head + "\r\na\n.\r\nb\r\n",
		"NULs":                  head + "\r\n\x00\x00a\x00\r\n",
		"8 bit in the header":   "Subject: Gr\xfc\xdfe\r\n" + head + "\r\nHello\r\n",
		"UTF-8 in the header":   "Subject: Grüße\r\n" + head + "\r\nHello\r\n",
		"encoded words":         "X-Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?8J+YgA==?=\r\n" + head + "\r\nHello\r\n",
		"300 fields":            strings.Repeat("X-Field: value\r\n", 300) + head + "\r\nHello\r\n",
		"a long folded field":   "References:\r\n" + strings.Repeat(" <a@example.org>\r\n", 500) + head + "\r\nHello\r\n",
		"a line of 100,000":     head + "\r\n" + strings.Repeat("x", 100_000) + "\r\n",
		"white space at ends":   head + "\r\nHello   \r\n\t\r\n \r\n",
		"many empty lines":      head + strings.Repeat("\r\n", 2000),
		"DKIM":                  "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s;\r\n\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=x\r\n" + head + "\r\nHello\r\n",
		"mbox's From line":      "From grace@example.org Mon Jun  1 10:00:00 2026\r\n" + head + "\r\nHello\r\n",
		"obsolete date":         "Date: Mon, 1 Jun 26 10:00:00 EST\r\n" + head + "\r\nHello\r\n",
		"space before colon":    "X-Old : value\r\n" + head + "\r\nHello\r\n",
		"1 MB of text":          head + "\r\n" + strings.Repeat("Hello, world, this is an ordinary line.\r\n", 25_000),
		"form feed":             head + "\r\n\fHello\v\r\n",
		"escape sequences":      head + "\r\n\x1b[31mred\x1b[0m\r\n",
		"CR CR LF":              head + "\r\nHello\r\r\nworld\r\r\n",
		"empty group recipient": "To: undisclosed-recipients:;\r\nSubject: x\r\n\r\nHello\r\n",
	} {
		c.add(t, "odd, "+name, mail)
	}
}
