package notice

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"lazaret/internal/policy"
	"lazaret/internal/scan"

	"golang.org/x/net/html"
)

func mustNew(t testing.TB, cfg Config) *Renderer {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func infected() Notice {
	return Notice{
		Reference: "4FJ2-9QX0-K7", Kind: Infected, Time: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), Size: 2048,
		SHA256: strings.Repeat("ab", 32),
		Facts: policy.Facts{
			Protocol: "https", Direction: policy.Download, Host: "files.example", URL: "https://files.example/a.zip?x=1&y=2",
			Type: "application/zip", Method: http.MethodGet, User: "ann", Status: 200,
		},
		Verdict:  scan.InfectedVerdict("clamd", "Eicar", "a.zip/b.com"),
		Decision: policy.Decision{Action: policy.Block, Rule: "policy.infected"},
	}
}

func TestStatusAndHeadersOfEveryKind(t *testing.T) {
	want := map[Kind]int{
		Infected: 403, NotScanned: 403, Unavailable: 503, OriginCert: 502, OriginTLS: 502, OriginDNS: 502, OriginRefused: 502,
		OriginTimeout: 504, OriginProtocol: 502, ForbiddenTarget: 403, ForbiddenClient: 403, AuthRequired: 407, BadRequest: 400,
		HeaderTooLarge: 431, Loop: 508, Mismatch: 421, Overload: 503, Internal: 500, NotTLS: 400, NotSupported: 501,
		"": 500, "something new": 500,
	}
	r := mustNew(t, Default())
	for kind, status := range want {
		n := infected()
		n.Kind = kind
		for accept, contentType := range map[string]string{
			"text/html": "text/html; charset=utf-8", "*/*": "text/plain; charset=utf-8",
			"application/json": "application/json; charset=utf-8", "application/problem+json": "application/problem+json; charset=utf-8",
		} {
			res := r.Respond(accept, "en", n)
			if res.Status != status || kind.Status() != status {
				t.Errorf("%s: status %d, want %d", kind, res.Status, status)
			}
			for k, v := range map[string]string{
				"Content-Type": contentType, "Content-Length": strconv.Itoa(len(res.Body)), "Cache-Control": "no-store",
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Language": "en",
				"X-Lazaret-Reference": "4FJ2-9QX0-K7", "X-Lazaret-Kind": string(kind.known()),
			} {
				if got := res.Header.Get(k); got != v {
					t.Errorf("%s, %s: %s is %q, want %q", kind, accept, k, got, v)
				}
			}
			if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'nonce-") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: Content-Security-Policy is %q", kind, csp)
			}
			if got := res.Header.Get("Retry-After"); (got != "") != (status == 503) {
				t.Errorf("%s: Retry-After is %q", kind, got)
			}
			if verdict := res.Header.Get("X-Lazaret-Verdict"); (verdict == "infected") != judged(kind) {
				t.Errorf("%s: X-Lazaret-Verdict is %q", kind, verdict)
			}
			if len(res.Body) < 100 || !utf8.Valid(res.Body) {
				t.Errorf("%s, %s: body of %d bytes: %q", kind, accept, len(res.Body), res.Body)
			}
		}
	}
}

