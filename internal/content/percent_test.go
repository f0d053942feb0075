package content

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// percent encodes every byte.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

func TestPercentEncodedDataURLsAreDecoded(t *testing.T) {
	p := percent(secret)
	half := secret[:20] + strings.ReplaceAll(percent(secret[20:]), "%20", " ")
	long := strings.Repeat("x", 3*window)
	for name, page := range map[string]string{
		"double quotes":         `<a href="data:text/plain,` + p + `">`,
		"single quotes":         `<a href='DATA:text/plain;charset=utf-8,` + p + `'>`,
		"a script":              "fetch(`Data:," + p + "`)",
		"no quotes":             "<a href=data:text/html," + p + ">",
		"a style sheet":         "background:url(data:image/svg+xml;utf8," + p + ")",
		"spaces within quotes":  `<a href="data:text/plain,` + half + `">`,
		"behind many others":    strings.Repeat(`<img src="data:image/gif,%00">`, 2000) + `<a href="data:text/plain,` + p + `">`,
		"behind a colon":        "a:data:text/plain," + p,
		"to the end":            `<a href="data:text/plain,` + p,
		"behind an open one":    `'data:,%41` + strings.Repeat("b", 50) + `<a href="data:text/plain,` + p + `">`,
		"across windows":        long + `<a href="data:text/plain,` + p + `">` + long,
		"at the end of windows": strings.Repeat("y", window-20) + `"data:text/plain,` + p + `"` + long,
		"late in a long one":    long + `"data:text/plain,` + long + p + `"`,
		"odd percent signs":     `<a href="data:text/plain,100%,%zz%4` + p + `">`,
	} {
		t.Run(name, func(t *testing.T) {
			parts, problems := find(t, page, "text/html", Default(), false)
			if !slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, secret) }) || len(problems) > 0 {
				t.Errorf("%d parts, problems %v", len(parts), problems)
			}
		})
	}
}

func TestDataURLsWithoutEscapesAreNoParts(t *testing.T) {
	for _, page := range []string{
		`<a href="data:text/plain,` + secret + `">`, `data: 100% of them, or more of that sort of text, which goes on and on`,
		`{"data":{"a":"50%, that is half of everything that was there before"}}`,
	} {
		if parts, problems := find(t, page, "text/html", Default(), false); len(problems) > 0 || len(parts) > 1 {
			t.Errorf("%q has the parts %q, %v", page, parts, problems)
		}
	}
}
