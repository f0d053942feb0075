package signatures

import "encoding/binary"

// A body is what ClamAV's manual calls a hex-signature: a sequence of parts with gaps of undecided length between them. A
// part is a sequence of elements, each of which covers bytes directly behind the one before it.

// Limits of a body. They bound what one line can make of memory and of work; what exceeds them is reported.
const (
	maxParts     = 255      // ClamAV's own files stay below 64
	maxSpan      = 16 << 10 // bytes that a part may cover
	maxSkip      = 4 << 10  // a part longer than this is ended by the next {n}
	maxSpots     = 64       // ends of different length that the alternatives of one part may lead to
	maxVariants  = 1024     // what nested alternatives may expand to
	maxExpanded  = 64 << 10 // bytes of all variants of one body
	maxNesting   = 15       // ClamAV's limit
	maxAnchor    = 32       // ClamAV's limit of [n-m]
	unlimited    = int64(-1)
	maxGap       = 1<<32 - 1
	surroundings = maxAnchor + 8 // how far outside of a part its edges look
)

// kind says what an element is.
type kind uint8

const (
	isRun     kind = iota // the bytes of value under mask
	isSet                 // one byte out of set
	isAny                 // one of the variants, of which none is another's equal in length and content
	isNone                // as many bytes as each of the variants has, which are none of them
	isNotLine             // one byte that begins no line end
)

// masked is a run of bytes of which mask (nil: every bit) says what counts. Value is zero where mask is.
type masked struct {
	value, mask []byte
}

// matches says whether b, which is at least as long, begins with m.
func (m *masked) matches(b []byte) bool {
	b = b[:len(m.value)]
	if m.mask == nil {
		return string(b) == string(m.value)
	}
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x, v := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(m.value[i:])
		if x&binary.LittleEndian.Uint64(m.mask[i:]) != v {
			return false
		}
	}
	for ; i < len(b); i++ {
		if b[i]&m.mask[i] != m.value[i] {
			return false
		}
	}
	return true
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(b byte)      { s[b>>6] |= 1 << (b & 63) }
func (s *byteSet) has(b byte) bool { return s[b>>6]>>(b&63)&1 != 0 }

// inverse returns the set of all other bytes.
func (s byteSet) inverse() byteSet {
	for i := range s {
		s[i] = ^s[i]
	}
	return s
}

// element is one piece of a part.
type element struct {
	masked
	kind     kind
	set      *byteSet
	variants []masked
}

// lengths calls yield with every length that e can cover, some perhaps twice.
func (e *element) lengths(yield func(int)) {
	switch e.kind {
	case isRun:
		yield(len(e.value))
	case isSet, isNotLine:
		yield(1)
	case isNone:
		yield(len(e.variants[0].value))
	case isAny:
		for i := range e.variants {
			yield(len(e.variants[i].value))
		}
	}
}

// spots is a set of places in a text.
type spots struct {
	n  int
	at [maxSpots]int
}

func (s *spots) add(at int) {
	for _, have := range s.at[:s.n] {
		if have == at {
			return
		}
	}
	if s.n < maxSpots { // a part with more is not loaded
		s.at[s.n] = at
		s.n++
	}
}

// forward adds to out every place where e can end that begins at one of in.
func (e *element) forward(text []byte, in, out *spots) {
	for _, at := range in.at[:in.n] {
		if e.kind == isAny {
			for i := range e.variants {
				v := &e.variants[i]
				if at+len(v.value) <= len(text) && v.matches(text[at:]) {
					out.add(at + len(v.value))
				}
			}
			continue
		}
		if n := e.fixedLength(); at+n <= len(text) && e.matchesAt(text, at) {
			out.add(at + n)
		}
	}
}

// backward adds to out every place where e can begin that ends at one of in.
func (e *element) backward(text []byte, in, out *spots) {
	for _, at := range in.at[:in.n] {
		if e.kind == isAny {
			for i := range e.variants {
				v := &e.variants[i]
				if begin := at - len(v.value); begin >= 0 && v.matches(text[begin:]) {
					out.add(begin)
				}
			}
			continue
		}
		if begin := at - e.fixedLength(); begin >= 0 && e.matchesAt(text, begin) {
			out.add(begin)
		}
	}
}