func TestHeadersHaveOnlyMachineWords(t *testing.T) {
	n := infected()
	n.Kind, n.Reference = NotScanned, "X\r\nSet-Cookie: a=b"
	n.Verdict = scan.Verdict{Outcome: scan.Incomplete, Reason: "too-large\r\nX: y"}
	res := mustNew(t, Default()).Respond("", "", n)
	for k, want := range map[string]string{
		"X-Lazaret-Reference": "XSet-Cookieab", "X-Lazaret-Reason": "too-largeXy", "X-Lazaret-Verdict": "incomplete",
	} {
		if got := res.Header.Get(k); got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for accept, want := range map[string]format{
		"":    plainText,
		"*/*": plainText,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8": htmlPage,
		"text/html, */*;q=0.1":                            htmlPage,
		"application/json":                                jsonObject,
		"APPLICATION/JSON":                                jsonObject,
		"application/json, text/plain, */*":               jsonObject,
		"application/json, text/javascript, */*; q=.1":    jsonObject,
		"application/problem+json":                        problemJSON,
		"application/problem+json, application/json":      problemJSON,
		"application/vnd.api+json":                        problemJSON,
		"application/*":                                   jsonObject,
		"text/*":                                          plainText,
		"text/plain":                                      plainText,
		"text/plain;q=0.5, text/html":                     htmlPage,
		"text/html;q=0.5, application/json;q=0.6":         jsonObject,
		"text/html, application/json":                     htmlPage,
		"application/json, text/html":                     jsonObject,
		"image/png":                                       plainText,
		"image/avif,image/webp,*/*;q=0.8":                 plainText,
		"*/*, text/html;q=0":                              plainText,
		"text/plain;q=0, */*":                             htmlPage,
		"text/html;q=nonsense":                            plainText,
		"text/html;q=2, application/json;q=NaN":           plainText,
		"text/html;level=1;q=0.3, application/json;q=0.2": htmlPage,
		"application/xhtml+xml":                           htmlPage,
		",,;q=1,/,":                                       plainText,
		strings.Repeat("x/y,", 5000) + "text/html":        plainText,
	} {
		if got := negotiate(accept); got != want {
			t.Errorf("negotiate(%.80q) = %s, want %s", accept, mediaTypes[got], mediaTypes[want])
		}
	}
}

func TestJSONIsAProblemOfRFC9457(t *testing.T) {
	cfg := Default()
	cfg.Contact = "help@corp.example"
	res := mustNew(t, cfg).Respond("application/problem+json", "fr", infected())
	var m map[string]any
	if err := json.Unmarshal(res.Body, &m); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{
		"type": "tag:lazaret.internal,2026:problem:infected", "title": "Fichier dangereux arrêté", "status": 403.0,
		"instance": "tag:lazaret.internal,2026:reference:4FJ2-9QX0-K7", "reference": "4FJ2-9QX0-K7", "kind": "infected",
		"outcome": "infected", "action": "block", "rule": "policy.infected", "signature": "Eicar", "url": "https://files.example/a.zip?x=1&y=2",
		"host": "files.example", "direction": "download", "media_type": "application/zip", "size": 2048.0,
		"sha256": strings.Repeat("ab", 32), "time": "2026-01-02T15:04:05Z", "contact": "help@corp.example", "degraded": false,
	} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}
	for _, secret := range []string{"user", "client", "method"} {
		if _, ok := m[secret]; ok {
			t.Errorf("%s is told", secret)
		}
	}
	if s, _ := m["detail"].(string); !strings.Contains(s, "logiciel malveillant") {
		t.Errorf("detail is %q", s)
	}
}

func TestTextIsReadableInATerminal(t *testing.T) {
	n := infected()
	n.Degraded = true
	for range 8 {
		n.Verdict.Findings = append(n.Verdict.Findings, scan.Finding{Signature: "Other"})
	}
	got := string(mustNew(t, Default()).Respond("*/*", "", n).Body)
	for _, want := range []string{
		"Dangerous file stopped\n\n", "\nFound             ", "  Eicar (clamd)\n", "a.zip/b.com\n", "https://files.example/a.zip?x=1&y=2\n",
		"4FJ2-9QX0-K7\n", "2026-01-02 15:04:05 +00:00\n", "and 4 more findings\n", "Reduced protection", "2 KiB\n", "policy.infected\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	for line := range strings.Lines(got) {
		if utf8.RuneCountInString(strings.TrimSpace(line)) > 100 || strings.TrimRight(line, " \n")+"\n" != line {
			t.Errorf("long line, or one with spaces at its end: %q", line)
		}
	}
}

