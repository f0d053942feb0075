package scan

import "strings"

// Printable returns s with everything that could confuse a log or a page replaced by "?", cut to at most n bytes.
func Printable(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
