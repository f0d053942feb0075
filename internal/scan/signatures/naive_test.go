package signatures

import (
	"strconv"
	"strings"
)

// The naive matcher: ClamAV's manual, one sentence after the other, without any thought of speed. It reads the signature's
// text itself, so that it shares no mistake with the parser.

// naive says whether a body signature is in text, beginning at one of the places that allowed accepts.
func naive(sig string, text []byte, allowed func(at int) bool) bool {
	n := &naiveMatcher{text: text, seen: map[naiveKey]bool{}}
	for at := 0; at <= len(text); at++ {
		if allowed(at) && n.part(sig, at) {
			return true
		}
	}
	return false
}

type naiveKey struct {
	rest string
	at   int
}

type naiveMatcher struct {
	text []byte
	seen map[naiveKey]bool
}

// part says whether sig, which begins with a part, matches from at on.
func (n *naiveMatcher) part(sig string, at int) bool {
	// aa[n-m]HEX: aa stands n to m bytes before HEX.
	if len(sig) > 3 && sig[2] == '[' {
		inside, rest, _ := strings.Cut(sig[3:], "]")
		lo, hi := naiveRange(inside)
		if !n.byteNear(sig[:2], at-1-lo, at-1-hi) {
			return false
		}
		sig = rest
	}
	for _, g := range []string{"(B)", "(L)", "(W)", "!(B)", "!(L)", "!(W)"} {
		if strings.HasPrefix(sig, g) {
			ok := at == 0
			if !ok {
				b := n.text[at-1]
				switch g[len(g)-2] {
				case 'B':
					ok = strings.IndexByte(" .@<-/_", b) >= 0
				case 'L':
					ok = b == '\n'
				case 'W':
					ok = !naiveLetter(b)
				}
			}
			return ok != (g[0] == '!') && n.rest(sig[len(g):], at)
		}
	}
	return n.rest(sig, at)
}

func naiveLetter(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func naiveRange(s string) (lo, hi int) {
	a, b, ok := strings.Cut(s, "-")
	lo, _ = strconv.Atoi(a)
	if !ok {
		return lo, lo
	}
	hi, _ = strconv.Atoi(b)
	return lo, hi
}

// byteNear says whether the byte hex stands somewhere from place a to place b, in either direction.
func (n *naiveMatcher) byteNear(hex string, a, b int) bool {
	step := 1
	if b < a {
		step = -1
	}
	for i := a; ; i += step {
		if i >= 0 && i < len(n.text) && naiveByte(hex, n.text[i]) {
			return true
		}
		if i == b {
			return false
		}
	}
}

func naiveByte(hex string, b byte) bool {
	have := strconv.FormatUint(uint64(b)+256, 16)[1:]
	for i := range 2 {
		if hex[i] != '?' && !strings.EqualFold(hex[i:i+1], have[i:i+1]) {
			return false
		}
	}
	return true
}

// rest says whether sig, the rest of a part and what follows, matches from at on.
func (n *naiveMatcher) rest(sig string, at int) bool {
	k := naiveKey{rest: sig, at: at}
	if v, ok := n.seen[k]; ok {
		return v
	}
	v := n.restNow(sig, at)
	n.seen[k] = v
	return v
}

func (n *naiveMatcher) restNow(sig string, at int) bool {
	if sig == "" {
		return true
	}
	partEnds := func(s string) bool { return s == "" || s[0] == '*' || s[0] == '{' && !naiveSkip(s) }
	switch sig[0] {
	case '*':
		for ; at <= len(n.text); at++ {
			if n.part(sig[1:], at) {
				return true
			}
		}
		return false
	case '{':
		inside, rest, _ := strings.Cut(sig[1:], "}")
		if naiveSkip(sig) {
			lo, _ := naiveRange(inside)
			return at+lo <= len(n.text) && n.rest(rest, at+lo)
		}
		lo, hi := naiveRange(inside)
		if hi == 0 {
			hi = len(n.text)
		}
		for d := lo; d <= hi && at+d <= len(n.text); d++ {
			if n.part(rest, at+d) {
				return true
			}
		}
		return false
	case '[':
		inside, rest, _ := strings.Cut(sig[1:], "]")
		lo, hi := naiveRange(inside)
		return n.byteNear(rest[:2], at+lo, at+hi) && n.rest(rest[2:], at)
	case '(', '!':
		negated := sig[0] == '!'
		inside, rest := naiveParens(strings.TrimPrefix(sig, "!"))
		if inside == "B" || inside == "L" || inside == "W" {
			edge := rest
			if i := strings.IndexByte(edge, ']'); edge != "" && edge[0] == '[' {
				edge = edge[i+3:]
			}
			return n.class(inside, negated, partEnds(edge), rest, at)
		}
		if negated {
			list := strings.Split(inside, "|")
			size := len(list[0]) / 2
			if at+size > len(n.text) {
				return false
			}
			for _, v := range list {
				if naiveEqual(v, n.text[at:at+size]) {
					return false
				}
			}
			return n.rest(rest, at+size)
		}
		for _, v := range naiveSplit(inside) {
			if n.rest(v+rest, at) {
				return true
			}
		}
		return false
	}
	return at < len(n.text) && naiveByte(sig[:2], n.text[at]) && n.rest(sig[2:], at+1)
}

// naiveSkip says whether sig begins with {n} for a few bytes, which does not end a part.
func naiveSkip(sig string) bool {
	inside, _, _ := strings.Cut(sig[1:], "}")
	v, err := strconv.Atoi(inside)
	return err == nil && v > 0 && v < 128
}

func naiveEqual(hex string, b []byte) bool {
	for i := range b {
		if !naiveByte(hex[2*i:2*i+2], b[i]) {
			return false
		}
	}
	return true
}

// class is (B), (L) or (W) that is not at the begin of a part.
func (n *naiveMatcher) class(what string, negated, edge bool, rest string, at int) bool {
	if edge {
		ok := at == len(n.text)
		if !ok {
			b := n.text[at]
			switch what {
			case "B":
				ok = strings.IndexByte("\n\r \"'-/=>_", b) >= 0
			case "L":
				ok = b == '\n' || strings.HasPrefix(string(n.text[at:]), "\r\n")
			case "W":
				ok = !naiveLetter(b)
			}
		}
		return ok != negated && n.rest(rest, at)
	}
	if at == len(n.text) {
		return false
	}
	b := n.text[at]
	switch what {
	case "L":
		crlf := strings.HasPrefix(string(n.text[at:]), "\r\n")
		if negated {
			return b != '\n' && !crlf && n.rest(rest, at+1)
		}
		return b == '\n' && n.rest(rest, at+1) || crlf && n.rest(rest, at+2)
	case "B":
		return (strings.IndexByte("\n\r \"'-/=>_.<@", b) >= 0) != negated && n.rest(rest, at+1)
	}
	return !naiveLetter(b) != negated && n.rest(rest, at+1)
}

// naiveParens returns what stands in the parentheses that s begins with, and what follows them.
func naiveParens(s string) (inside, rest string) {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s[1:i], s[i+1:]
			}
		}
	}
	return s[1:], ""
}

// naiveSplit splits at the | that are in no parentheses.
func naiveSplit(s string) []string {
	var out []string
	depth, begin := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case '|':
			if depth == 0 {
				out = append(out, s[begin:i])
				begin = i + 1
			}
		}
	}
	return append(out, s[begin:])
}