// outline returns the elements and attribute names of a page, in their order, and its whole text. It fails where the page is
// not well-formed.
func outline(t *testing.T, page []byte) (elements []string, text string) {
	t.Helper()
	void := map[string]bool{"meta": true, "path": true, "circle": true}
	var open []string
	z := html.NewTokenizer(strings.NewReader(string(page)))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("not closed: %v", open)
			}
			return elements, text
		case html.StartTagToken, html.SelfClosingTagToken:
			tok := z.Token()
			s := tok.Data
			for _, a := range tok.Attr {
				s += " " + a.Key
			}
			elements = append(elements, s)
			if !void[tok.Data] {
				open = append(open, tok.Data)
			}
		case html.EndTagToken:
			name := z.Token().Data
			if len(open) == 0 || open[len(open)-1] != name {
				t.Errorf("</%s> closes %v", name, open)
				return elements, text
			}
			open = open[:len(open)-1]
		case html.TextToken:
			text += z.Token().Data
		case html.CommentToken:
			t.Error("there is a comment")
		}
	}
}

var xss = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</title><script>alert(1)</script>`,
	`</dd></dl></main><iframe src=//evil.example>`, `<!-- `, `-->`, `<![CDATA[`, `javascript:alert(1)`, `{{.Title}}`, `&lt;script&gt;`,
	`</style><style>*{display:none}`, "`${alert(1)}`", `<svg/onload=alert(1)>`, "\u003cscript\u003e", `<plaintext>`, `<base href=//evil.example>`,
}

// everywhere returns a notice of that kind with s in every field.
func everywhere(kind Kind, s string) Notice {
	return Notice{
		Reference: s, Kind: kind, Time: time.Now(), Size: 1, SHA256: s, Fault: s, FaultKind: s, Degraded: true,
		Facts: policy.Facts{
			Protocol: s, Direction: policy.Direction(s), User: s, Host: s, Method: s, URL: s, Type: s,
		},
		Verdict:  scan.Verdict{Outcome: scan.Infected, Reason: scan.Reason(s), Detail: s, Findings: []scan.Finding{{Engine: s, Signature: s, Path: s}}},
		Decision: policy.Decision{Rule: s},
	}
}

func TestPageIsWellFormedAndEscapesEverything(t *testing.T) {
	cfg := Default()
	cfg.Organisation, cfg.Contact = `Org <b>"'&`, `<b>"'&`
	r := mustNew(t, cfg)
	for _, kind := range Kinds() {
		for _, lang := range []string{"en", "fr"} {
			want, _ := outline(t, r.Respond("text/html", lang, everywhere(kind, "harmless")).Body)
			if len(want) < 30 {
				t.Fatalf("only %d elements: there is nothing to look at", len(want))
			}
			for _, s := range xss {
				got, text := outline(t, r.Respond("text/html", lang, everywhere(kind, s)).Body)
				if !slices.Equal(got, want) {
					t.Errorf("%s: %q changes the page from\n%v to\n%v", kind, s, want, got)
				}
				if strings.Count(text, s) < 4 {
					t.Errorf("%s: %q is not shown as it is: there is nothing to look at", kind, s)
				}
			}
		}
	}
}

func TestPageLoadsNothingAndRunsNothing(t *testing.T) {
	r := mustNew(t, Default())
	for _, kind := range Kinds() {
		res := r.Respond("text/html", "en", everywhere(kind, "x"))
		elements, _ := outline(t, res.Body)
		if !slices.Contains(elements, "style nonce") || !slices.Contains(elements, "h1") || !slices.Contains(elements, "html lang") {
			t.Fatalf("not the page: %v", elements)
		}
		for _, e := range elements {
			name, attrs, _ := strings.Cut(e, " ")
			if slices.Contains([]string{"script", "link", "img", "iframe", "object", "embed", "form", "base"}, name) {
				t.Errorf("there is a <%s>", name)
			}
			for a := range strings.FieldsSeq(attrs) {
				if strings.HasPrefix(a, "on") || a == "style" || a == "src" {
					t.Errorf("<%s> has %s", name, a)
				}
			}
		}
		if s := string(res.Body); strings.Contains(s, "url(") || strings.Contains(s, "@import") {
			t.Error("the style sheet loads something")
		}
		_, rest, _ := strings.Cut(res.Header.Get("Content-Security-Policy"), "'nonce-")
		nonce, _, _ := strings.Cut(rest, "'")
		if len(nonce) != 32 || strings.Count(string(res.Body), `<style nonce="`+nonce+`">`) != 1 {
			t.Errorf("nonce %q is not that of the page", nonce)
		}
		again := r.Respond("text/html", "en", everywhere(kind, "x"))
		if again.Header.Get("Content-Security-Policy") == res.Header.Get("Content-Security-Policy") {
			t.Error("the nonce is the same twice")
		}
	}
}

