package message

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/content"
	"lazaret/internal/spool"
)

// secret is what each construct hides; it is as long as EICAR, and as little like a word.
const secret = `Q5T!R%@BO[6\QZQ65(Q^)8DD)8}$HIDDEN-TEXT-WHICH-HAS-TO-BE-FOUND-HERE!$`

func pool(t testing.TB) *spool.Pool {
	t.Helper()
	cfg := spool.Default()
	cfg.Dir, cfg.MinFree = t.TempDir(), 0
	p, err := spool.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readings(t testing.TB, mail string) (parts []content.Part, bodies []string, problems []content.Problem) {
	t.Helper()
	p := pool(t)
	b, err := p.Of([]byte(mail))
	if err != nil {
		t.Fatal(err)
	}
	problems = Find(context.Background(), p, b, content.Default(), func(part content.Part) error {
		body, err := io.ReadAll(part.Blob.NewReader())
		if err != nil {
			t.Error(err)
		}
		parts, bodies = append(parts, part), append(bodies, string(body))
		return nil
	})
	b.Close()
	if u := p.Usage(); u != (spool.Usage{}) {
		t.Errorf("the pool still holds %+v", u)
	}
	return parts, bodies, problems
}

func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

const top = "Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0200\nFrom: a@example.org\nTo: b@example.org\nSubject: test\n" +
	"Date: Mon, 1 Jun 2026 10:00:00 +0200\nMIME-Version: 1.0\n"

// wrap breaks s into lines of n characters.
func wrap(s string, n int) string {
	var b strings.Builder
	for len(s) > n {
		b.WriteString(s[:n] + "\n")
		s = s[n:]
	}
	return b.String() + s + "\n"
}

func uu(body string) string {
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

func yEnc(body string) string {
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
	return b.String() + "\n=yend size=68\n"
}

func binHexed(body string) string {
	var out []byte
	bits, n := uint32(0), 0
	for _, c := range []byte(strings.ReplaceAll(body, "\x90", "\x90\x00")) {
		bits, n = bits<<8|uint32(c), n+8
		for n >= 6 {
			n -= 6
			out = append(out, binHexAlphabet[bits>>n&0x3f])
		}
	}
	out = append(out, binHexAlphabet[bits<<(6-n)&0x3f])
	return "(This file must be converted with BinHex 4.0)\n:" + wrap(string(out), 64) + ":\n"
}

func qp(body string) string {
	var b strings.Builder
	for i, c := range []byte(body) {
		fmt.Fprintf(&b, "=%02X", c)
		if i%20 == 19 {
			b.WriteString("=\n")
		}
	}
	return b.String() + "\n"
}

func coded(body string) string { return wrap(base64.StdEncoding.EncodeToString([]byte(body)), 76) }

// unpadded is base64 of n bytes a line, without padding: lines that are not read one by one make no sense.
func unpadded(body string, n int) string {
	var b strings.Builder
	for len(body) > 0 {
		k := min(n, len(body))
		b.WriteString(base64.RawStdEncoding.EncodeToString([]byte(body[:k])) + "\n")
		body = body[k:]
	}
	return b.String()
}

// tnefOf is a file of TNEF: two attributes that are not read, and one.
func tnefOf(id uint32, body string) string {
	attribute := func(id uint32, body string) string {
		b := binary.LittleEndian.AppendUint32([]byte{2}, id)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
		return string(b) + body + "\x00\x00"
	}
	return tnefSignature + "\x01\x00" + attribute(0x00089006, "\x00\x00\x01\x00") + attribute(0x00069002, "not wanted") + attribute(id, body)
}

func TestTNEF(t *testing.T) {
	file := tnefOf(attAttachData, secret)
	for name, body := range map[string]string{
		"a file": file, "cut": file[:len(file)-2], "text": tnefOf(attBody, secret),
		"a mail in it": tnefOf(attAttachment, "some properties "+file), "length that lies": strings.Replace(file, "\x44\x00\x00\x00", "\x44\x00\x00\x7f", 1),
		"second": tnefOf(attAttachData, "first") + attachment(file),
	} {
		mail := top + "Content-Type: application/ms-tnef\nContent-Transfer-Encoding: base64\n\n" + coded(body)
		_, bodies, problems := readings(t, crlf(mail))
		if !slices.ContainsFunc(bodies, func(b string) bool { return strings.HasPrefix(b, secret) }) || len(problems) > 0 {
			t.Errorf("%s: %d readings, %v", name, len(bodies), problems)
		}
	}
}

// attachment is the attribute behind those at the start of what tnefOf returns.
func attachment(file string) string {
	return file[strings.Index(file, "not wanted")+len("not wanted")+tnefChecksum:]
}

// constructs returns messages that each hide the secret once.
func constructs() map[string]string {
	b64 := base64.StdEncoding.EncodeToString([]byte(secret))
	lines := wrap(b64, 20)
	m := make(map[string]string)
	part := func(boundary, header, body string) string {
		return top + "Content-Type: multipart/mixed; boundary=\"" + boundary + "\"\n\nThis is MIME.\n--" + boundary +
			"\nContent-Type: text/plain\n\nHello, this is the text of the mail.\n\n--" + boundary +
			"\nContent-Type: application/octet-stream; name=a.com\n" + header + "\n" + body + "\n--" + boundary + "--\n"
	}
	for name, h := range map[string]string{
		"plain field":       "Content-Transfer-Encoding: base64\n",
		"upper case":        "CONTENT-TRANSFER-ENCODING: BASE64\n",
		"comment":           "Content-Transfer-Encoding: (x) base64 (y)\n",
		"folded":            "Content-Transfer-Encoding:\n base64\n",
		"folded twice":      "Content-Transfer-Encoding:\n \n\tbase64\n",
		"two, 7bit first":   "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n",
		"two, 7bit last":    "Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: 7bit\n",
		"misspelt field":    "Content-Transfer-Encodin: base64\n",
		"space before":      "Content-Transfer-Encoding : base64\n",
		"no space":          "Content-Transfer-Encoding:base64\n",
		"quoted value":      "Content-Transfer-Encoding: \"base64\"\n",
		"semicolon":         "Content-Transfer-Encoding: base64;\n",
		"unknown value":     "Content-Transfer-Encoding: x-base64\n",
		"encoded word":      "Content-Transfer-Encoding: =?us-ascii?q?base64?=\n",
		"NUL in the value":  "Content-Transfer-Encoding: base64\x00\n",
		"no field":          "",
		"lying 7bit":        "Content-Transfer-Encoding: 7bit\n",
		"no colon in field": "Content-Transfer-Encoding base64\n",
	} {
		m["base64, "+name] = part("XX", h, lines)
	}
	cte := "Content-Transfer-Encoding: base64\n"
	for name, body := range map[string]string{
		"junk characters":         strings.Join(strings.Split(lines, ""), "!"),
		"junk lines":              strings.ReplaceAll(lines, "\n", "\n*** junk ***\n"),
		"spaces":                  strings.Join(strings.Split(b64, ""), " ") + "\n",
		"one a line":              wrap(b64, 1),
		"three a line":            wrap(b64, 3),
		"one line":                b64 + "\n",
		"empty lines":             strings.ReplaceAll(lines, "\n", "\n\n"),
		"early padding":           "QQ==\n" + lines,
		"early padding inside":    "QQ==" + lines,
		"joined streams":          base64.StdEncoding.EncodeToString([]byte(secret[:10])) + "\n" + base64.StdEncoding.EncodeToString([]byte(secret[10:])) + "\n",
		"stray equals":            b64[:8] + "=" + b64[8:] + "\n",
		"text behind":             lines + "\nThis is a text behind it.\n",
		"text before":             "Some words before it.\n" + lines,
		"a word before":           "word\n\n" + lines,
		"a word before, no break": "abc\n" + lines,
		"no padding in any line":  unpadded(secret, 10),
		"no padding":              strings.TrimRight(b64, "=") + "\n",
	} {
		m["base64 with "+name] = part("XX", cte, body)
	}
	for name, h := range map[string]string{
		"plain": "Content-Transfer-Encoding: quoted-printable\n", "two": "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: quoted-printable\n",
		"comment": "Content-Transfer-Encoding: quoted-printable (x)\n", "folded": "Content-Transfer-Encoding:\n quoted-printable\n", "no field": "",
	} {
		m["quoted-printable, "+name] = part("XX", h, qp(secret))
	}
	m["quoted-printable, lower case"] = part("XX", "Content-Transfer-Encoding: quoted-printable\n", strings.ToLower(strings.TrimSpace(qp(secret[:1])))+secret[1:]+"\n")
	m["quoted-printable, white space behind ="] = part("XX", "Content-Transfer-Encoding: quoted-printable\n", secret[:20]+"= \t\n"+secret[20:]+"\n")
	for name, ct := range map[string]string{
		"unquoted": "boundary=XX", "quoted": `boundary="XX"`, "single quotes": `boundary='XX'`, "RFC 2231": "boundary*=us-ascii''XX",
		"RFC 2231 parts": "boundary*0=X; boundary*1=X", "space around": `boundary = "XX"`, "two": "boundary=YY; boundary=XX", "upper": "BOUNDARY=XX",
		"none": "charset=x", "comment": "boundary=(x)XX", "trailing space": `boundary="XX "`, "prefix": "boundary=X", "longer": "boundary=XXX", "empty": "boundary=",
		"tab": "boundary=\tXX", "folded": "\n boundary=XX",
	} {
		m["boundary "+name] = top + "Content-Type: multipart/mixed; " + ct + "\n\n--XX\nContent-Type: text/plain\n\nHello\n--XX\n" + cte + "\n" + lines + "--XX--\n"
	}
	m["in the preamble"] = top + "Content-Type: multipart/mixed; boundary=XX\n" + cte + "\n" + lines + "\n--XX\n\nHello\n--XX--\n"
	m["in the epilogue"] = top + "Content-Type: multipart/mixed; boundary=XX\n\n--XX\n\nHello\n--XX--\n" + cte + "\n" + lines
	m["no end delimiter"] = strings.TrimSuffix(part("XX", cte, lines), "\n--XX--\n")
	m["no multipart at all"] = top + cte + "\n" + lines
	m["no empty line behind the header"] = top + cte + lines
	m["header line without a colon"] = part("XX", cte+"what is this\n", lines)
	m["nested multipart"] = part("XX", "Content-Type: multipart/mixed; boundary=YY\n", "--YY\n"+cte+"\n"+lines+"--YY--\n")
	m["nested with the same boundary"] = part("XX", "Content-Type: multipart/mixed; boundary=XX\n", "--XX\n"+cte+"\n"+lines+"--XX--\n")
	m["message/rfc822"] = part("XX", "Content-Type: message/rfc822\n", "From: x@example.org\nSubject: inner\n"+cte+"\n"+lines)
	m["two Content-Types"] = part("XX", "Content-Type: text/plain\nContent-Type: application/zip\n"+cte, lines)
	m["1 MB of header"] = strings.Repeat("X-Filler: "+strings.Repeat("a", 60)+"\n", 14_000) + part("XX", cte, lines)
	m["a header line of 1 MB"] = "X-Filler: " + strings.Repeat("a", 1<<20) + "\n" + part("XX", cte, lines)
	m["uuencode"] = top + "\nHello\n\n" + uu(secret) + "\n"
	m["uuencode without an end"] = top + "\n" + strings.TrimSuffix(uu(secret), "`\nend\n")
	m["uuencode, x-uuencode"] = part("XX", "Content-Transfer-Encoding: x-uuencode\n", uu(secret))
	m["uuencode without a beginning"] = part("XX", "Content-Transfer-Encoding:\n x-uuencode\n", strings.TrimPrefix(uu(secret), "begin 644 a.com\n"))
	m["uuencode in base64"] = part("XX", cte, coded(uu(secret)))
	m["uuencode in quoted-printable"] = part("XX", "Content-Transfer-Encoding: quoted-printable\n", qp(uu(secret)))
	m["yEnc in base64"] = part("XX", cte, coded(yEnc(secret)))
	m["BinHex in base64"] = part("XX", cte, coded(binHexed("\x05a.com\x00TEXT"+secret)))
	folded := strings.TrimSuffix(strings.ReplaceAll(wrap(b64, 40), "\n", "\n "), "\n ")
	m["attachment of an appointment"] = part("XX", "Content-Type: text/calendar\n", "BEGIN:VEVENT\nATTACH;ENCODING=BASE64;VALUE=BINARY:"+folded+"\nEND:VEVENT\n")
	m["attachment of an appointment, folded"] = part("XX", "", "attach;X-NAME=\"c:\n \\a.com\";ENCO\n DING=BASE64:\n "+folded+"\nEND:VEVENT\n")
	m["attachment of an appointment in base64"] = part("XX", cte, coded("BEGIN:VEVENT\nATTACH;ENCODING=BASE64;VALUE=BINARY:"+folded+"\nEND:VEVENT\n"))
	m["photo of a card"] = part("XX", "Content-Type: text/vcard\n", "BEGIN:VCARD\nitem1.PHOTO;ENCODING=b:"+folded+"\nEND:VCARD\n")
	inner := "Content-Transfer-Encoding: base64\n\n" + lines
	m["message in base64, one field"] = part("XX", "Content-Type: message/rfc822\n"+cte, coded(inner))
	m["message in base64, a long field first"] = part("XX", "Content-Type: message/rfc822\n"+cte, coded("X-Long: "+strings.Repeat("a", 9000)+"\n"+inner))
	m["message in base64, an empty line first"] = part("XX", "Content-Type: message/rfc822\n"+cte, coded("\n"+top+inner))
	m["message in quoted-printable"] = part("XX", "Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n", qp("From x\n"+top+inner))
	m["multipart in base64"] = part("XX", "Content-Type: multipart/mixed; boundary=YY\n"+cte, coded("A preamble.\n--YY\n"+inner+"--YY--\n"))
	m["begin-base64"] = top + "\nbegin-base64 644 a.com\n" + lines + "====\n"
	m["yEnc"] = top + "\nHello\n" + yEnc(secret)
	m["BinHex"] = top + "\n" + binHexed("\x05a.com\x00TEXT"+secret)
	m["plain 8bit"] = part("XX", "Content-Transfer-Encoding: 8bit\n", secret)
	m["a thousand parts before"] = top + "Content-Type: multipart/mixed; boundary=XX\n\n" + strings.Repeat("--XX\n\nHello\n", 1000) + "--XX\n" + cte + "\n" + lines + "--XX--\n"
	return m
}

func TestConstructs(t *testing.T) {
	all := constructs()
	if len(all) < 60 {
		t.Fatalf("only %d constructs", len(all))
	}
	for name, mail := range all {
		for ends, mail := range map[string]string{"CRLF": crlf(mail), "LF": mail, "CR": strings.ReplaceAll(mail, "\n", "\r")} {
			if ends == "CR" && strings.Contains(name, "yEnc") {
				continue // its data has CR as an escape only
			}
			_, bodies, problems := readings(t, mail)
			found := false
			for _, b := range bodies {
				found = found || strings.Contains(b, secret)
			}
			if !found {
				t.Errorf("%s (%s): not found in %d readings", name, ends, len(bodies))
			}
			if len(problems) > 0 {
				t.Errorf("%s (%s): %v", name, ends, problems)
			}
		}
	}
}

func TestBinaryPartsComeOutByteForByte(t *testing.T) {
	zip := "PK\x03\x04\r\n--no delimiter of ours\r\n\x00\xff\r\n\r\nContent-Type: x\r\n\r\nend"
	mail := crlf(top) + "Content-Type: multipart/mixed; boundary=XX\r\n\r\n--XX\r\nContent-Transfer-Encoding: binary\r\n\r\n" + zip + "\r\n--XX--\r\n"
	_, bodies, _ := readings(t, mail)
	for _, b := range bodies {
		if b == zip || strings.HasSuffix(b, "\r\n\r\n"+zip) {
			return
		}
	}
	t.Errorf("not in %q", bodies)
}

func TestOrdinaryMailHasFewReadings(t *testing.T) {
	body := strings.Repeat("This is an ordinary line of an ordinary mail, with words in it.\n", 100)
	attachment := wrap(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 2, 3, 4, 5, 255}, 5000)), 76)
	mail := crlf(top + "Content-Type: multipart/mixed; boundary=XX\n\n--XX\nContent-Type: text/plain\nContent-Transfer-Encoding: 7bit\n\n" + body +
		"\n--XX\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + attachment + "\n--XX--\n")
	parts, _, problems := readings(t, mail)
	if len(problems) > 0 {
		t.Error(problems)
	}
	// The text, the attachment as it stands, and decoded.
	if len(parts) > 4 {
		for _, p := range parts {
			t.Log(p.Path, p.Blob.Size())
		}
		t.Errorf("%d readings", len(parts))
	}
}