// fixedLength returns how many bytes e covers; it is not asked about alternatives of different lengths.
func (e *element) fixedLength() int {
	switch e.kind {
	case isRun:
		return len(e.value)
	case isNone:
		return len(e.variants[0].value)
	default:
		return 1
	}
}

// matchesAt says whether e matches text[at:], which is long enough.
func (e *element) matchesAt(text []byte, at int) bool {
	switch e.kind {
	case isRun:
		return e.matches(text[at:])
	case isSet:
		return e.set.has(text[at])
	case isNone:
		for i := range e.variants {
			if e.variants[i].matches(text[at:]) {
				return false
			}
		}
		return true
	case isNotLine:
		return text[at] != '\n' && (text[at] != '\r' || at+1 >= len(text) || text[at+1] != '\n')
	default:
		return false
	}
}

// part is a piece of a body that is found as a whole.
type part struct {
	sig     uint32
	slot    uint32 // number among the parts of all bodies that have several; 0: the body has but this one
	elems   []element
	edges   *edges // nil: none
	gapMin  int64  // of the gap to the next part
	gapMax  int64  // unlimited: no maximum
	targets uint16 // of the signature
	anchor  uint16 // the element that the index knows
	last    bool
	pinned  bool // begins at one exact place: not in the index
}

// longest returns how many bytes p covers at most.
func (p *part) longest() int {
	total := 0
	for i := range p.elems {
		longest := 0
		p.elems[i].lengths(func(n int) { longest = max(longest, n) })
		total += longest
	}
	return total
}

// edges is what must stand next to a part, without belonging to it.
type edges struct {
	left, right         guard
	leftByte, rightByte nearByte
}

// guard is a condition on the byte before or behind a part.
type guard struct {
	kind    guardKind
	negated bool
}

type guardKind uint8

const (
	noGuard     guardKind = iota
	onBoundary            // (B): a word boundary
	onLine                // (L): the begin or end of a line
	onNonLetter           // (W): no letter or digit
)

// nearByte is a byte within a distance of a part: ClamAV's aa[n-m]HEX and HEX[n-m]aa.
type nearByte struct {
	on          bool
	value, mask byte
	min, max    int
}

// The bytes that (B) takes for a word boundary before a part, behind one, and within one; and those that (W) means.
var (
	boundaryBefore = setOf(" -./<@_")
	boundaryBehind = setOf("\n\r \"'-/=>_")
	boundaryWithin = setOf("\n\r \"'-/=>_.<@")
	nonLetters     = lettersAndDigits().inverse()
)

func setOf(members string) byteSet {
	var s byteSet
	for i := range len(members) {
		s.add(members[i])
	}
	return s
}

func lettersAndDigits() byteSet {
	return setOf("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
}

// holds says whether the edges of a part that covers text[begin:end] are as they must be. The ends of text count as the
// ends of the file; whoever calls sees to it that others are surroundings away.
func (e *edges) holds(text []byte, begin, end int) bool {
	return e.left.before(text, begin) && e.right.behind(text, end) &&
		e.leftByte.within(text, begin-1, -1) && e.rightByte.within(text, end, 1)
}

func (g guard) before(text []byte, begin int) bool {
	hit := begin == 0
	if g.kind == noGuard {
		return true
	}
	if !hit {
		b := text[begin-1]
		hit = g.kind == onBoundary && boundaryBefore.has(b) || g.kind == onLine && b == '\n' ||
			g.kind == onNonLetter && nonLetters.has(b)
	}
	return hit != g.negated
}

func (g guard) behind(text []byte, end int) bool {
	hit := end == len(text)
	if g.kind == noGuard {
		return true
	}
	if !hit {
		b := text[end]
		hit = g.kind == onBoundary && boundaryBehind.has(b) || g.kind == onNonLetter && nonLetters.has(b) ||
			g.kind == onLine && (b == '\n' || b == '\r' && end+1 < len(text) && text[end+1] == '\n')
	}
	return hit != g.negated
}

// within looks for the byte from at on, in steps of dir.
func (n *nearByte) within(text []byte, at, dir int) bool {
	if !n.on {
		return true
	}
	for d := n.min; d <= n.max; d++ {
		i := at + dir*d
		if i < 0 || i >= len(text) {
			return false
		}
		if text[i]&n.mask == n.value {
			return true
		}
	}
	return false
}
