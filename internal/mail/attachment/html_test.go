package attachment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/quotedprintable"
	"net/mail"
	"runtime"
	"strings"
	"testing"

	"lazaret/internal/content"
	"lazaret/internal/spool"

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
	d, err = h.Apply(context.Background(), Tools{Pool: pool, Limits: content.Default(), Note: func(h Hit) string { return "taken out: " + h.Name + " (" + h.Rule + ")" }}, b)
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
		"many looks":       {`<p style='font: bold 12px/1.5 "Segoe UI", Arial, sans-serif; COLOR:#ff0000 !important; background:rgb(1, 2, 3); margin:0 auto; border:1px solid rgba(0,0,0,.5); font-family:"ＭＳ Ｐゴシック"'>a`, nil, []string{"bold 12px/1.5 &#34;Segoe UI&#34;, Arial, sans-serif", "COLOR: #ff0000 !important", "background: rgb(1, 2, 3)", "margin: 0 auto", "1px solid rgba(0,0,0,.5)", "ＭＳ Ｐゴシック"}},
		"what fetches":     {`<p style="color:red;background:\75rl(https://x.example/);border:1px solid image-set('https://x.example/');width:expression(x());font:url(x);content:attr(y);position:fixed;color:/**/blue;font-family:'a;b'">a`, []string{"x.example", "expression", "url", "attr", "fixed", "blue", "a;b"}, []string{"color: red"}},
		"long style":       {`<p style="color:red;` + strings.Repeat(" ", maxStyle) + `">a`, []string{"style", "red"}, []string{"<p>a"}},
		"long value":       {`<a href="https://x.example/` + strings.Repeat("x", maxValue) + `" title="t">a</a>`, []string{"x.example"}, []string{`title="t"`}},
		"long token":       {`<p>a<img alt="b" src="data:image/png;base64,` + strings.Repeat("AAAA", maxToken) + `">c<!--` + strings.Repeat("<p>x", maxToken) + `-->d<style>` + strings.Repeat("e{} ", maxToken) + `</style>f<title>` + strings.Repeat("g", maxToken) + `</TITLE>h`, []string{"data:", "aaaa", "x", "e{}"}, []string{"<p>ac", "df", "</title>h"}},
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
	harmless := head + two + "<p style='color: red'>one</p><img src='https://x.example/'><a href='HTTPS://x.example/a?b=c&amp;d=e'>two</a> Ada <ada@example.org>: <https://x.example/> <snip> i<j"
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

// What a mail program would show of such a mail is held against the same list as ever.
func TestOddMailsAreJudgedByThePolicy(t *testing.T) {
	two := head + "Content-Type: text/html\r\nContent-Disposition: inline\r\nContent-Disposition: inline\r\n"
	for _, body := range []string{
		`<a href="&#106;avascript:alert(1)">x</a>`, "<a href=\"java\tscript:alert(1)\">x</a>", `<a href="data:text/html,hello">x</a>`,
		`<p style="background:\75rl(http://t.example/x.png)">x</p>`, `<p style="background:&#117;rl(http://t.example/x.png)">x</p>`,
		`<input name=a>`, `<button formaction="http://evil.example/">send</button>`, `<select></select>`, `<textarea></textarea>`,
		`<video><source srcset=x></video>`, "<a href=x onmouseover\x0c=\"alert(1)\">x</a>", `<img/onerror=alert(1)>`, `<frameset>`,
		`<marquee>x</marquee>`, `<dialog open style="position:fixed">x</dialog>`, `<x onclick="y()">`, `<v:rect xmlns:v="urn:x">`,
		`<p title="<script>x</script>">`, `<title><script>x</script></title>`, `<!-- <script>x</script> -->`, "<scr\x00ipt>", "<scr\x1b(Bipt>",
		"<\x00s\x00c\x00r\x00i\x00p\x00t\x00>", `<?xml-stylesheet href="x"?>`, `<!DOCTYPE x [<!ENTITY y "z">]>`, `<script src=x`, `<p onclick="x`,
		`<meta charset="utf-7">+ADw-script+AD4-`, `<p>` + strings.Repeat("x", 4*maxTag-8) + `<script>`, strings.Repeat(`<a b="`, 1<<17),
	} {
		if d, _ := disarmed(t, "active", two+"\r\n"+body+"\r\n"); d.Body != nil || d.Why == "" {
			t.Errorf("%.100q is delivered", body)
		}
	}
	random := make([]byte, 2<<20)    // a picture, say
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any bytes will do
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	odd := strings.Replace(mixed(attached("a b.jpg"), wrapped(random)), "MIME-Version", "Content-Disposition: inline\r\nContent-Disposition: inline\r\nMIME-Version", 1)
	if d, out := disarmed(t, "all", odd); out != odd {
		t.Errorf("a picture is taken for HTML: %+v", d)
	}
}

