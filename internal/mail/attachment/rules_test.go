package attachment

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"testing"

	"lazaret/internal/content"
	"lazaret/internal/filetype"
	"lazaret/internal/spool"
)

func newPool(t testing.TB) *spool.Pool {
	t.Helper()
	c := spool.Default()
	c.Dir, c.MinFree = t.TempDir(), 0
	p, err := spool.NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// program returns the beginning of a Windows program.
func program() []byte {
	b := make([]byte, 512)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00\x4c\x01")
	binary.LittleEndian.PutUint16(b[0x80+20:], 0xe0)
	return b
}

func TestProgramIsOne(t *testing.T) {
	b := program()
	if i := filetype.Of("", bytes.NewReader(b), int64(len(b))); !i.Is(filetype.Executable) {
		t.Fatalf("it is %+v: the tests see nothing", i)
	}
}

func wrapped(b []byte) string {
	var out strings.Builder
	for s := base64.StdEncoding.EncodeToString(b); len(s) > 0; {
		n := min(76, len(s))
		out.WriteString(s[:n] + "\r\n")
		s = s[n:]
	}
	return out.String()
}

const head = "Received: from a by b\r\nFrom: a@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\n"

// mixed returns a mail with a text, a part with these fields and this body, and a text behind it.
func mixed(fields, body string) string {
	return head + "Content-Type: multipart/mixed; boundary=\"b1\"\r\n\r\npreamble\r\n--b1\r\nContent-Type: text/plain\r\n\r\nHello\r\n" +
		"--b1\r\n" + fields + "\r\n" + body + "--b1\r\nContent-Type: text/plain\r\n\r\nBye\r\n--b1--\r\n"
}

func attached(name string) string {
	return "Content-Type: application/octet-stream; name=\"" + name + "\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"" + name + "\"\r\n"
}

type did struct {
	Outcome
	text string
}

// apply applies the rules of cfg to a mail.
func apply(t testing.TB, cfg Config, text string) did {
	t.Helper()
	if cfg.Suffix == "" {
		cfg.Suffix = ".txt"
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t)
	b, err := pool.Of([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Apply(context.Background(), Tools{Pool: pool, Limits: content.Default(), Note: func(h Hit) string { return "taken out: " + h.Name + " (" + h.Rule + ") é" }}, b)
	if err != nil {
		t.Fatal(err)
	}
	d := did{Outcome: out}
	if out.Body != nil {
		all, err := io.ReadAll(out.Body.NewReader())
		if err != nil {
			t.Fatal(err)
		}
		d.text = string(all)
		_ = out.Body.Close()
		if out.Body == b && d.text != text {
			t.Fatal("the mail itself was changed")
		}
	}
	if out.Body != b {
		_ = b.Close()
	}
	if u := pool.Usage(); u.Memory+u.Disk != 0 {
		t.Errorf("%+v is still held", u)
	}
	return d
}

var programs = []string{filetype.Executable}

func TestStripLeavesTheRestAlone(t *testing.T) {
	fields, body := attached("setup.exe"), wrapped(program())
	text := mixed(fields, body)
	got := apply(t, Config{Strip: programs}, text)
	want := strings.Replace(text, fields+"\r\n"+body, "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n\r\n"+
		"taken out: setup.exe (executable) =C3=A9\r\n", 1)
	if got.text != want || len(got.Stripped) != 1 || got.Stripped[0].Name != "setup.exe" {
		t.Errorf("got %+v:\n%s", got.Outcome, got.text)
	}
}

func TestRename(t *testing.T) {
	body := wrapped(program())
	got := apply(t, Config{Rename: programs}, mixed(attached("setup.exe"), body))
	want := mixed("Content-Transfer-Encoding: base64\r\nContent-Type: application/octet-stream;\r\n\tname=\"setup.exe.txt\"\r\nContent-Disposition: attachment;\r\n\tfilename=\"setup.exe.txt\"\r\n", body)
	if got.text != want || len(got.Renamed) != 1 {
		t.Errorf("got %+v:\n%s", got.Outcome, got.text)
	}
	got = apply(t, Config{Rename: programs}, mixed("Content-Type: application/octet-stream; name=\"=?utf-8?Q?=C3=A9t=C3=A9.exe?=\"\r\nContent-Transfer-Encoding: base64\r\n", body))
	if !strings.Contains(got.text, "\tfilename*=utf-8''%C3%A9t%C3%A9.exe.txt\r\n") {
		t.Errorf("got:\n%s", got.text)
	}
	got = apply(t, Config{Rename: programs, Suffix: ".bad"}, mixed("Content-Transfer-Encoding: base64\r\n", body))
	if !strings.Contains(got.text, "filename=\"attachment.bad\"") {
		t.Errorf("got:\n%s", got.text)
	}
}

func TestReplaceAndTheStrongerActionWins(t *testing.T) {
	text := mixed(attached("setup.exe"), wrapped(program()))
	got := apply(t, Config{Rename: programs, Strip: []string{"*.exe"}, Replace: []string{"pe"}}, text)
	if got.Replace == nil || got.Replace.Name != "setup.exe" || got.Body != nil {
		t.Errorf("got %+v", got.Outcome)
	}
}

// TestWhatIsNoAttachmentStaysAsItIs: mails that no rule is about, odd ones among them, byte for byte.
func TestWhatIsNoAttachmentStaysAsItIs(t *testing.T) {
	cfg := Config{Strip: []string{"executable", "script", "macro", "*.exe", doubleExtension, deceptiveName}}
	for name, text := range map[string]string{
		"plain text":          head + "\r\nHello\r\n",
		"a picture":           mixed(attached("a.png"), wrapped([]byte("\x89PNG\r\n\x1a\n0000IHDR"))),
		"a text about a name": head + "\r\nsee filename=\"setup.exe\", run setup.exe\r\n",
		"bare line feeds":     strings.ReplaceAll(mixed(attached("a.png"), wrapped([]byte("\x89PNG\r\n\x1a\n0000IHDR"))), "\r\n", "\n"),
		"no end":              strings.TrimSuffix(mixed(attached("a.png"), wrapped([]byte("x"))), "--b1--\r\n"),
		"no header":           "\r\nx",
		"nothing":             "",
		"header alone":        "Subject: x\r\n",
		"two dots":            mixed(attached("report.v2.pdf"), wrapped([]byte("%PDF-1.7"))),
		"an archive's name":   mixed(attached("backup.tar.gz"), wrapped([]byte("\x1f\x8b\x08"))),
	} {
		if got := apply(t, cfg, text); got.text != text || got.Replace != nil {
			t.Errorf("%s: %+v\n%s", name, got.Outcome, got.text)
		}
	}
	var none *Rules
	if out, err := none.Apply(context.Background(), Tools{}, nil); err != nil || out.Replace != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestNamesThatHideWhatTheyAre: each way of writing a name that some mail program shows as one of a program.
func TestNamesThatHideWhatTheyAre(t *testing.T) {
	d := "Content-Type: text/plain\r\nContent-Disposition: attachment; "
	for name, v := range map[string]struct{ rule, fields string }{
		"in capitals":                 {"*.exe", attached("SETUP.EXE")},
		"in Content-Type alone":       {"*.exe", "Content-Type: text/plain; name=setup.exe\r\n"},
		"dot at the end":              {"*.exe", attached("setup.exe.")},
		"dots and spaces at the end":  {"*.exe", attached("setup.exe. . ")},
		"a path":                      {"*.exe", attached(`..\\..\\setup.exe`)},
		"a stream":                    {"*.exe", attached("setup.exe:x.txt")},
		"RFC 2047":                    {"*.exe", attached("=?utf-8?B?c2V0dXAuZXhl?=")},
		"RFC 2231":                    {"*.exe", d + "filename*=utf-8''setup%2Eexe\r\n"},
		"RFC 2231 in pieces":          {"*.exe", d + "filename*0=\"setup.e\"; filename*1=\"xe\"\r\n"},
		"RFC 2231 in encoded pieces":  {"*.exe", d + "filename*0*=utf-8''setup%2E; filename*1=\"exe\"\r\n"},
		"RFC 2231 in disorder":        {"*.exe", d + "filename*1=\"exe\"; filename*0=\"setup.\"\r\n"},
		"conflict of two forms":       {"*.exe", d + "filename=\"a.txt\"; filename*=utf-8''setup.exe\r\n"},
		"conflict of two fields":      {"*.exe", "Content-Type: text/plain; name=setup.exe\r\nContent-Disposition: attachment; filename=a.txt\r\n"},
		"RTLO":                        {deceptiveName, attached("=?utf-8?Q?invoice=E2=80=AEfdp.exe?=")},
		"RTLO, the name behind":       {"*.exe", attached("=?utf-8?Q?invoice=E2=80=AEfdp.exe?=")},
		"isolates":                    {deceptiveName, d + "filename*=utf-8''a%E2%81%A6.txt\r\n"},
		"zero width":                  {deceptiveName, d + "filename*=utf-8''a.e%E2%80%8Bxe\r\n"},
		"zero width, the name behind": {"*.exe", d + "filename*=utf-8''a.e%E2%80%8Bxe\r\n"},
		"many spaces":                 {deceptiveName, attached("invoice.pdf                    .exe")},
		"space at the end":            {deceptiveName, attached("invoice.pdf ")},
		"contradiction":               {deceptiveName, d + "filename=\"a.txt\"; filename*=utf-8''a.exe\r\n"},
		"double extension":            {doubleExtension, attached("invoice.pdf.exe")},
		"double extension, spaces":    {doubleExtension, attached("invoice.pdf   .scr")},
		"double extension, dot":       {doubleExtension, attached("invoice.doc.js.")},
	} {
		body := "x\r\n"
		if strings.Contains(v.fields, "base64") {
			body = wrapped([]byte("harmless"))
		}
		got := apply(t, Config{Strip: []string{v.rule}}, mixed(v.fields, body))
		if len(got.Stripped) != 1 && got.Replace == nil || strings.Contains(got.text, body+"--b1") {
			t.Errorf("%s: it came through: %+v\n%s", name, got.Outcome, got.text)
		}
	}
}

// TestPartsThatParsersDisagreeAbout: a program where some mail program finds it and a strict parser does not, or elsewhere.
func TestPartsThatParsersDisagreeAbout(t *testing.T) {
	b64, fields := wrapped(program()), attached("a.bin")
	uu := "begin 644 a.bin\r\n" + uuencoded(program()) + "`\r\nend\r\n"
	for name, text := range map[string]string{
		"in the preamble":               strings.Replace(mixed("", "x\r\n"), "preamble", "--b2\r\n"+fields+"\r\n"+b64+"--b2--", 1),
		"in the epilogue":               mixed("", "x\r\n") + "--b2\r\n" + fields + "\r\n" + b64,
		"two Content-Types":             strings.Replace(mixed(fields, b64), "Content-Type: multipart", "Content-Type: text/plain\r\nContent-Type: multipart", 1),
		"two encodings":                 mixed("Content-Transfer-Encoding: 7bit\r\n"+fields, b64),
		"unknown encoding":              mixed("Content-Transfer-Encoding: base-64\r\nContent-Type: application/octet-stream\r\n", b64),
		"a comment in the encoding":     mixed("Content-Transfer-Encoding: base64 (really)\r\n", b64),
		"boundary in pieces":            strings.Replace(mixed(fields, b64), "boundary=\"b1\"", "boundary*0=b; boundary*1=1", 1),
		"two boundaries":                strings.Replace(mixed(fields, b64), "boundary=\"b1\"", "boundary=zz; boundary=\"b1\"", 1),
		"a delimiter with more":         strings.Replace(mixed("Content-Type: text/plain\r\n", "x\r\n--b1x\r\n"+fields+"\r\n"+b64), "preamble", "", 1),
		"junk in base64":                mixed(fields, "!!!!"+b64),
		"base64 behind its end":         mixed(fields, b64+"aGVsbG8=\r\n"),
		"uuencode in a text":            mixed("Content-Type: text/plain\r\n", uu),
		"bare line feeds":               strings.ReplaceAll(mixed(fields, b64), "\r\n", "\n"),
		"no empty line behind the head": strings.Replace(mixed(fields, b64), "base64\r\nContent-Disposition: attachment; filename=\"a.bin\"\r\n\r\n", "base64\r\n \r\n", 1),
		"a space before the colon":      mixed("Content-Transfer-Encoding : base64\r\n", b64),
		"an encoded message":            mixed("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n", wrapped([]byte(mixed(fields, b64)))),
		"no multipart end":              strings.TrimSuffix(mixed(fields, b64), "--b1--\r\n"),
		"declared to be a text":         mixed("Content-Type: text/plain\r\n", b64),
	} {
		for rule, cfg := range map[string]Config{"strip": {Strip: programs}, "rename": {Rename: programs}} {
			got := apply(t, cfg, text)
			if got.Replace == nil {
				t.Errorf("%s, %s: it came through: %+v\n%s", name, rule, got.Outcome, got.text)
			}
		}
	}
}

func uuencoded(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		n := min(45, len(b))
		line := append(bytes.Clone(b[:n]), 0, 0)
		out.WriteByte(byte(n) + ' ')
		for i := 0; i < n; i += 3 {
			v := uint(line[i])<<16 | uint(line[i+1])<<8 | uint(line[i+2])
			for s := 18; s >= 0; s -= 6 {
				c := byte(v>>s) & 63
				if c == 0 {
					c = '`' - ' '
				}
				out.WriteByte(c + ' ')
			}
		}
		out.WriteString("\r\n")
		b = b[n:]
	}
	return out.String()
}

func TestNamesInOddMails(t *testing.T) {
	for name, text := range map[string]string{
		"odd header":          strings.ReplaceAll(mixed(attached("setup.exe"), wrapped([]byte("x"))), "\r\n", "\n"),
		"two fields":          mixed("Content-Disposition: inline\r\n"+attached("setup.exe"), wrapped([]byte("x"))),
		"encoded":             mixed("Content-Disposition: inline\r\n"+attached("=?utf-8?B?c2V0dXAuZXhl?="), wrapped([]byte("x"))),
		"uuencode in a text":  head + "\r\nbegin 644 setup.exe\r\n#>'AX\r\n`\r\nend\r\n",
		"in an encoded mail":  mixed("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n", wrapped([]byte(mixed(attached("setup.exe"), "eA==\r\n")))),
		"unquoted and spaced": mixed("Content-Disposition: attachment; filename = setup.exe\r\n", "x\r\n"),
	} {
		if got := apply(t, Config{Strip: []string{"*.exe"}}, text); got.Replace == nil {
			t.Errorf("%s: %+v\n%s", name, got.Outcome, got.text)
		}
	}
}

// Many names do not hide one.
func TestManyNames(t *testing.T) {
	var junk, numbered, line strings.Builder
	for i := range 25 {
		fmt.Fprintf(&junk, ";\r\n name*%c=j%d.txt", 'a'+i, i)
		fmt.Fprintf(&numbered, "; filename*%d*=utf-8''j%d.txt", i, i)
		fmt.Fprintf(&line, "; name*%c=j%d.txt", 'a'+i, i)
	}
	for _, fields := range []string{
		"Content-Disposition: attachment" + junk.String() + ";\r\n filename=\"a.exe\"\r\n",
		"Content-Disposition: attachment" + line.String() + "; filename=\"a.exe\"\r\n",
		"Content-Disposition: attachment" + line.String() + "; name*x=\"a.exe\"\r\n",
		"Content-Disposition: attachment" + numbered.String() + "; filename=\"a.exe\"\r\n",
		"Content-Disposition: attachment" + line.String() + "; filename*0=\"a.e\"; filename*1=\"xe\"\r\n",
	} {
		if got := apply(t, Config{Strip: []string{"*.exe"}}, mixed(fields, "x\r\n")); got.Replace == nil && len(got.Stripped) == 0 {
			t.Errorf("it came through: %+v\n%s", got.Outcome, fields)
		}
	}
	var params []param
	for i := range maxNames + 1 {
		params = append(params, param{fmt.Sprintf("filename*x%d", i), fmt.Sprintf("j%d.txt", i)})
	}
	names, all := namesOf(append(params, param{"filename", "a.exe"}))
	if all || names[0] != "a.exe" {
		t.Errorf("all: %v, of %q", all, names)
	}
}

func TestNestedMessage(t *testing.T) {
	fields, body := attached("setup.exe"), wrapped(program())
	inner := strings.ReplaceAll(mixed(fields, body), "b1", "inner")
	text := mixed("Content-Type: message/rfc822\r\n", inner)
	got := apply(t, Config{Strip: programs}, text)
	if len(got.Stripped) != 1 || strings.Contains(got.text, body) {
		t.Fatalf("got %+v:\n%s", got.Outcome, got.text)
	}
	before, _, _ := strings.Cut(text, fields)
	_, after, _ := strings.Cut(text, body)
	if !strings.HasPrefix(got.text, before) || !strings.HasSuffix(got.text, after) {
		t.Errorf("the rest was changed:\n%s", got.text)
	}
	// The attachment is the nested message itself.
	single := head + fields + "\r\n" + body
	got = apply(t, Config{Strip: programs}, mixed("Content-Type: message/rfc822\r\n", single))
	if len(got.Stripped) != 1 || strings.Contains(got.text, "setup.exe\"") || strings.Contains(got.text, body) || strings.Count(got.text, "Subject: x\r\n") != 2 {
		t.Errorf("got %+v:\n%s", got.Outcome, got.text)
	}
}

func TestMailThatIsTheAttachment(t *testing.T) {
	text := head + attached("setup.exe") + "\r\n" + wrapped(program())
	got := apply(t, Config{Strip: programs}, text)
	want := head + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n\r\ntaken out: setup.exe (executable) =C3=A9\r\n"
	if got.text != want {
		t.Errorf("got:\n%s", got.text)
	}
	got = apply(t, Config{Rename: programs}, text)
	if m, err := mail.ReadMessage(strings.NewReader(got.text)); err != nil || !strings.Contains(m.Header.Get("Content-Type"), "setup.exe.txt") || len(m.Header["Content-Type"]) != 1 {
		t.Errorf("%v:\n%s", err, got.text)
	}
}

func TestBombs(t *testing.T) {
	parts := head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 10000) + "--b\r\n" + attached("setup.exe") + "\r\n" + wrapped(program()) + "--b--\r\n"
	if got := apply(t, Config{Strip: programs}, parts); got.Replace == nil {
		t.Errorf("10,000 parts: %+v", got.Outcome)
	}
	deep := head
	for range 200 {
		deep += "Content-Type: message/rfc822\r\n\r\n"
	}
	if got := apply(t, Config{Strip: programs}, deep+attached("setup.exe")+"\r\n"+wrapped(program())); got.Replace == nil {
		t.Errorf("depth 200: %+v", got.Outcome)
	}
	params := head + "Content-Type: multipart/mixed" + strings.Repeat(";\r\n a=b", 20000) + "; boundary=b1\r\n\r\n--b1\r\n" + attached("setup.exe") + "\r\n" + wrapped(program()) + "--b1--\r\n"
	if got := apply(t, Config{Strip: programs}, params); got.Replace == nil {
		t.Errorf("20,000 parameters: %+v", got.Outcome)
	}
	nested := mixed(attached("setup.exe"), wrapped(program()))
	for range 8 {
		nested = mixed("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n", wrapped([]byte(nested)))
	}
	if got := apply(t, Config{Strip: programs}, nested); got.Replace == nil {
		t.Errorf("mails encoded in mails: %+v", got.Outcome)
	}
	long := head + "X: " + strings.Repeat("x", 1<<20) + "\r\n" + attached("setup.exe") + "\r\n" + wrapped(program())
	if got := apply(t, Config{Strip: programs}, long); got.Replace == nil {
		t.Errorf("a header of 1 MB: %+v", got.Outcome)
	}
}

// FuzzApply: whatever the mail, what is delivered has no reading with a program in it, and parsers of others can read the
// edited ones.
func FuzzApply(f *testing.F) {
	f.Add([]byte(mixed(attached("setup.exe"), wrapped(program()))))
	f.Add([]byte(mixed("Content-Type: message/rfc822\r\n", mixed(attached("setup.exe"), wrapped(program())))))
	f.Add([]byte(head + attached("setup.exe") + "\r\n" + wrapped(program())))
	f.Add([]byte(strings.ReplaceAll(mixed(attached("setup.exe"), wrapped(program())), "\r\n", "\n")))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := apply(t, Config{Strip: programs}, string(b))
		if got.Replace != nil {
			return
		}
		again := apply(t, Config{Strip: programs}, got.text)
		if again.Replace != nil || len(again.Stripped) > 0 {
			t.Fatalf("there is something left: %+v\n%q\n%q", again.Outcome, b, got.text)
		}
		if len(got.Stripped) == 0 {
			if got.text != string(b) {
				t.Fatalf("it was changed:\n%q\n%q", b, got.text)
			}
			return
		}
		m, err := mail.ReadMessage(strings.NewReader(got.text))
		if err != nil {
			return // it was no better before
		}
		if typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type")); err == nil && strings.HasPrefix(typ, "multipart/") {
			if _, err := multipart.NewReader(m.Body, params["boundary"]).NextRawPart(); err != nil {
				t.Fatalf("%v:\n%q", err, got.text)
			}
		}
	})
}

func TestValidate(t *testing.T) {
	for key, c := range map[string]Config{
		"rename":  {Rename: []string{"executables"}, Suffix: ".txt"},
		"strip":   {Strip: []string{"[.exe"}, Suffix: ".txt"},
		"replace": {Replace: []string{""}, Suffix: ".txt"},
		"suffix":  {Suffix: "/../x"},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if r, err := New(Default()); err != nil || r != nil {
		t.Errorf("%v, %v", r, err)
	}
}
