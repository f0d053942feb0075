package content

import (
	"bytes"
	"io"
	"mime/quotedprintable"
	"slices"
)

const (
	fragmentRun  = 40        // characters of base64 in a row that are decoded: shorter runs are words
	fragmentMost = 512 << 10 // bytes of readings of one fragment
)

// Fragments returns the other readings of a piece out of the middle of something longer, which may begin and end anywhere: base64
// (also in the lines of an event stream), wide characters, percent-encoding and quoted-printable, and one of them below another.
// It returns them one after the other, nil where there are none. The cost is linear, and there are at most 512 KiB.
func Fragments(text []byte) []byte {
	var out []byte
	level := [][]byte{text}
	for range 2 {
		var next [][]byte
		for _, t := range level {
			for _, reading := range fragment(t) {
				if len(reading) < minData || len(out)+len(reading) > fragmentMost {
					continue
				}
				out = append(append(out, reading...), '\n')
				next = append(next, reading)
			}
		}
		level = next
	}
	return out
}

// fragment returns the readings of text that take one step.
func fragment(text []byte) (all [][]byte) {
	if joined := eventData(text); joined != nil {
		all = append(all, joined)
		all = append(all, base64Runs(joined)...)
	}
	all = append(all, base64Runs(text)...)
	if bytes.IndexByte(text, 0) >= 0 {
		all = append(all, bytes.ReplaceAll(text, []byte{0}, nil))
	}
	if out, ok := unpercent(text); ok {
		all = append(all, out)
	}
	if isQuotedText(text) {
		out, _ := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(text))) // what came before an error counts
		all = append(all, out)
	}
	return all
}

// eventData returns the data of an event stream's lines, put together (HTML Standard, 9.2.6), nil where there is none.
func eventData(text []byte) []byte {
	if bytes.Count(text, []byte("data:")) < 2 {
		return nil
	}
	var out []byte
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			out = append(out, bytes.TrimRight(bytes.TrimPrefix(data, []byte(" ")), "\r")...)
		}
	}
	return out
}

// base64Runs decodes what looks like base64. A run at the beginning of text may have begun before it, and is decoded from each of
// its first four characters. Words may stand in the lines before base64: it may begin with any line, of which one for each place
// in a group of four is enough.
func base64Runs(text []byte) (all [][]byte) {
	for at := 0; at < len(text); {
		end, n := at, 0
		var starts [4]int // where lines begin, by their place in a group; 0: none does
		for ; end < len(text); end++ {
			if _, ok := sextet(text[end]); ok {
				if n > 0 && text[end-1] == '\n' && starts[n%4] == 0 {
					starts[n%4] = n
				}
				n++
			} else if c := text[end]; c != '\r' && c != '\n' || n == 0 {
				break
			}
		}
		if n >= fragmentRun {
			run := slices.DeleteFunc(slices.Clone(text[at:end]), func(c byte) bool { return c == '\r' || c == '\n' })
			all = append(all, unbase64(run))
			for place := 1; place < 4; place++ {
				switch {
				case at == 0:
					all = append(all, unbase64(run[place:]))
				case starts[place] > 0:
					all = append(all, unbase64(run[starts[place]:]))
				}
			}
		}
		at = end + 1
	}
	return all
}

// unbase64 decodes characters of base64, either alphabet.
func unbase64(run []byte) []byte {
	out := make([]byte, 0, len(run)*3/4)
	var bits uint32
	for i, c := range run {
		v, _ := sextet(c)
		bits = bits<<6 | uint32(v)
		if i%4 == 3 {
			out = append(out, byte(bits>>16), byte(bits>>8), byte(bits)) //nolint:gosec // bytes of the group are meant
		}
	}
	switch len(run) % 4 {
	case 2:
		out = append(out, byte(bits>>4)) //nolint:gosec // as above
	case 3:
		out = append(out, byte(bits>>10), byte(bits>>2)) //nolint:gosec // as above
	}
	return out
}

// unpercent undoes percent-encoding, and says whether there was any.
func unpercent(text []byte) ([]byte, bool) {
	i := bytes.IndexByte(text, '%')
	if i < 0 {
		return nil, false
	}
	out, some := slices.Clone(text[:i]), false
	for ; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			high, ok1 := hexDigit(text[i+1])
			low, ok2 := hexDigit(text[i+2])
			if ok1 && ok2 {
				out, some, i = append(out, high<<4|low), true, i+2
				continue
			}
		}
		out = append(out, text[i])
	}
	return out, some
}