// What the work costs is in proportion to the mail, whatever is in it: it must not be the square. The bytes that are allocated tell.
func TestDisarmingIsLinear(t *testing.T) {
	h, err := NewHTML(HTMLConfig{Disarm: "all"})
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t)
	cost := func(text, mail string) uint64 {
		b, err := pool.Of([]byte(strings.Replace(mail, "%", text, 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d, err := h.Apply(t.Context(), Tools{Pool: pool, Limits: content.Default()}, b)
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if d.Body != nil && d.Body != b {
			_ = d.Body.Close()
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	style := whole(`<p style="%">x</p>`)
	odd := strings.Replace(whole(`%`), "MIME-Version", "Content-Type: text/html\r\nMIME-Version", 1)
	for _, c := range []struct{ what, unit, mail string }{
		{"blocks", "a{", style},
		{"families", "a b,", strings.Replace(style, "%", "font-family:%", 1)},
		{"lengths", "1px ", strings.Replace(style, "%", "border:%", 1)},
		{"brackets", "(", strings.Replace(style, "%", "color:%", 1)},
		{"comments", "/*", style},
		{"quotes", "'", style},
		{"escapes", `\61 `, strings.Replace(style, "%", "color:%", 1)},
		{"styles", `<p style="color:red;font-family:x,y;border:1px solid red">`, whole("%")},
		{"attributes", "a ", whole("<p %>")},
		{"tags", "<b>", whole("%")},
		{"left", "<", whole("%")},
		{"tag in tag", "<a", whole("%")},
		{"quoted", `<a b="`, whole("%")},
		{"comment", "<!--", whole("%")},
		{"declared", "<!", whole("%")},
		{"objects", "<object>", whole("%")},
		{"scripts", "<script>", whole("%")},
		{"entities", "&amp;", whole("%")},
		{"odd: tag in tag", "<a ", odd},
		{"odd: quoted", `<a b="`, odd},
		{"odd: tags", "<b>", odd},
		{"odd: charset", "charset=", odd},
	} {
		const n = 70 << 10
		once, twice := cost(strings.Repeat(c.unit, n/len(c.unit)), c.mail), cost(strings.Repeat(c.unit, 2*n/len(c.unit)), c.mail)
		if twice > 3*once+(1<<20) {
			t.Errorf("%s: %d bytes of work, for twice the text %d", c.what, once, twice)
		}
	}
}

// BenchmarkDisarm has the time that a text takes, and twice the text.
func BenchmarkDisarm(b *testing.B) {
	h, err := NewHTML(HTMLConfig{Disarm: "all"})
	if err != nil {
		b.Fatal(err)
	}
	pool := newPool(b)
	for name, unit := range map[string]string{
		"blocks": `a{`, "styles": `"><p style="color:red;font-family:x,y;border:1px solid red`, "long styles": `"><p style="` + strings.Repeat("a b,", maxStyle/4-1) + `x`,
	} {
		for _, n := range []int{1 << 20, 2 << 20} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				mail, err := pool.Of([]byte(whole(`<p style="` + strings.Repeat(unit, n/len(unit)) + `">x</p>`)))
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(mail.Size())
				for b.Loop() {
					d, err := h.Apply(b.Context(), Tools{Pool: pool, Limits: content.Default()}, mail)
					if err != nil || d.Body == nil {
						b.Fatal(d, err)
					}
					_ = d.Body.Close()
				}
			})
		}
	}
}

// Many parts with much HTML cost no more memory than one: what is clean waits in the spool.
func TestCleanHTMLWaitsInTheSpool(t *testing.T) {
	var mail strings.Builder
	mail.WriteString(head + "Content-Type: multipart/mixed; boundary=b1\r\n\r\n")
	for range 3 {
		mail.WriteString("--b1\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n" + strings.Repeat("hello \xe9\xe8 = = =\r\n", 20<<10) + "\r\n")
	}
	mail.WriteString("--b1--\r\n")
	c := spool.Default()
	c.Dir, c.MinFree = t.TempDir(), 0
	pool, err := spool.NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	b, err := pool.Of([]byte(mail.String()))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h, err := NewHTML(HTMLConfig{Disarm: "active"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := walk(b.NewReader())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range w.entities[1:] {
		edits, _, err := h.clean(t.Context(), pool, b, e)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, d := range edits {
			n += len(d.text)
			if d.blob != nil {
				if d.blob.Size() < 400<<10 {
					t.Errorf("%d bytes are clean", d.blob.Size())
				}
				_ = d.blob.Close()
			}
		}
		if n > 1<<10 {
			t.Errorf("%d bytes of an edit are in memory", n)
		}
	}
}

// It ends when nobody wants it any more, does not go on for ever, and waits for a place.
func TestDisarmingEnds(t *testing.T) {
	h, err := NewHTML(HTMLConfig{Disarm: "active"})
	if err != nil {
		t.Fatal(err)
	}
	pool := newPool(t)
	b, err := pool.Of([]byte(whole(strings.Repeat("<p>x", 1<<16))))
	if err != nil {
		t.Fatal(err)
	}
	tools := Tools{Pool: pool, Limits: content.Default()}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Apply(ended, tools, b); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody wants it: %v", err)
	}
	if _, err := io.Copy(io.Discard, newTamer(ended, strings.NewReader("<p>x"))); !errors.Is(err, context.Canceled) {
		t.Errorf("the reader goes on: %v", err)
	}
	h.patience = 0
	if d, err := h.Apply(t.Context(), tools, b); err != nil || d.Body != nil || !strings.Contains(d.Why, "takes longer") {
		t.Errorf("it takes too long: %+v %v", d, err)
	}
	h.patience = patience
	for range cap(h.slots) {
		h.slots <- struct{}{}
	}
	waits, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := h.Apply(waits, tools, b)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("without a place: %v", err)
	}
	<-h.slots
	d, err := h.Apply(t.Context(), tools, b)
	if err != nil || d.Parts != 1 || len(h.slots) != cap(h.slots)-1 {
		t.Errorf("with a place: %+v %v, %d places are taken", d, err, len(h.slots))
	}
	_ = d.Body.Close()
	_ = b.Close()
	if u := pool.Usage(); u.Memory+u.Disk != 0 {
		t.Errorf("%+v is still held", u)
	}
}

// Whatever comes, no script, handler, frame or form is in what goes out.
func FuzzHTML(f *testing.F) {
	f.Add("<p>a<script>b</script>")
	f.Add("<svg><style><img src=x onerror=y>")
	f.Add("<math><mtext><table><mglyph><style><!--</style><img title=\"--><img src=1 onerror=x>\">")
	f.Add("<a href=' javascript:x'>")
	f.Add("<p style='color:red;background:url(x);font:\\75rl(x)'>")
	h, err := NewHTML(HTMLConfig{Disarm: "all"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b strings.Builder
		if err := h.policy.SanitizeReaderToWriter(newTamer(t.Context(), strings.NewReader(strings.ToValidUTF8(text, "?"))), &b); err != nil {
			t.Fatal(err)
		}
		out := b.String()
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
				if a.Key == "style" && strings.ContainsAny(a.Val, `\@{}*`) || strings.HasPrefix(a.Key, "on") || strings.HasPrefix(strings.ToLower(strings.TrimSpace(a.Val)), "javascript:") {
					t.Fatalf("%q gives %q", text, out)
				}
			}
		}
	})
}