func TestDeceptiveNamesAreNeutralised(t *testing.T) {
	evil := "in\u202evoice\u200b\u2066\ufeff\x1b[2J\x00\r\n\u0085\u009b\u00ad\u2028\u3164\U000e0041fdp.exe"
	r := mustNew(t, Default())
	for _, accept := range []string{"text/html", "text/plain", "application/json"} {
		body := string(r.Respond(accept, "", everywhere(Infected, evil)).Body)
		if !strings.Contains(body, "fdp.exe") || !strings.Contains(body, `\u202e`) {
			t.Fatalf("%s: the name is not there: %q", accept, body)
		}
		if i := strings.IndexFunc(body, func(c rune) bool { return c != '\n' && !unicode.IsPrint(c) || c == 0x3164 }); i >= 0 {
			t.Errorf("%s: left: %q", accept, body[i:i+8])
		}
	}
}

func TestLongNamesAreShortened(t *testing.T) {
	n := everywhere(Infected, "https://h.example/"+strings.Repeat("ä", 1<<20)+"/end.exe")
	r := mustNew(t, Default())
	for accept, limit := range map[string]int{"text/html": 12 << 10, "text/plain": 6 << 10, "application/json": 16 << 10} {
		body := r.Respond(accept, "", n).Body
		if len(body) > limit {
			t.Errorf("%s: %d bytes", accept, len(body))
		}
		if !strings.Contains(string(body), "ä/end.exe") || !strings.Contains(string(body), "https://h.example/ä") {
			t.Errorf("%s: beginning or end of the name are not there", accept)
		}
	}
	u := "https://h.example/file.zip?" + strings.Repeat("session", 100)
	if got := shortURL(u); got != "https://h.example/file.zip?…" {
		t.Errorf("shortURL: %q", got)
	}
}

func TestContactIsALinkOnlyWhereItIsOne(t *testing.T) {
	for contact, want := range map[string]string{
		"help@corp.example":                `<a href="mailto:help@corp.example?subject=Lazaret%204FJ2-9QX0-K7">help@corp.example</a>`,
		"a?b&c@corp.example":               `<a href="mailto:a%3Fb&amp;c@corp.example?subject=Lazaret%204FJ2-9QX0-K7">a?b&amp;c@corp.example</a>`,
		"https://help.corp.example/":       `<a href="https://help.corp.example/">https://help.corp.example/</a>`,
		"+49 421 1234":                     `<dd class="contact">&#43;49 421 1234</dd>`,
		"javascript:alert(1)":              `<dd class="contact">javascript:alert(1)</dd>`,
		"//evil.example":                   `<dd class="contact">//evil.example</dd>`,
		`https://h/"onclick="alert(1)`:     `<a href="https://h/%22onclick=%22alert%281%29">`,
		"IT desk, room 5 <x@y.example>":    `<dd class="contact">IT desk, room 5 &lt;x@y.example&gt;</dd>`,
		"data:text/html,<script></script>": `<dd class="contact">data:text/html,&lt;script&gt;&lt;/script&gt;</dd>`,
	} {
		cfg := Default()
		cfg.Contact = contact
		if got := string(mustNew(t, cfg).Respond("text/html", "", infected()).Body); !strings.Contains(got, want) {
			i := strings.Index(got, "contact\">")
			t.Errorf("%q: want %s in %.200s", contact, want, got[max(i-20, 0):])
		}
	}
}