// TestDepthOfReadings: what is deeper than is looked at is told, and nothing less deep is.
func TestDepthOfReadings(t *testing.T) {
	for depth := range maxInner + 4 {
		mail := secret
		for range depth {
			mail = "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + coded(mail)
		}
		_, bodies, problems := readings(t, crlf(top+mail))
		found := slices.ContainsFunc(bodies, func(b string) bool { return strings.Contains(b, secret) })
		if !found && len(problems) == 0 || found && len(problems) > 0 {
			t.Errorf("%d deep: found %v, %v", depth, found, problems)
		}
		if !found && depth <= maxInner {
			t.Errorf("%d deep: not found", depth)
		}
	}
}

func TestPartialIsIncomplete(t *testing.T) {
	_, _, problems := readings(t, crlf(top+"Content-Type: message/partial; id=x; number=1; total=2\n\nHello\n"))
	if len(problems) != 1 || !errors.Is(problems[0].Err, errPartial) {
		t.Errorf("problems: %v", problems)
	}
}

func TestLooks(t *testing.T) {
	for s, want := range map[string]bool{
		top: true, "From: a\nTo: b\n\ntext": true, "Hello: world\n": false, "": false, "PK\x03\x04": false, "<html>": false, "key: value\nother: 1\n": false,
		"\r\n\nFrom: a\nTo: b\n": true, "\n\n": false, "From: a\nTo: b\nSubject: c\ntext": true, "From: a\nTo: b\ntext": false, "From a\nFrom: a\nTo: b\n": false,
	} {
		if got := Looks([]byte(s)); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
	for s, want := range map[string]bool{
		"From a\nFrom: a\nTo: b\n": true, "From a@b Mon\r\nReceived: x\r\n\r\ntext": true, "From here on\nthere is text": false, "From: a\nTo: b\n": false, "From ": false,
	} {
		if got := LooksMailbox([]byte(s)); got != want {
			t.Errorf("a mailbox, %q: %v", s, got)
		}
	}
}

func FuzzFind(f *testing.F) {
	for _, mail := range constructs() {
		if len(mail) < 10_000 {
			f.Add(mail)
		}
	}
	f.Fuzz(func(t *testing.T, mail string) { readings(t, mail) })
}

func BenchmarkFind(b *testing.B) {
	body := strings.Repeat("This is an ordinary line of an ordinary mail, with words in it.\n", 300)
	attachment := wrap(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 2, 3, 4, 5, 255}, 10_000)), 76)
	mail := crlf(top + "Content-Type: multipart/mixed; boundary=XX\n\n--XX\nContent-Type: text/plain\n\n" + body +
		"\n--XX\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + attachment + "\n--XX--\n")
	p := pool(b)
	blob, err := p.Of([]byte(mail))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(mail)))
	for b.Loop() {
		Find(context.Background(), p, blob, content.Default(), func(content.Part) error { return nil })
	}
}

// BenchmarkFindHostile has mails that cost the most for their size: each must stay within a few times the others.
func BenchmarkFindHostile(b *testing.B) {
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, "Content-Type: multipart/mixed; boundary=B%d\n", i)
	}
	for name, line := range map[string]string{
		"empty lines": "\n", "one character a line": "a\n", "lone CR": "\r", "uuencode begins": "begin 644 a\n",
		"junk in base64": "--!\n" + strings.Repeat("QUJD", 15) + "\n", "parts in nothing": "--!\nContent-Transfer-Encoding: base64\n\nQUJD\n",
		"long lines that could be delimiters": "--" + strings.Repeat("Xa", 30_000) + "\n",
	} {
		b.Run(name, func(b *testing.B) {
			p := pool(b)
			blob, err := p.Of([]byte(top + many.String() + "\n" + strings.Repeat(line, (1<<20)/len(line))))
			if err != nil {
				b.Fatal(err)
			}
			defer blob.Close()
			b.SetBytes(blob.Size())
			for b.Loop() {
				Find(context.Background(), p, blob, content.Default(), func(content.Part) error { return nil })
			}
		})
	}
}
