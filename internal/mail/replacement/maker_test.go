package replacement

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lazaret/internal/mail/header"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

func newMaker(t testing.TB, cfg Config) *Maker {
	t.Helper()
	r, err := notice.New(notice.Default())
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(cfg, r, "en", "1.2")
	if err != nil {
		t.Fatal(err)
	}
	m.host, m.domain = "gate", "example.org"
	return m
}

const kept = "Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0200\r\nFrom: Grace <grace@example.org>\r\nTo: ada@example.net\r\n" +
	"Date: Mon, 1 Jun 2026 10:00:00 +0200\r\nMessage-ID: <1@example.org>\r\n"

func infected() Mail {
	return Mail{
		Head:   []byte(kept + "Subject: =?iso-8859-1?Q?caf=E9?=\r\nContent-Type: text/plain\r\n\r\nthe body is secret\r\n"),
		Kept:   []byte(kept),
		Client: netip.MustParseAddrPort("192.0.2.7:4711"), Server: netip.MustParseAddrPort("198.51.100.1:110"),
		Notice: notice.Notice{
			Reference: "4FJ2-9QX0-K7", Kind: notice.Infected, Time: time.Unix(1780000000, 0),
			Facts:   policy.Facts{Protocol: "pop3", Client: netip.MustParseAddr("192.0.2.7"), User: "ada", Host: "pop.example.org:110"},
			Verdict: scan.Verdict{Outcome: scan.Infected, Findings: []scan.Finding{{Engine: "clamd", Signature: "Eicar-Signature"}}},
		},
	}
}

