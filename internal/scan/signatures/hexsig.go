package signatures

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors of a body. They have no details, so that they can be counted.
var (
	errHex         = errors.New("malformed body: not pairs of hexadecimal digits or ?")
	errBracket     = errors.New("malformed body: a bracket is not closed, or not opened")
	errRange       = errors.New("malformed body: a {range} or [range] is not two numbers in order")
	errShort       = errors.New("malformed body: a part of less than two bytes")
	errNoFixed     = errors.New("malformed body: a part without two fixed bytes in a row")
	errNearByte    = errors.New("malformed body: [n-m] must stand between one byte and the rest of its part")
	errNegated     = errors.New("malformed body: !(…) must hold plain bytes of one length")
	errEmpty       = errors.New("malformed body: empty alternatives")
	errGapInside   = errors.New("malformed body: a gap inside of alternatives")
	errTooManyPart = fmt.Errorf("limit: a body of more than %d parts", maxParts)
	errTooLong     = fmt.Errorf("limit: a part that covers more than %d bytes", maxSpan)
	errTooMany     = fmt.Errorf("limit: alternatives that expand to more than %d variants, or are nested too deeply", maxVariants)
	errTooManyEnds = fmt.Errorf("limit: alternatives that lead to more than %d lengths of a part", maxSpots)
)

// parseBody reads a hex-signature and returns its parts. The gap that follows each part is in the part.
func parseBody(hex string) ([]part, error) {
	p := &bodyParser{src: hex}
	if err := p.body(); err != nil {
		return nil, err
	}
	return p.parts, nil
}

// bodyParser reads one body. Its methods leave at behind what they have read.
type bodyParser struct {
	src      string
	at       int
	parts    []part
	elems    []element // of the part that is being read
	edges    edges
	value    []byte // of the run that is being read
	mask     []byte
	partAt   int // where the part began, in src
	span     int // what the part covers at most
	expanded int // bytes of all variants
}

func (p *bodyParser) body() error {
	for p.at < len(p.src) {
		if err := p.token(); err != nil {
			return err
		}
	}
	return p.endPart(0, 0)
}

func (p *bodyParser) token() error {
	switch p.src[p.at] {
	case '*':
		p.at++
		return p.endPart(0, unlimited)
	case '{':
		return p.gap()
	case '[':
		return p.near()
	case '(', '!':
		return p.group()
	}
	v, m, err := p.pair()
	if err != nil {
		return err
	}
	p.addByte(v, m)
	return nil
}

// pair reads two hexadecimal digits or question marks.
func (p *bodyParser) pair() (value, mask byte, err error) {
	if p.at+2 > len(p.src) {
		return 0, 0, errHex
	}
	for _, c := range []byte(p.src[p.at : p.at+2]) {
		value, mask = value<<4, mask<<4
		switch {
		case c >= '0' && c <= '9':
			value, mask = value|(c-'0'), mask|0xF
		case c >= 'a' && c <= 'f':
			value, mask = value|(c-'a'+10), mask|0xF
		case c >= 'A' && c <= 'F':
			value, mask = value|(c-'A'+10), mask|0xF
		case c == '?':
		default:
			return 0, 0, errHex
		}
	}
	p.at += 2
	return value, mask, nil
}

func (p *bodyParser) addByte(v, m byte) {
	p.value, p.mask = append(p.value, v), append(p.mask, m)
	p.span++
}

// endRun makes an element of the bytes read since the last one.
func (p *bodyParser) endRun() {
	if len(p.value) == 0 {
		return
	}
	p.elems = append(p.elems, element{kind: isRun, masked: newMasked(p.value, p.mask)})
	p.value, p.mask = p.value[:0], p.mask[:0]
}

// newMasked copies a run; the mask is left out where it says nothing.
func newMasked(value, mask []byte) masked {
	m := masked{value: append([]byte(nil), value...)}
	for _, b := range mask {
		if b != 0xFF {
			m.mask = append([]byte(nil), mask...)
			break
		}
	}
	return m
}

func (p *bodyParser) addElement(e element, longest int) {
	p.endRun()
	p.elems = append(p.elems, e)
	p.span += longest
}

// endPart ends the part that is being read; the next one follows after a gap of gapMin to gapMax bytes.
func (p *bodyParser) endPart(gapMin, gapMax int64) error {
	p.endRun()
	n := part{elems: p.elems, gapMin: gapMin, gapMax: gapMax}
	if p.edges != (edges{}) {
		e := p.edges
		n.edges = &e
	}
	switch {
	case len(p.parts) == maxParts:
		return errTooManyPart
	case p.span > maxSpan:
		return errTooLong
	case p.span < 2 || len(p.elems) == 0:
		return errShort
	case !hasFixedPair(p.elems):
		return errNoFixed
	case tooManyEnds(p.elems):
		return errTooManyEnds
	}
	p.parts = append(p.parts, n)
	p.elems, p.edges, p.span, p.partAt = nil, edges{}, 0, p.at
	return nil
}

