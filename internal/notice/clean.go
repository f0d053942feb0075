package notice

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean returns s fit to be shown to people: whatever does not print (control, directional and zero-width characters, exotic
// spaces, invalid UTF-8) is written out as \u202e or \xff, so that "invoice\u202efdp.exe" does not look like a PDF; accents
// piled up on one letter are cut off; and the middle is left out where there are more than limit characters, so that
// beginning and end stay readable. It does not escape for HTML: whoever renders it does. limit is at least 3.
func Clean(s string, limit int) string {
	if most := 8 * limit; len(s) > most { // bounds the work; what is cut off here is in the middle
		s = s[:most/2] + "…" + s[len(s)-most/2:]
	}
	var b strings.Builder
	marks := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case marks > maxMarks:
		case !unicode.IsPrint(r) || blank(r):
			if r > 0xffff {
				fmt.Fprintf(&b, `\U%08x`, r)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return shorten(b.String(), limit)
}

// maxMarks is how many combining marks may follow each other: living languages have up to three.
const maxMarks = 3

// blank says that r counts as printable but shows nothing.
func blank(r rune) bool {
	switch r {
	case 0x034f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x2800, 0x3164, 0xffa0:
		return true
	}
	return unicode.Is(unicode.Variation_Selector, r)
}

// shorten leaves the middle of s out where it has more than limit characters.
func shorten(s string, limit int) string {
	n := utf8.RuneCountInString(s)
	if n <= limit {
		return s
	}
	r := []rune(s)
	head := (limit - 1) * 3 / 5
	return string(r[:head]) + "…" + string(r[n-(limit-1-head):])
}