// read parses a notice the way that a mail program does, and returns its header and its texts by media type.
func read(t testing.TB, b []byte) (mail.Header, map[string]string) {
	t.Helper()
	if i := bytes.IndexFunc(bytes.ReplaceAll(b, []byte("\r\n"), nil), func(r rune) bool { return r == '\r' || r == '\n' }); i >= 0 {
		t.Fatalf("a bare line end:\n%q", b)
	}
	for line := range bytes.Lines(b) {
		if len(line) > 1000 {
			t.Fatalf("a line of %d bytes", len(line))
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	out := map[string]string{}
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatalf("%v:\n%s", err, b)
	}
	if !strings.HasPrefix(typ, "multipart/") {
		text, err := decode(m.Header.Get("Content-Transfer-Encoding"), must(io.ReadAll(m.Body)))
		if err != nil || params["charset"] != "utf-8" {
			t.Fatalf("%v, %v", err, params)
		}
		out[typ] = string(text)
		return m.Header, out
	}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := r.NextPart() // decodes quoted-printable
		if errors.Is(err, io.EOF) {
			return m.Header, out
		}
		if err != nil {
			t.Fatal(err)
		}
		typ, params, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil || params["charset"] != "utf-8" {
			t.Fatalf("%v, %v", err, params)
		}
		out[typ] = string(must(io.ReadAll(p)))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNoticeInEveryLanguage(t *testing.T) {
	if len(locales) != 7 {
		t.Fatalf("%d languages", len(locales))
	}
	for lang, l := range locales {
		x := infected()
		b := newMaker(t, Config{Language: lang}).Make(x)
		if !bytes.HasPrefix(b, []byte(kept)) {
			t.Errorf("%s: it does not begin with what was kept:\n%s", lang, b)
		}
		h, parts := read(t, b)
		if got := header.Decode(h.Get("Subject")); got != l.infected+" Eicar-Signature" {
			t.Errorf("%s: the subject is %q", lang, got)
		}
		if len(h["From"]) != 1 || len(h["Date"]) != 1 || h.Get("Content-Language") != lang {
			t.Errorf("%s: header %v", lang, h)
		}
		for _, typ := range []string{"text/plain", "text/html"} {
			for _, want := range []string{l.virus, "Eicar-Signature", "grace@example.org", "ada@example.net", "1 Jun 2026", "café", "198.51.100.1", "192.0.2.7:4711", "4FJ2-9QX0-K7"} {
				if !strings.Contains(parts[typ], want) {
					t.Errorf("%s: %s has no %q:\n%s", lang, typ, want, parts[typ])
				}
			}
			if strings.Contains(parts[typ], "secret") {
				t.Errorf("%s: the original's body is in %s", lang, typ)
			}
		}
		x.Notice.Quarantine = "Q-17"
		if _, parts := read(t, newMaker(t, Config{Language: lang}).Make(x)); !strings.Contains(parts["text/plain"], "Q-17") || strings.Contains(parts["text/plain"], l.deleted) {
			t.Errorf("%s: no reference of the quarantine:\n%s", lang, parts["text/plain"])
		}
	}
}

func TestNoteOfWhatWasRemoved(t *testing.T) {
	for lang := range locales {
		got := newMaker(t, Config{Language: lang}).Removed([]byte(kept), notice.Notice{Reference: "R-1"}, "a\r\n\u202eexe.txt", "executable")
		if strings.ContainsAny(got, "\r\n\u202e%") || !strings.Contains(got, `a\u000d\u000a\u202eexe.txt`) || !strings.Contains(got, "executable") || !strings.Contains(got, "R-1") {
			t.Errorf("%s: %q", lang, got)
		}
	}
}

func TestOtherKinds(t *testing.T) {
	x := infected()
	x.Notice.Kind, x.Notice.Verdict = notice.NotScanned, scan.IncompleteVerdict(scan.Encrypted, "")
	h, parts := read(t, newMaker(t, Config{Language: "fr", Template: sarge(t)}).Make(x))
	if got := header.Decode(h.Get("Subject")); got != locales["fr"].notScanned+" encrypted" {
		t.Errorf("subject %q", got)
	}
	if !strings.Contains(parts["text/plain"], "mot de passe") || strings.Contains(parts["text/html"], "VIRUS") {
		t.Errorf("it does not say why:\n%s", parts["text/plain"])
	}
	x.Notice.Kind, x.Notice.Fault = notice.NotAllowed, "setup.exe"
	if h, _ := read(t, newMaker(t, Config{}).Make(x)); header.Decode(h.Get("Subject")) != locales["en"].notAllowed+" setup.exe" {
		t.Errorf("subject %q", h.Get("Subject"))
	}
}

func TestFieldsThatAreMissing(t *testing.T) {
	x := infected()
	x.Kept, x.Head = nil, []byte("\r\n")
	h, _ := read(t, newMaker(t, Config{}).Make(x))
	if h.Get("From") != "Mail gateway <postmaster@gate.example.org>" || h.Get("To") == "" {
		t.Errorf("header %v", h)
	}
	if _, err := h.Date(); err != nil {
		t.Errorf("date: %v", err)
	}
}

func TestLanguageOfTheRecipient(t *testing.T) {
	for _, v := range []struct {
		name   string
		cfg    Config
		fields string
		user   string
		want   string
	}{
		{"last resort", Config{}, "", "ada", "en"},
		{"configured", Config{Language: "fr"}, "Content-Language: de\r\n", "ada", "fr"},
		{"by the mail", Config{}, "Content-Language: de-AT\r\n", "ada", "de"},
		{"by the mail, second choice", Config{}, "Accept-Language: ja, it;q=0.8\r\n", "ada", "it"},
		{"by the mail, nonsense", Config{}, "Content-Language: \x01,,;;q=\r\n", "ada", "en"},
		{"by domain", Config{Language: "de", Recipients: []string{"example.net = nl"}}, "", "ada", "nl"},
		{"by a domain above", Config{Recipients: []string{"*.net=es"}}, "", "ada", "es"},
		{"by login", Config{Recipients: []string{"ada=pt", "example.net=nl"}}, "", "ada", "pt"},
		{"another domain", Config{Recipients: []string{"ample.net=nl"}}, "", "ada", "en"},
	} {
		t.Run(v.name, func(t *testing.T) {
			x := infected()
			x.Head, x.Notice.Facts.User = append([]byte(v.fields), x.Head...), v.user
			h, _ := read(t, newMaker(t, v.cfg).Make(x))
			if got := h.Get("Content-Language"); got != v.want {
				t.Errorf("got %q, want %q", got, v.want)
			}
		})
	}
}

// sarge writes a template as Debian's p3scan had it in French: ISO 8859-1, folded Content-Type, a lone dot at the end.
func sarge(t testing.TB) string {
	t.Helper()
	text := "MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\nContent-Type: text/plain;\n        charset=\"iso-8859-1\"\n\n" +
		"Bonjour %USERNAME%.\n\nCe message a \xe9t\xe9 g\xe9n\xe9r\xe9 par %PROGNAME%, sur %HOSTNAME%.%DOMAINNAME%.\n" +
		"Il contenait un VIRUS !\n\nNom du virus: %VIRUSNAME% (%VDINFO%)\nExp\xe9diteur: %MAILFROM%\nDestinataire: %MAILTO%\nDate: %MAILDATE%\n" +
		"Sujet: %SUBJECT%\nConnexion: %PROTOCOL% de %SERVERIP%:%SERVERPORT% vers %CLIENTIP%:%CLIENTPORT%\nFichier: %MAILFILE%\n100%% %NOSUCH% %virusname%\n--\n%P3SCANID% %VERSION%\n.\n"
	name := filepath.Join(t.TempDir(), "p3scan.mail")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTemplateOfP3Scan(t *testing.T) {
	m := newMaker(t, Config{Template: sarge(t), Subject: "[virus] dans un message pour vous:", Deleted: "Pour information, le message a été détruit."})
	h, parts := read(t, m.Make(infected()))
	want := "Bonjour ada.\r\n\r\nCe message a été généré par Lazaret, sur gate.example.org.\r\nIl contenait un VIRUS !\r\n\r\nNom du virus: Eicar-Signature (clamd)\r\n" +
		"Expéditeur: Grace <grace@example.org>\r\nDestinataire: ada@example.net\r\nDate: Mon, 1 Jun 2026 10:00:00 +0200\r\nSujet: café\r\n" +
		"Connexion: POP3 de 198.51.100.1:110 vers 192.0.2.7:4711\r\nFichier: Pour information, le message a été détruit.\r\n100%% %NOSUCH% %virusname%\r\n--\r\nLazaret 1.2 1.2\r\n"
	if got := parts["text/plain"]; got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := header.Decode(h.Get("Subject")); got != "[virus] dans un message pour vous: Eicar-Signature" {
		t.Errorf("subject %q", got)
	}
}

func TestTemplateWithASubjectOfItsOwn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "t")
	if err := os.WriteFile(name, []byte("Subject: %VIRUSNAME% à vous: %SUBJECT%\r\nFrom: forged@example.org\r\nX-Virus: %VIRUSNAME%\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>%SUBJECT%</p>\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, parts := read(t, newMaker(t, Config{Template: name}).Make(infected()))
	if len(h["Subject"]) != 1 || header.Decode(h.Get("Subject")) != "Eicar-Signature à vous: café" || h.Get("X-Virus") != "Eicar-Signature" {
		t.Errorf("header %v", h)
	}
	if len(h["From"]) != 1 || parts["text/html"] != "<p>café</p>\r\n" {
		t.Errorf("%v, %q", h["From"], parts)
	}
}

func TestTemplateOfSeveralParts(t *testing.T) {
	name := filepath.Join(t.TempDir(), "t")
	text := "Content-Type: multipart/alternative; boundary=x\n\n--x\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n%VIRUSNAME% =E9\n" +
		"--x\nContent-Type: text/html; charset=utf-8\n\n<b>%VIRUSNAME%</b>\n--x--\n.\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	x := infected()
	x.Notice.Verdict.Findings[0].Signature = "<script>1</script>"
	_, parts := read(t, newMaker(t, Config{Template: name}).Make(x))
	if parts["text/plain"] != "<script>1</script> é\r\n" || parts["text/html"] != "<b>&lt;script&gt;1&lt;/script&gt;</b>\r\n" {
		t.Errorf("got %q", parts)
	}
}

func TestTemplatesThatCannotBeUsed(t *testing.T) {
	for name, text := range map[string]string{
		"no empty line": "Subject: x\n",
		"no header":     "Hello\n\nyou\n",
		"charset":       "Content-Type: text/plain; charset=klingon\n\nx\n",
		"not that":      "Content-Type: text/plain; charset=utf-8\n\n\xe9\n",
		"no boundary":   "Content-Type: multipart/mixed\n\nx\n",
		"no parts":      "Content-Type: multipart/mixed; boundary=x\n\n--x--\n",
		"encoding":      "Content-Transfer-Encoding: rot13\n\nx\n",
	} {
		if _, err := parseTemplate([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// hostile are values that nobody should be able to make anything else of.
var hostile = []string{
	"x\r\nBcc: victim@example.org\r\n\r\n<h1>body</h1>",
	"x\nX-Injected: yes",
	"=?utf-8?Q?x=0D=0AX-Injected:_yes?=",
	"=?utf-8?B?PHNjcmlwdD4=?=alert(1)",
	"<script>alert(1)</script>",
	"\"><img src=x onerror=alert(1)>",
	"invoice\u202efdp.exe",
	"%VIRUSNAME%%MAILFROM%",
	"\x00\x1b[2J",
	strings.Repeat("A", 5000),
	strings.Repeat("é", 5000),
	"\xff\xfe",
	"\r\n.\r\n",
}

// TestMacrosAreData: each macro that comes from outside, with each hostile value, in the built-in notice and in templates.
func TestMacrosAreData(t *testing.T) {
	dir := t.TempDir()
	all := "%MAILDATE% %MAILFROM% %MAILTO% %SUBJECT% %USERNAME% %VIRUSNAME% %VDINFO% %SERVERIP% %MAILFILE% %PROTOCOL%"
	for name, text := range map[string]string{
		"plain": "Subject: " + all + "\nX-All: " + all + "\nContent-Type: text/plain; charset=utf-8\n\n" + all + "\n",
		"html":  "Subject: " + all + "\nContent-Type: text/html; charset=utf-8\n\n<p title=\"" + all + "\">" + all + "</p>\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	makers := []*Maker{newMaker(t, Config{}), newMaker(t, Config{Template: filepath.Join(dir, "plain")}), newMaker(t, Config{Template: filepath.Join(dir, "html")})}
	places := map[string]func(x *Mail, v string){
		"MAILDATE": func(x *Mail, v string) { x.Head = []byte("Date: " + v + "\r\n\r\n") },
		"MAILFROM": func(x *Mail, v string) { x.Head = []byte("From: " + v + "\r\n\r\n") },
		"MAILTO":   func(x *Mail, v string) { x.Head = []byte("To: " + v + "\r\n\r\n") },
		"SUBJECT":  func(x *Mail, v string) { x.Head = []byte("Subject: " + v + "\r\n\r\n") },
		"SUBJECT, encoded": func(x *Mail, v string) {
			x.Head = []byte("Subject: " + mime.BEncoding.Encode("utf-8", v) + "\r\n\r\n")
		},
		"USERNAME":  func(x *Mail, v string) { x.Notice.Facts.User = v },
		"VIRUSNAME": func(x *Mail, v string) { x.Notice.Verdict.Findings[0].Signature = v },
		"VDINFO":    func(x *Mail, v string) { x.Notice.Verdict.Findings[0].Engine = v },
		"path":      func(x *Mail, v string) { x.Notice.Verdict.Findings[0].Path = v },
		"SERVERIP":  func(x *Mail, v string) { x.Server, x.Notice.Facts.Host = netip.AddrPort{}, v },
		"MAILFILE":  func(x *Mail, v string) { x.Notice.Quarantine = v },
		"PROTOCOL":  func(x *Mail, v string) { x.Notice.Facts.Protocol = v },
		"reference": func(x *Mail, v string) { x.Notice.Reference = v },
	}
	for i, m := range makers {
		_, benign := read(t, m.Make(infected()))
		for place, put := range places {
			for _, v := range hostile {
				x := infected()
				put(&x, v)
				b := m.Make(x)
				h, parts := read(t, b)
				for name := range h {
					if !expected[strings.ToLower(name)] {
						t.Errorf("maker %d, %s, %q: a field %s", i, place, v, name)
					}
				}
				if len(parts) != len(benign) || len(h["Subject"]) != 1 {
					t.Errorf("maker %d, %s, %q: %d parts, subjects %q", i, place, v, len(parts), h["Subject"])
				}
				if page := parts["text/html"]; strings.Contains(page, "<script") || strings.Contains(page, "<img") || strings.Contains(page, "<h1>body") || strings.Contains(page, "\"><") && !strings.Contains(benign["text/html"], "\"><") {
					t.Errorf("maker %d, %s, %q: HTML\n%s", i, place, v, page)
				}
				for _, s := range []string{parts["text/html"], parts["text/plain"], header.Decode(h.Get("Subject"))} {
					if strings.ContainsAny(s, "\u202e\x00\x1b") {
						t.Errorf("maker %d, %s, %q: control characters:\n%q", i, place, v, s)
					}
				}
			}
		}
	}
}

// expected are the fields that a notice may have.
var expected = map[string]bool{
	"received": true, "from": true, "to": true, "date": true, "message-id": true, "auto-submitted": true, "subject": true, "content-language": true,
	"mime-version": true, "content-type": true, "content-transfer-encoding": true, "x-all": true,
}

func FuzzMake(f *testing.F) {
	f.Add([]byte(kept+"Subject: x\r\n\r\nbody"), "Eicar", "ada")
	for _, v := range hostile {
		f.Add([]byte("Subject: "+v+"\r\n\r\n"), v, v)
	}
	m := newMaker(f, Config{})
	f.Fuzz(func(t *testing.T, head []byte, virus, user string) {
		x := infected()
		x.Head, x.Notice.Verdict.Findings[0].Signature, x.Notice.Facts.User = head, virus, user
		h, parts := read(t, m.Make(x))
		for name := range h {
			if !expected[strings.ToLower(name)] {
				t.Errorf("a field %s", name)
			}
		}
		if len(parts) != 2 {
			t.Errorf("%d parts", len(parts))
		}
	})
}

func TestValidate(t *testing.T) {
	for key, c := range map[string]Config{
		"language":   {Language: "tlh"},
		"recipients": {Recipients: []string{"example.org"}},
		"subject":    {Subject: "a\r\nb"},
		"deleted":    {Deleted: strings.Repeat("x", 500)},
		"template":   {Template: "/nonexistent"},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// The pages have Portuguese of Brazil, and so have the mails.
func TestPortugueseIsThatOfBrazil(t *testing.T) {
	european := regexp.MustCompile(`(?i)ficheiro|ligação|\bpara si\b|\btem a certeza\b|\bprecisa de \p{L}+r\b|contacte|\bnuma?\b|«`)
	if word := european.FindString(fmt.Sprintf("%q", locales["pt"])); word != "" {
		t.Errorf("%q is not Brazilian", word)
	}
}
