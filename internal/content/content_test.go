package content

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"

	"lazaret/internal/spool"

	"golang.org/x/text/encoding/unicode"
)

// secret is what each construct hides.
const secret = "this is the hidden text, which has to be found wherever it is\n"

func find(t testing.TB, src, typ string, lim Limits, stop bool) (parts []string, problems []Problem) {
	t.Helper()
	cfg := spool.Default()
	cfg.Dir, cfg.MinFree = t.TempDir(), 0
	pool, err := spool.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := pool.Of([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	problems = Find(context.Background(), pool, Source{Blob: b, Type: typ}, lim, func(p Part) error {
		body, err := io.ReadAll(p.Blob.NewReader())
		if err != nil {
			t.Error(err)
		}
		parts = append(parts, string(body))
		if stop {
			return errors.New("enough")
		}
		return nil
	})
	b.Close()
	if u := pool.Usage(); u != (spool.Usage{}) {
		t.Errorf("the pool still holds %+v", u)
	}
	return parts, problems
}

func form(boundary, head, body string) string {
	return "--" + boundary + "\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n" + head + "\r\n" + body + "\r\n--" + boundary + "--\r\n"
}

func TestHiddenTextIsFound(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte(secret))
	utf := func(e unicode.Endianness, bom unicode.BOMPolicy) string {
		s, err := unicode.UTF16(e, bom).NewEncoder().String(strings.Repeat("<p>"+secret, 20))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	var split strings.Builder
	for i, c := range b64 {
		split.WriteRune(c)
		if i%20 == 19 {
			split.WriteString("\\\n\t ")
		}
	}
	for name, c := range map[string]struct{ body, typ string }{
		"form":                       {form("xyz", "", secret), "multipart/form-data; boundary=xyz"},
		"form with bare LF":          {strings.ReplaceAll(form("xyz", "", secret), "\r\n", "\n"), "multipart/form-data; boundary=xyz"},
		"form, quoted boundary":      {form("x y", "", secret), `multipart/form-data; boundary="x y"`},
		"form, no boundary declared": {form("xyz", "", secret), "multipart/form-data"},
		"form, other boundary shown": {form("xyz", "", secret), "multipart/form-data; boundary=abc"},
		"form, base64":               {form("xyz", "Content-Transfer-Encoding: BASE64\r\n", b64), "multipart/form-data; boundary=xyz"},
		"form, quoted-printable":     {form("xyz", "Content-Transfer-Encoding: quoted-printable\r\n", "=74"+secret[1:]), "multipart/form-data; boundary=xyz"},
		"upper-case type":            {form("xyz", "", secret), "MULTIPART/FORM-DATA; BOUNDARY=xyz"},
		"byteranges":                 {form("xyz", "Content-Range: bytes 0-60/61\r\n", secret), "multipart/byteranges; boundary=xyz"},
		"form, cut":                  {strings.TrimSuffix(form("xyz", "", secret), "\r\n--xyz--\r\n"), "multipart/form-data; boundary=xyz"},
		"data URL":                   {`<img src="data:image/png;base64,` + b64 + `">`, "text/html"},
		"data URL, no type":          {`<a href='data:;base64,` + b64 + `'>`, ""},
		"data URL, odd case":         {`url(DATA:text/plain;charset=x;BaSe64,` + b64 + `)`, "text/css"},
		"data URL, space":            {`data:text/plain; base64,` + b64, "text/css"},
		"data URL, percent-encoded":  {`data:application/x;base64,` + url.QueryEscape(b64) + `"`, "text/html"},
		"data URL in a string":       {`x="data:application/x;base64,` + split.String() + `"`, "text/javascript"},
		"data URL, JSON":             {`{"a":"data:application\/x;base64,` + strings.ReplaceAll(b64, "/", `\/`) + `"}`, "application/json"},
		"data URL, no padding":       {`data:application/x;base64,` + strings.TrimRight(b64, "=") + ` `, "text/html"},
		"data URL across windows":    {strings.Repeat("x", window-20) + `"data:application/x;base64,` + b64 + `"`, "text/html"},
		"data URL far behind":        {strings.Repeat("x64,", window) + `"data:application/x;base64,` + b64 + `"`, "text/html"},
		"UTF-16LE with a mark":       {utf(unicode.LittleEndian, unicode.UseBOM), "text/html"},
		"UTF-16BE with a mark":       {utf(unicode.BigEndian, unicode.UseBOM), "text/html"},
		"UTF-16LE declared":          {utf(unicode.LittleEndian, unicode.IgnoreBOM), "text/html; charset=UTF-16LE"},
		"UTF-16BE guessed":           {utf(unicode.BigEndian, unicode.IgnoreBOM), "text/html"},
	} {
		t.Run(name, func(t *testing.T) {
			parts, problems := find(t, c.body, c.typ, Default(), false)
			found := false
			for _, p := range parts {
				found = found || strings.Contains(p, strings.TrimSpace(secret))
			}
			if !found {
				t.Errorf("not in %q (problems: %v)", parts, problems)
			}
			if len(problems) > 0 && !strings.Contains(name, "cut") && !strings.Contains(name, "other boundary") {
				t.Errorf("problems: %v", problems)
			}
		})
	}
}

func TestOrdinaryContentHasNoOtherReading(t *testing.T) {
	for typ, body := range map[string]string{
		"text/html":                strings.Repeat("<p>base64, he said; 64,000 times\n", 100),
		"application/octet-stream": strings.Repeat("\x00\x01\x02\xff", 1000),
		"image/png":                "\x89PNG\r\n\x1a\n" + strings.Repeat("\x00\x00\x00\x7f", 200),
		"text/plain":               "",
		"text/css":                 "a{background:url(data:image/gif;base64,R0lGODlh)}",
	} {
		if parts, problems := find(t, body, typ, Default(), false); len(parts) > 0 || len(problems) > 0 {
			t.Errorf("%s: %q, %v", typ, parts, problems)
		}
	}
}

func TestLimits(t *testing.T) {
	var many bytes.Buffer
	for i := range 20 {
		fmt.Fprintf(&many, "data:a/b;base64,%s ", base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s%02d", secret, i)))
	}
	parts, problems := find(t, many.String(), "", Limits{Parts: 10, Bytes: 1 << 20}, false)
	if len(parts) != 10 || len(problems) != 1 || problems[0].Kind != TooMany {
		t.Errorf("%d parts, %v", len(parts), problems)
	}
	parts, problems = find(t, many.String(), "", Limits{Parts: 100, Bytes: 100}, false)
	if len(parts) != 1 || len(problems) != 1 || problems[0].Kind != TooLarge {
		t.Errorf("%d parts, %v", len(parts), problems)
	}
	if parts, problems = find(t, many.String(), "", Default(), true); len(parts) != 1 || len(problems) != 0 {
		t.Errorf("a visitor who has enough: %d parts, %v", len(parts), problems)
	}
	if _, problems = find(t, "--x\r\nno colon here\r\n", "multipart/form-data; boundary=x", Default(), false); len(problems) == 0 {
		t.Error("a broken multipart is no problem")
	}
}

func FuzzFind(f *testing.F) {
	f.Add(form("xyz", "", secret), "multipart/form-data; boundary=xyz")
	f.Add("data:a;base64,"+strings.Repeat("QUJD", 30), "text/html")
	f.Add("\xff\xfea\x00b\x00c\x00", "text/html")
	f.Add("data:;base64,%41%4%zz\\", "text/html; charset=utf-16")
	f.Add(framed(1, packed(f, "gzip", secret)), "application/grpc-web")
	f.Add(field(packed(f, "gzip", secret)), "application/protobuf")
	f.Fuzz(func(t *testing.T, body, typ string) {
		find(t, body, typ, Limits{Parts: 20, Bytes: 1 << 20}, false)
	})
}
