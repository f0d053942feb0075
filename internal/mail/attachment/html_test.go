package attachment

import (
	"context"
	"io"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"testing"

	"lazaret/internal/content"

	"golang.org/x/net/html"
	"golang.org/x/text/encoding/japanese"
)

// disarmed disarms a mail, and returns what came of it with its text.
func disarmed(t testing.TB, what, text string) (d Disarmed, out string) {
	t.Helper()
	h, err := NewHTML(HTMLConfig{Disarm: what})
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t)
	b, err := pool.Of([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d, err = h.Apply(context.Background(), Tools{Pool: pool, Limits: content.Default()}, b)
	if err != nil {
		t.Fatal(err)
	}
	if d.Body != nil {
		all, err := io.ReadAll(d.Body.NewReader())
		if err != nil {
			t.Fatal(err)
		}
		out = string(all)
		_ = d.Body.Close()
	}
	if d.Body != b {
		_ = b.Close()
	}
	if u := pool.Usage(); u.Memory+u.Disk != 0 {
		t.Errorf("%+v is still held", u)
	}
	return d, out
}

// whole returns a mail that is all HTML.
func whole(html string) string {
	return head + "Content-Type: text/html; charset=utf-8\r\n\r\n" + html
}

// htmlOf returns the HTML of a mail that is all HTML, in which no field occurs twice.
func htmlOf(t testing.TB, text string) string {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	for name, v := range m.Header {
		if len(v) > 1 {
			t.Errorf("%d fields %s", len(v), name)
		}
	}
	if got := m.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	b, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHTMLIsDisarmed(t *testing.T) {
	for name, c := range map[string]struct {
		html string
		gone []string
		kept []string
	}{
		"script":           {`<p>a<script>alert(1)</script>b`, []string{"script", "alert"}, []string{"a", "b"}},
		"handler":          {`<p onclick="x()" align="left">a`, []string{"onclick"}, []string{`align="left"`}},
		"handler by slash": {`<img/onerror=x()/src=cid:1>`, []string{"onerror"}, nil},
		"nothing else":     {`<script>x</script>`, []string{"script", "x"}, nil},
		"javascript":       {`<a href="java&#x0A;script:x()">a</a>`, []string{"script:"}, []string{"a"}},
		"data link":        {`<a href="data:text/html,x">a</a>`, []string{"data:"}, []string{"a"}},
		"frame":            {`<iframe src="https://x.example/"></iframe><frame src=x>a`, []string{"iframe", "x.example", "frame"}, []string{"a"}},
		"object":           {`<object data=x><embed src=y></object>a`, []string{"object", "embed"}, []string{"a"}},
		"form":             {`<form action="https://x.example/"><input name=pw>a</form>`, []string{"form", "input", "x.example"}, []string{"a"}},
		"refresh":          {`<html><head><meta http-equiv=refresh content="0;url=https://x.example/"></head>a`, []string{"meta", "x.example"}, []string{"a"}},
		"base":             {`<base href="https://x.example/"><a href="https://y.example/">a</a>`, []string{"x.example"}, []string{"y.example"}},
		"svg":              {`<svg onload=x()><script>y</script></svg>a`, []string{"svg", "onload", "script"}, []string{"a"}},
		"comment":          {`<!--[if mso]><script>x</script><![endif]-->a`, []string{"script", "mso"}, []string{"a"}},
		"style":            {`<style>@import url(https://x.example/)</style><p style="color:red;background:url(https://x.example/y)">a`, []string{"x.example", "@import"}, []string{"color", "a"}},
		"unclosed":         {`<p>a<script src=https://x.example/`, []string{"script", "x.example"}, []string{"a"}},
		"looks":            {`<table bgcolor="#fff" width="100%"><tr><td style="padding: 4px; font-weight: bold">a</td></tr></table>`, nil, []string{"bgcolor", `width="100%"`, "padding: 4px", "font-weight: bold"}},
		"umlauts":          {"<p>Grüße — 漢字</p>", nil, []string{"Grüße — 漢字"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, out := disarmed(t, "active", whole(c.html))
			if d.Parts != 1 {
				t.Fatalf("%+v", d)
			}
			got := htmlOf(t, out)
			for _, s := range c.gone {
				if strings.Contains(strings.ToLower(got), s) {
					t.Errorf("%q is still there: %s", s, got)
				}
			}
			for _, s := range c.kept {
				if !strings.Contains(got, s) {
					t.Errorf("%q is gone: %s", s, got)
				}
			}
			if !strings.HasPrefix(out, head) {
				t.Errorf("the header was changed: %q", out)
			}
		})
	}
}

// A picture that is fetched tells the sender that the mail was read.
func TestRemotePicturesAreFetchedByChoice(t *testing.T) {
	const pictures = `<img src="https://x.example/?who=ada" width="1"><img src="cid:logo"><img srcset="https://x.example/2 2x"><td background="https://x.example/3">a`
	_, out := disarmed(t, "active", whole(pictures))
	if got := htmlOf(t, out); !strings.Contains(got, "who=ada") || !strings.Contains(got, "cid:logo") {
		t.Errorf("active: %s", got)
	}
	_, out = disarmed(t, "all", whole(pictures))
	if got := htmlOf(t, out); strings.Contains(got, "x.example") || !strings.Contains(got, "cid:logo") {
		t.Errorf("all: %s", got)
	}
}

func TestHTMLPartsAreDisarmedWhereTheyStand(t *testing.T) {
	armed := wrapped([]byte("<p>one<script>x</script>"))
	part := "Content-Type: multipart/alternative; boundary=\"b2\"\r\n\r\n--b2\r\nContent-Type: text/plain\r\n\r\n<script>a text\r\n" +
		"--b2\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <x>\r\n\r\n" + armed + "--b2--\r\n"
	text := mixed(part, "")
	d, out := disarmed(t, "active", text)
	if d.Parts != 1 {
		t.Fatalf("%+v", d)
	}
	before, after, _ := strings.Cut(text, "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <x>\r\n")
	_, rest, _ := strings.Cut(after, "--b2--")
	if !strings.HasPrefix(out, before) || !strings.HasSuffix(out, "\r\n--b2--"+rest) || !strings.Contains(out, "\r\nContent-ID: <x>\r\n") {
		t.Errorf("the rest was changed: %q", out)
	}
	if strings.Contains(out, armed[:20]) || !strings.Contains(out, "<p>one") {
		t.Errorf("%q", out)
	}
}

// A mail in a mail is shown, too.
func TestHTMLInMailsInMailsIsDisarmed(t *testing.T) {
	inner := "From: b@example.org\r\nContent-Type: text/html\r\n\r\n<p>one<script>x</script>\r\n"
	d, out := disarmed(t, "active", mixed("Content-Type: message/rfc822\r\n", inner))
	if d.Parts != 1 || strings.Contains(out, "<script") || !strings.Contains(out, "From: b@example.org") || !strings.Contains(out, "<p>one") {
		t.Errorf("%+v %q", d, out)
	}
}

// In ISO-2022-JP letters are made of bytes that are tags elsewhere.
func TestHTMLInOtherCharacterSets(t *testing.T) {
	text, err := japanese.ISO2022JP.NewEncoder().String("<p>漢字の実<script>x</script></p>")
	if err != nil {
		t.Fatal(err)
	}
	_, out := disarmed(t, "active", head+"Content-Type: text/html; charset=iso-2022-jp\r\n\r\n"+text)
	if got := htmlOf(t, out); !strings.Contains(got, "<p>漢字の実</p>") {
		t.Errorf("%q", got)
	}
	// What is UTF-7 to some is text to all from now on.
	_, out = disarmed(t, "active", head+"Content-Type: text/html; charset=utf-7\r\n\r\n<p>+ADw-script+AD4-x")
	if got := htmlOf(t, out); !strings.Contains(got, "+ADw-script+AD4-x") {
		t.Errorf("%q", got)
	}
}

func TestMailsWithoutHTMLStayAsTheyAre(t *testing.T) {
	for _, text := range []string{mixed(attached("a.bin"), wrapped([]byte("<script>"))), head + "\r\n<script>a text</script>\r\n", ""} {
		if d, out := disarmed(t, "all", text); d.Parts != 0 || out != text {
			t.Errorf("%+v %q", d, out)
		}
	}
	if d, out := disarmed(t, "off", whole("<script>")); d.Parts != 0 || out != whole("<script>") {
		t.Errorf("%+v %q", d, out)
	}
}

// A mail that programs read differently cannot be edited for all of them.
func TestArmedHTMLThatParsersDisagreeAboutIsReplaced(t *testing.T) {
	two := "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n"
	broken := "Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
	for _, text := range []string{
		head + two + "<script>x</script>",
		head + two + "<p OnClick = 'x()'>",
		head + broken + wrapped([]byte("<p>one</p><iframe src=x>")) + "!!!\r\n",
		head + "Content-Type: text/html\r\n\r\n<p>" + strings.Repeat("x", maxHTML) + "<script>",
	} {
		if d, _ := disarmed(t, "active", text); d.Body != nil || d.Why == "" {
			t.Errorf("%.200q is delivered: %+v", text, d)
		}
	}
	harmless := head + two + "<p>one</p><img src='https://x.example/'>"
	if d, out := disarmed(t, "active", harmless); d.Parts != 0 || out != harmless {
		t.Errorf("%+v %q", d, out)
	}
	if d, _ := disarmed(t, "all", harmless); d.Body != nil {
		t.Errorf("%+v", d)
	}
}

func TestHTMLSettings(t *testing.T) {
	if err := (HTMLConfig{Disarm: "yes"}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "disarm: ") {
		t.Error(err)
	}
	if err := DefaultHTML().Validate(); err != nil {
		t.Error(err)
	}
}

// Whatever comes, no script, handler, frame or form is in what goes out.
func FuzzHTML(f *testing.F) {
	f.Add("<p>a<script>b</script>")
	f.Add("<svg><style><img src=x onerror=y>")
	f.Add("<math><mtext><table><mglyph><style><!--</style><img title=\"--><img src=1 onerror=x>\">")
	f.Add("<a href=' javascript:x'>")
	h, err := NewHTML(HTMLConfig{Disarm: "all"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		out := string(h.policy.SanitizeBytes([]byte(strings.ToValidUTF8(text, "?"))))
		node, err := html.Parse(strings.NewReader(out))
		if err != nil {
			t.Skip()
		}
		for n := range node.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			switch n.Data {
			case "script", "iframe", "frame", "object", "embed", "form", "meta", "link", "base", "style", "svg", "math":
				t.Fatalf("%q gives %q", text, out)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.Val)), "javascript:") {
					t.Fatalf("%q gives %q", text, out)
				}
			}
		}
	})
}
