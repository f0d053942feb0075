package corpus

import (
	"bytes"
	"cmp"
	"compress/bzip2"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"lazaret/internal/scan"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// known is what readable has found out, by content.
var known = struct {
	sync.Mutex
	by map[[sha256.Size]byte]finding
}{by: map[[sha256.Size]byte]finding{}}

// finding is how the virus was read, with at most so many decodings; "": it was not.
type finding struct {
	how  string
	left int
}

// deepest is how many decodings are tried on top of each other; shallow is how many of a whole answer, head and all, which is different
// each time for its date. Of the gateway's own pages each is tried by itself.
const (
	deepest = 4
	shallow = 2
)

// readable says by which sequence of decodings the test virus can be read out of b, "" where by none that is known here. It is
// more lenient than any client: it starts anywhere, ignores checksums and errors, and takes what came before them.
func readable(b []byte, depth int) string {
	return read(b, depth, nil)
}

// readable says by which decodings a client could read the virus out of an answer.
func (o *outcome) readable() string {
	depth, whole := deepest, shallow
	if o.page {
		depth, whole = 1, 0
	}
	how := cmp.Or(readable(o.body, depth), readable(o.raw, whole))
	for _, b := range bodies(o.raw) {
		how = cmp.Or(how, readable(b, depth))
	}
	return how
}

// read is readable with at most so many decodings of what came of all those in way. What was read once is not read again: the clients get
// the same.
func read(b []byte, left int, way [][sha256.Size]byte) string {
	if len(b) < len(scan.EICAR())/2 { // no decoding here makes more of it
		return ""
	}
	if bytes.Contains(b, scan.EICAR()) {
		return "as it stands"
	}
	if left == 0 {
		return ""
	}
	sum := sha256.Sum256(b)
	known.Lock()
	f, seen := known.by[sum]
	known.Unlock()
	if seen && (f.how != "" || f.left >= left) {
		return f.how
	}
	if slices.Contains(way, sum) {
		return "" // in circles
	}
	f = finding{left: left}
	way = append(slices.Clone(way), sum)
decoding:
	for _, d := range decoders {
		for _, next := range d.decode(b) {
			if how := read(next, left-1, way); how != "" {
				f.how = d.name + ", " + how
				break decoding
			}
		}
	}
	known.Lock()
	defer known.Unlock()
	known.by[sum] = f
	return f.how
}

const most = 1 << 20 // of what is decoded is looked at

type decoder struct {
	name   string
	decode func([]byte) [][]byte
}

var decoders []decoder

func init() { // a variable's initialiser could not refer to itself
	decoders = []decoder{
		{"body", bodies},
		{"chunked", dechunk},
		{"gzip", at("\x1f\x8b", readGzip)},
		{"zlib", everyZlib},
		{"deflate", inflate},
		{"br", unbrotli},
		{"zstd", at("\x28\xb5\x2f\xfd", readZstd)},
		{"bzip2", at("BZh", bzip2.NewReader)},
		{"base64", unbase64},
		{"quoted-printable", from(func(r io.Reader) io.Reader { return quotedprintable.NewReader(r) })},
		{"percent", percent},
		{"wide characters", narrow},
		{"UTF-7", utf7},
		{"multipart", parts},
		{"zip", unzip},
		{"event data", eventData},
	}
}

func some(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, most)) // what came before an error counts
	return b
}

// from decodes from the beginning.
func from(open func(io.Reader) io.Reader) func([]byte) [][]byte {
	return func(b []byte) [][]byte {
		if out := some(open(bytes.NewReader(b))); len(out) > 0 {
			return [][]byte{out}
		}
		return nil
	}
}

// at decodes from each place where magic is.
func at(magic string, open func(io.Reader) io.Reader) func([]byte) [][]byte {
	return func(b []byte) (all [][]byte) {
		for i := 0; len(all) < 20; i++ {
			k := bytes.Index(b[i:], []byte(magic))
			if k < 0 {
				break
			}
			i += k
			if out := some(open(bytes.NewReader(b[i:]))); len(out) > 0 {
				all = append(all, out)
			}
		}
		return all
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

func readGzip(r io.Reader) io.Reader {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nothing{}
	}
	return z
}

func readZstd(r io.Reader) io.Reader {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nothing{}
	}
	defer z.Close()
	return bytes.NewReader(some(z))
}

func everyZlib(b []byte) (all [][]byte) {
	for i := 0; i+2 <= len(b) && i < 1<<16; i++ {
		if b[i]&0x0f != 8 || (int(b[i])<<8|int(b[i+1]))%31 != 0 {
			continue
		}
		if z, err := zlib.NewReader(bytes.NewReader(b[i:])); err == nil {
			all = append(all, some(z))
		}
	}
	return all
}

// What decoders need much memory for is used again.
var (
	unflate = sync.Pool{New: func() any { return flate.NewReader(nothing{}) }}
	unbr    = sync.Pool{New: func() any { return brotli.NewReader(nothing{}) }}
)

// inflate reads bare deflate from the beginning, and from behind the headers that gzip and zlib have.
func inflate(b []byte) (all [][]byte) {
	z := unflate.Get().(io.Reader)
	defer unflate.Put(z)
	for _, i := range []int{0, 2, 10} {
		if i < len(b) {
			if err := z.(flate.Resetter).Reset(bytes.NewReader(b[i:]), nil); err != nil {
				continue
			}
			all = append(all, some(z))
		}
	}
	return all
}