func TestRespondFromManyGoroutines(t *testing.T) {
	r := mustNew(t, Default())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				n := infected()
				n.Kind = Kinds()[(i+j)%len(Kinds())]
				res := r.Respond([]string{"text/html", "*/*", "application/json"}[j%3], wanted[(i+j)%len(wanted)], n)
				if res.Status != n.Kind.Status() {
					t.Errorf("%s: %d", n.Kind, res.Status)
				}
			}
		})
	}
	wg.Wait()
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"plain äöü 日本語 😀":                  "plain äöü 日本語 😀",
		"a\u202eb":                         `a\u202eb`,
		"a\nb\tc\x00\x7f":                  `a\u000ab\u0009c\u0000\u007f`,
		"\xff\xfe":                         `\xff\xfe`,
		"a\u00a0b":                         `a\u00a0b`,
		"\U000e0001":                       `\U000e0001`,
		"e" + strings.Repeat("\u0301", 50): "e\u0301\u0301\u0301",
		"a\u3164\u2800\ufe0f":              `a\u3164\u2800\ufe0f`,
		strings.Repeat("a", 41):            strings.Repeat("a", 23) + "…" + strings.Repeat("a", 16),
		"\ufffd":                           "\ufffd",
	} {
		if got := Clean(in, 40); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "a\u202eb", "\xff", strings.Repeat("ä", 500), "e\u0301\u0301\u0301\u0301"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s, 40)
		if n := utf8.RuneCountInString(got); n > 40 || !utf8.ValidString(got) {
			t.Fatalf("%d characters: %q", n, got)
		}
		for _, c := range got {
			if !unicode.IsPrint(c) || blank(c) {
				t.Fatalf("%q is left in %q", c, got)
			}
		}
	})
}

func FuzzRespond(f *testing.F) {
	f.Add("text/html", "fr", "<script>")
	f.Add("application/json;q=0.1", "de-CH-1996", "\u202e\xff")
	f.Add("*/*", "zh-Hant-u-co-phonebk", "a/b/c")
	r := mustNew(f, Default())
	f.Fuzz(func(t *testing.T, accept, lang, s string) {
		res := r.Respond(accept, lang, everywhere(Infected, s))
		if res.Status != 403 || len(res.Body) == 0 || !utf8.Valid(res.Body) || !slices.Contains(wanted, res.Header.Get("Content-Language")) {
			t.Fatalf("%d %v %q", res.Status, res.Header, res.Body)
		}
		switch res.Header.Get("Content-Type") {
		case mediaTypes[htmlPage]:
			if elements, _ := outline(t, res.Body); slices.Contains(elements, "script") {
				t.Fatalf("a script: %q", res.Body)
			}
		case mediaTypes[jsonObject], mediaTypes[problemJSON]:
			if !json.Valid(res.Body) {
				t.Fatalf("no JSON: %q", res.Body)
			}
		}
		for k := range maps.Values(res.Header) {
			if strings.ContainsAny(strings.Join(k, ""), "\r\n\x00") {
				t.Fatalf("header: %q", res.Header)
			}
		}
	})
}

func BenchmarkRespond(b *testing.B) {
	r := mustNew(b, Default())
	n := infected()
	b.ReportAllocs()
	for b.Loop() {
		r.Respond("text/html", "fr-CA,fr;q=0.9", n)
	}
}

func TestPageSaysOfWhenTheSignaturesAre(t *testing.T) {
	r, n := mustNew(t, Default()), infected()
	for _, accept := range []string{"text/html", "*/*"} {
		if got := string(r.Respond(accept, "de", n).Body); strings.Contains(got, "Virensignaturen") {
			t.Errorf("%s: it says so where that is not known", accept)
		}
	}
	n.Signatures = time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)
	for _, accept := range []string{"text/html", "*/*"} {
		if got := string(r.Respond(accept, "de", n).Body); !strings.Contains(got, "Virensignaturen: 2026-11-22") {
			t.Errorf("%s: no date in %s", accept, got)
		}
	}
}
