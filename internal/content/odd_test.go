package content

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

// seven encodes every character of a text in UTF-7's base64.
func seven(s string) string {
	var wide []byte
	for i := range len(s) {
		wide = append(wide, 0, s[i])
	}
	return "+" + base64.RawStdEncoding.EncodeToString(wide) + "-"
}

// apart encodes each word's characters one by one.
func apart(s string) (words []string) {
	for word := range strings.SplitSeq(s, " ") {
		var out strings.Builder
		for i := range len(word) {
			out.WriteString(seven(word[i : i+1]))
		}
		words = append(words, out.String())
	}
	return words
}

func TestOddTextIsRead(t *testing.T) {
	wide := strings.Join(strings.Split(secret, ""), "\x00")
	for name, c := range map[string]struct{ body, typ string }{
		"UTF-7, declared":                 {"plain " + seven(secret) + " plain", "text/html; charset=utf-7"},
		"UTF-7, undeclared":               {"plain " + seven(secret) + " plain", "text/html"},
		"UTF-7, one run a word":           {"x" + seven(secret[:15]) + secret[15:40] + seven(secret[40:]), "text/plain; charset=UTF-7"},
		"UTF-7, an escaped plus":          {"1 +- 2 " + seven(secret), "text/plain; charset=utf-7"},
		"UTF-7, each character by itself": {strings.Join(apart(secret), " "), "text/html"},
		"multipart, called text":          {"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(secret)) + "\r\n--b--\r\n", "text/plain"},
		"UTF-7, a run unended":            {"x" + strings.TrimSuffix(seven(secret), "-"), "text/plain; charset=utf-7"},
		"half wide":                       {strings.Repeat("plain text first. ", 60) + wide, "text/plain"},
		"half wide, no type":              {strings.Repeat("plain text first. ", 60) + wide, ""},
		"half wide, on disk":              {strings.Repeat("plain text first. ", 60_000) + wide, "application/javascript"},
	} {
		t.Run(name, func(t *testing.T) {
			parts, problems := find(t, c.body, c.typ, Default(), false)
			if !slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, secret) }) || len(problems) > 0 {
				t.Errorf("parts %.300q, problems %v", parts, problems)
			}
		})
	}
}

func FuzzUTF7(f *testing.F) {
	for _, s := range []string{"a+-b", seven("hello"), "+", "+A", "+AGE", "+AGEA-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parts, problems := find(t, s, "text/plain; charset=utf-7", Default(), false)
		if len(problems) > 0 {
			t.Errorf("%q: %v", s, problems)
		}
		if !strings.ContainsAny(s, "+\x00%:") && len(s) >= 1 && !slices.Contains(parts, s) && len(parts) > 0 {
			t.Errorf("%q has the parts %q", s, parts)
		}
	})
}