// unbrotli reads br from the beginning.
func unbrotli(b []byte) [][]byte {
	z := unbr.Get().(*brotli.Reader)
	defer unbr.Put(z)
	_ = z.Reset(bytes.NewReader(b)) // documented never to fail
	if out := some(z); len(out) > 0 {
		return [][]byte{out}
	}
	return nil
}

var blank = regexp.MustCompile(`\r?\n\r?\n|\r\r`)

// bodies returns what follows each of the first blank lines.
func bodies(b []byte) (all [][]byte) {
	for _, m := range blank.FindAllIndex(b, 4) {
		all = append(all, b[m[1]:])
	}
	return all
}

const chunkLine = `[ \t]*(?:0[xX])?([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?(?:\r\n|\n|\r)`

var (
	chunkHead = regexp.MustCompile(`(?:^|\n|\r)` + chunkLine)
	chunkHere = regexp.MustCompile(`(?s)^(?:.{0,2}[\n\r])?` + chunkLine) // at the beginning, but for the end of the chunk before
)

// dechunk reads chunks from each of the first lines that look like a chunk's head.
func dechunk(b []byte) (all [][]byte) {
	for _, start := range chunkHead.FindAllIndex(b, 4) {
		rest := b[start[0]:]
		var out []byte
		for {
			m := chunkHere.FindSubmatchIndex(rest)
			if m == nil {
				break
			}
			n, err := strconv.ParseUint(string(rest[m[2]:m[3]]), 16, 31)
			if err != nil || n == 0 {
				break
			}
			rest = rest[m[1]:]
			n = min(n, uint64(len(rest)))
			out = append(out, rest[:n]...)
			rest = rest[n:]
		}
		if len(out) > 0 {
			all = append(all, out)
		}
	}
	return all
}

var base64Run = regexp.MustCompile(`[A-Za-z0-9+/_\-=\s]{40,}`)

func unbase64(b []byte) (all [][]byte) {
	runs := base64Run.FindAll(b, 8)
	if len(runs) != 1 || len(runs[0]) < len(b) {
		runs = append(runs, b)
	}
	for _, run := range runs {
		text := strings.Map(func(r rune) rune {
			switch {
			case r == '-':
				return '+'
			case r == '_':
				return '/'
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '+', r == '/':
				return r
			}
			return -1
		}, string(run))
		for skip := range min(4, len(text)) {
			if out, _ := base64.RawStdEncoding.DecodeString(text[skip : skip+(len(text)-skip)/4*4]); len(out) > 0 {
				all = append(all, out)
			}
		}
	}
	return all
}

var escape = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

func percent(b []byte) [][]byte {
	if out, err := url.PathUnescape(string(b)); err == nil && bytes.ContainsRune(b, '%') {
		return [][]byte{[]byte(out)}
	}
	if !bytes.ContainsRune(b, '%') {
		return nil
	}
	return [][]byte{escape.ReplaceAllFunc(b, func(e []byte) []byte {
		n, _ := strconv.ParseUint(string(e[1:]), 16, 8)
		return []byte{byte(n)}
	})}
}

// narrow drops what wide characters have too much, and all zeros.
func narrow(b []byte) [][]byte {
	if bytes.IndexByte(b, 0) < 0 {
		return nil
	}
	var even, odd []byte
	for i, c := range b {
		if i%2 == 0 {
			even = append(even, c)
		} else {
			odd = append(odd, c)
		}
	}
	return [][]byte{even, odd, bytes.ReplaceAll(b, []byte{0}, nil)}
}

var shifted = regexp.MustCompile(`\+([A-Za-z0-9+/]*)-?`)

func utf7(b []byte) [][]byte {
	if !bytes.ContainsRune(b, '+') {
		return nil
	}
	return [][]byte{shifted.ReplaceAllFunc(b, func(s []byte) []byte {
		text := strings.Trim(string(s[1:]), "-")
		if text == "" {
			return []byte("+")
		}
		out, _ := base64.RawStdEncoding.DecodeString(text)
		return bytes.ReplaceAll(out, []byte{0}, nil)
	})}
}

var partHead = regexp.MustCompile(`(?s)\r?\n?--[^\r\n]{1,80}\r?\n(?:[A-Za-z-]+:[^\n]*\n)*\r?\n`)

// parts puts the contents of all parts together.
func parts(b []byte) [][]byte {
	if !partHead.Match(b) {
		return nil
	}
	return [][]byte{partHead.ReplaceAll(b, nil)}
}

// TestLenientReaderReads proves that the reader finds what it is to find: a reader that is blind sees no evasion.
func TestLenientReaderReads(t *testing.T) {
	virus, clean := payload()
	for i, s := range samples() {
		if !s.infected && i%16 != 1 {
			continue // all that is harmless takes minutes: nothing ends the search early
		}
		whole := outcome{body: s.body, raw: []byte(s.bytes())}
		if how := whole.readable(); s.infected && how == "" && !unreadable[s.name] {
			t.Errorf("%s/%s: nothing found", s.family, s.name)
		} else if !s.infected && how != "" {
			t.Errorf("%s/%s: found by %s", s.family, s.name, how)
		}
	}
	if readable(virus, deepest) == "" || readable(clean, deepest) != "" {
		t.Error("it cannot even read")
	}
}

// unreadable are the constructs in which the virus is not whole, or that the lenient reader has no decoder for.
var unreadable = map[string]bool{
	"zlib with a dictionary": true, "206 unasked": true, "extension with a line end in it": true, // in pieces
	"cut off within the head": true, "nothing": true, "200 without content": true, // nothing is there
}
