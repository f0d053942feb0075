package content

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestFieldsOfForms(t *testing.T) {
	const typ = "application/x-www-form-urlencoded; charset=utf-8"
	long := strings.Repeat("a long value; with more than a window = of text\n", 2000)
	body := "a=1&file=" + url.QueryEscape(secret) + "&broken=%zz" + url.QueryEscape(secret) + "%4&" + url.QueryEscape(long) + "=x&" + secret + "&l=" + url.QueryEscape(long) + "&end=%"
	parts, problems := find(t, body, typ, Default(), false)
	for _, want := range []string{secret, "%zz" + secret + "%4", long} {
		if !slices.Contains(parts, want) {
			t.Errorf("no part %.80q among %d", want, len(parts))
		}
	}
	if len(problems) > 0 || slices.Contains(parts, "1") {
		t.Errorf("%d parts, %v", len(parts), problems)
	}
	if parts, _ := find(t, body, "text/plain", Default(), false); slices.Contains(parts, "%zz"+secret+"%4") {
		t.Error("a text was read as a form")
	}
	lim := Default()
	lim.Parts = 3
	if _, problems := find(t, strings.Repeat("a="+url.QueryEscape(secret)+"1&b="+url.QueryEscape(secret)+"2&c="+strings.Repeat("x", 30)+"&d="+strings.Repeat("y", 30)+"&", 1), typ, lim, false); len(problems) != 1 || problems[0].Kind != TooMany {
		t.Errorf("%v", problems)
	}
}

func BenchmarkForm(b *testing.B) {
	body := "a=1&file=" + url.QueryEscape(strings.Repeat(secret, 2000))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		find(b, body, "application/x-www-form-urlencoded", Default(), false)
	}
}
