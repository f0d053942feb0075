package websocket

import "unicode/utf8"

// utf8Check checks text that comes in pieces.
type utf8Check struct {
	part [utf8.UTFMax]byte
	n    int // bytes in part: the beginning of a character
}

// add says whether the text is UTF-8 so far, with p behind it.
func (u *utf8Check) add(p []byte) bool {
	for u.n > 0 && len(p) > 0 {
		u.part[u.n] = p[0]
		u.n++
		p = p[1:]
		if utf8.FullRune(u.part[:u.n]) {
			if !utf8.Valid(u.part[:u.n]) {
				return false
			}
			u.n = 0
		}
	}
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		tail := p[len(p)-i:]
		if utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				u.n = copy(u.part[:], tail)
				p = p[:len(p)-i]
			}
			break
		}
	}
	return utf8.Valid(p)
}