// hasFixedPair says whether two fixed bytes stand in a row somewhere in elems: ClamAV's minimum, which bounds how often a
// part can be a candidate.
func hasFixedPair(elems []element) bool {
	for i := range elems {
		if elems[i].kind == isRun && longestFixed(&elems[i].masked) >= 2 {
			return true
		}
	}
	return false
}

// longestFixed returns the length of the longest run of fixed bytes in m.
func longestFixed(m *masked) int {
	if m.mask == nil {
		return len(m.value)
	}
	best, n := 0, 0
	for _, b := range m.mask {
		if n++; b != 0xFF {
			n = 0
		}
		best = max(best, n)
	}
	return best
}

// tooManyEnds says whether the alternatives of elems lead to more different lengths than can be followed.
func tooManyEnds(elems []element) bool {
	lengths := map[int]bool{0: true}
	for i := range elems {
		e := &elems[i]
		if e.kind != isAny {
			continue // moves every length alike
		}
		next := map[int]bool{}
		for have := range lengths {
			e.lengths(func(n int) { next[have+n] = true })
		}
		if lengths = next; len(lengths) > maxSpots {
			return true
		}
	}
	return false
}

// maxShortGap is the longest {n} that ClamAV takes for so many ??; longer ones end a part.
const maxShortGap = 127

// gap reads {n}, {n-m}, {n-} or {-m}.
func (p *bodyParser) gap() error {
	end := strings.IndexByte(p.src[p.at:], '}')
	if end < 0 {
		return errBracket
	}
	inside := p.src[p.at+1 : p.at+end]
	p.at += end + 1
	from, to, err := parseGap(inside)
	if err != nil {
		return err
	}
	if from == to && from <= maxShortGap && p.span+int(from) <= maxSkip {
		for range from {
			p.addByte(0, 0)
		}
		return nil
	}
	return p.endPart(from, to)
}

// parseGap reads what stands between the braces. Like ClamAV, it takes a maximum of zero for none.
func parseGap(s string) (from, to int64, err error) {
	lo, hi, ranged := strings.Cut(s, "-")
	if lo == "" && hi == "" {
		return 0, 0, errRange
	}
	number := func(s string) int64 {
		if s == "" {
			return 0
		}
		n, e := strconv.ParseUint(s, 10, 64)
		if e != nil || n > maxGap {
			err = errRange
			return 0
		}
		return int64(n)
	}
	from = number(lo)
	if to = from; ranged {
		to = number(hi)
	}
	switch {
	case err != nil:
		return 0, 0, err
	case to == 0:
		return from, unlimited, nil
	case to < from:
		return 0, 0, errRange
	}
	return from, to, nil
}

// near reads [n-m], and the byte behind it where the single byte stands there.
func (p *bodyParser) near() error {
	end := strings.IndexByte(p.src[p.at:], ']')
	if end < 0 {
		return errBracket
	}
	lo, hi, ranged := strings.Cut(p.src[p.at+1:p.at+end], "-")
	if !ranged {
		hi = lo
	}
	from, err1 := strconv.ParseUint(lo, 10, 16)
	to, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || from > to || to > maxAnchor {
		return errRange
	}
	n := nearByte{on: true, min: int(from), max: int(to)}
	single := p.at-p.partAt == 2 && len(p.value) == 1
	p.at += end + 1
	if single {
		n.value, n.mask = p.value[0], p.mask[0]
		p.value, p.mask, p.span = p.value[:0], p.mask[:0], 0
		p.edges.leftByte = n
		p.partAt = -1 // no second one to the left
		return nil
	}
	v, m, err := p.pair()
	if err != nil {
		return errNearByte
	}
	if !p.atPartEnd() || p.span == 0 {
		return errNearByte
	}
	n.value, n.mask = v, m
	p.edges.rightByte = n
	return nil
}

// atPartEnd says whether the part ends here.
func (p *bodyParser) atPartEnd() bool { return endsPart(p.src[p.at:]) }

// endsPart says whether a part ends before rest: by the end of the body, by *, or by a gap that is not taken for so many ??.
func endsPart(rest string) bool {
	if rest == "" || rest[0] == '*' {
		return true
	}
	if rest[0] != '{' {
		return false
	}
	inside, _, _ := strings.Cut(rest[1:], "}")
	from, to, err := parseGap(inside)
	return err != nil || from != to || from > maxShortGap
}
