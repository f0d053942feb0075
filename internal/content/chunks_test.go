package content

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// chunked splits a text into chunks.
func chunked(end, extension string, parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%x%s%s%s%s", len(p), extension, end, p, end)
	}
	return b.String() + "0" + end + end
}

func TestChunkedContentIsRead(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for name, body := range map[string]string{
		"two chunks":       chunked("\r\n", "", secret[:10], secret[10:]),
		"with extensions":  chunked("\r\n", ";a=b", secret[:10], secret[10:]),
		"bare line feeds":  chunked("\n", "", secret[:1], secret[1:]),
		"cut off":          strings.TrimSuffix(chunked("\r\n", "", secret[:10], secret[10:]), "0\r\n\r\n"),
		"a byte at a time": chunked("\r\n", "", strings.Split(secret, "")...),
		"long ones":        chunked("\r\n", "", long, secret[:20], secret[20:], long),
		"zeros in front":   strings.Replace(chunked("\r\n", "", secret[:10], secret[10:]), "a\r\n", "000a\r\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			parts, problems := find(t, body, "text/plain", Default(), false)
			if !slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, secret) }) || len(problems) > 0 {
				t.Errorf("parts %.300q, problems %v", parts, problems)
			}
		})
	}
	for _, body := range []string{"1234\n5678\n", "abc\ndef\nghi", "20\r\nshort", "0\r\n\r\n", "feed\nme"} {
		if parts, problems := find(t, body, "text/plain", Default(), false); len(parts)+len(problems) > 0 {
			t.Errorf("%q has the parts %q, %v", body, parts, problems)
		}
	}
}
