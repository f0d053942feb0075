package signatures

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// whereKind is what an offset of a body signature counts from.
type whereKind uint8

const (
	anywhere       whereKind = iota
	fromStart                // n
	fromEnd                  // EOF-n
	fromEntry                // EP+n, EP-n
	fromLast                 // SL+n: the last section
	fromSection              // Sx+n
	withinASection           // SEx
)

// where is the offset of a body signature: the places where it may begin.
type where struct {
	kind    whereKind
	section int32
	value   int64 // added to what kind says; negative for EOF-n and EP-n
	shift   int64 // so many bytes later is right too
}

var (
	errOffset         = errors.New("malformed offset: want *, n, EOF-n, EP+n, EP-n, Sx+n, SEx or SL+n, all but * with ,maxshift")
	errOffsetTarget   = errors.New("malformed offset: relative to an executable's parts, in a signature that is not about executables")
	errOffsetVI       = errors.New("unsupported: VI offset (version information)")
	errOffsetMacro    = errors.New("unsupported: macro in the offset")
	errOffsetMachO    = errors.New("unsupported: relative offset in Mach-O files")
	errOffsetTooLarge = errors.New("malformed offset: a number beyond 4 GiB")
)

// parseOffset reads the offset of a signature about target.
func parseOffset(s string, target int) (where, error) {
	if s == "*" {
		return where{}, nil
	}
	place, shift, shifted := strings.Cut(s, ",")
	w := where{}
	var err error
	if shifted {
		if w.shift, err = offsetNumber(shift); err != nil {
			return where{}, err
		}
	}
	switch {
	case strings.HasPrefix(place, "EOF-"):
		w.kind = fromEnd
		w.value, err = offsetNumber(place[4:])
		w.value = -w.value
	case strings.HasPrefix(place, "EP+"), strings.HasPrefix(place, "EP-"):
		w.kind = fromEntry
		w.value, err = offsetNumber(place[3:])
		if place[2] == '-' {
			w.value = -w.value
		}
	case strings.HasPrefix(place, "SE"):
		w.kind = withinASection
		w.section, err = sectionNumber(place[2:])
	case strings.HasPrefix(place, "SL+"):
		w.kind = fromLast
		w.value, err = offsetNumber(place[3:])
	case strings.HasPrefix(place, "S"):
		section, value, ok := strings.Cut(place[1:], "+")
		if !ok {
			return where{}, errOffset
		}
		w.kind = fromSection
		if w.section, err = sectionNumber(section); err == nil {
			w.value, err = offsetNumber(value)
		}
	case strings.HasPrefix(place, "VI"):
		return where{}, errOffsetVI
	case strings.Contains(place, "$"):
		return where{}, errOffsetMacro
	default:
		w.kind = fromStart
		w.value, err = offsetNumber(place)
	}
	switch {
	case err != nil:
		return where{}, err
	case w.kind == fromStart, w.kind == fromEnd:
	case target == targetMachO:
		return where{}, errOffsetMachO
	case target != targetPE && target != targetELF:
		return where{}, errOffsetTarget
	}
	return w, nil
}

func offsetNumber(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) || n > math.MaxUint32 {
		return 0, errOffsetTooLarge
	}
	if err != nil {
		return 0, errOffset
	}
	return int64(n), nil
}

func sectionNumber(s string) (int32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, errOffset
	}
	return int32(n), nil
}

// exact says whether w is one place in each object.
func (w where) exact() bool {
	return w.kind != anywhere && w.kind != withinASection && w.shift == 0
}

// layout is what offsets are counted from in one object.
type layout struct {
	size     int64 // negative: unknown
	program  bool  // entry and sections are known
	entry    int64
	sections []section
}

// section is a section of an executable, in bytes of the file.
type section struct{ at, size int64 }

// places returns the first and the last place that w means in an object; ok is false when there is none.
func (l *layout) places(w where) (first, last int64, ok bool) {
	length := w.shift
	switch w.kind {
	case anywhere:
		return 0, math.MaxInt64, true
	case fromStart:
		first = w.value
	case fromEnd:
		if l.size < 0 {
			return 0, 0, false
		}
		first = l.size + w.value
	default:
		if !l.program {
			return 0, 0, false
		}
		if w.kind == fromEntry {
			first = l.entry + w.value
			break
		}
		n := int(w.section)
		if w.kind == fromLast {
			n = len(l.sections) - 1
		}
		if n < 0 || n >= len(l.sections) {
			return 0, 0, false
		}
		first = l.sections[n].at + w.value
		if w.kind == withinASection {
			length += l.sections[n].size
		}
	}
	return first, first + length, first+length >= 0
}
