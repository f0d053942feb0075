package unpack

import (
	"archive/tar"
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"
)

// Tar archives are read here rather than by archive/tar, which stops at the first header that it does not like, and knows
// one way to read the others. Where the pax header and the classic one disagree about a member's size, programs differ in
// where they look for the next header; members are visited under both readings.

const (
	tarBlock = 512
	// tarNames bounds the size of a member that is part of a header: a long name, or pax records.
	tarNames = 1 << 20
)

// looksLikeTar says whether head begins with a tar header. Its checksum has to be right; where the magic of POSIX and GNU
// is missing (the tar of Unix V7 has none), the other fields have to be sane as well.
func looksLikeTar(head []byte) bool {
	if len(head) < tarBlock || !tarChecksum(head[:tarBlock]) {
		return false
	}
	if string(head[257:262]) == "ustar" {
		return true
	}
	for _, field := range [][]byte{head[100:108], head[108:116], head[116:124], head[124:136], head[136:148]} {
		if _, ok := tarNumber(field); !ok {
			return false
		}
	}
	return head[0] != 0 && (head[156] == 0 || head[156] >= '0' && head[156] <= '7')
}

// tarChecksum says whether a header block has the checksum that it states; some old writers summed signed bytes.
func tarChecksum(h []byte) bool {
	want, ok := tarNumber(h[148:156])
	if !ok || want == 0 {
		return false
	}
	var unsigned, signed int64
	for i, c := range h {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

// tarNumber reads a numeric field: octal digits, or GNU's base 256.
func tarNumber(f []byte) (int64, bool) {
	if f[0]&0x80 != 0 {
		v := int64(f[0] & 0x3f)
		if f[0]&0x40 != 0 {
			return 0, false // negative
		}
		for _, c := range f[1:] {
			if v > math.MaxInt64>>8 {
				return 0, false
			}
			v = v<<8 | int64(c)
		}
		return v, true
	}
	s := strings.Trim(string(f), " \x00")
	if s == "" {
		return 0, true
	}
	v, err := strconv.ParseUint(s, 8, 62)
	return int64(v), err == nil
}

// tarWalk is the reading of one archive.
type tarWalk struct {
	w    *walker
	n    *node
	size int64
	todo []int64            // offsets where a header is, by another reading than the usual
	seen map[int64]struct{} // offsets of the members that were read
}

// tarMember is a member's header, with what the extension headers before it say.
type tarMember struct {
	start    int64 // of the first extension header
	name     string
	paxSize  int64 // as the pax header has it; -1: it does not
	sparse   bool
	typeflag byte
}

func openTar(w *walker, n *node, off int64) error {
	t := &tarWalk{w: w, n: n, size: n.blob.Size(), seen: make(map[int64]struct{})}
	if err := t.from(off, true); err != nil {
		return err
	}
	for len(t.todo) > 0 {
		at := t.todo[len(t.todo)-1]
		t.todo = t.todo[:len(t.todo)-1]
		if err := t.from(at, false); err != nil {
			return err
		}
	}
	return nil
}

// isHeader says whether a header is at off.
func (t *tarWalk) isHeader(off int64) bool {
	h := make([]byte, tarBlock)
	k, _ := t.n.blob.ReadAt(h, off)
	return k == tarBlock && looksLikeTar(h)
}

// from reads the archive from a header on: to its end, and beyond it, or, where this is not the usual reading, as long as
// one header follows the other.
func (t *tarWalk) from(at int64, usual bool) error {
	next := tarMember{start: at, paxSize: -1}
	h := make([]byte, tarBlock)
	ended := false
	for at <= t.size-tarBlock {
		if err := t.w.alive(t.n.path); err != nil {
			return err
		}
		if _, err := t.n.blob.ReadAt(h, at); err != nil {
			return err
		}
		size, sized := tarNumber(h[124:136])
		if !sized || !tarChecksum(h) {
			if !usual {
				return nil
			}
			// The end, padding, or something broken. Some programs stop here, others search on: so do we.
			if !ended && !allZero(h) {
				t.w.problem(t.n.path, errorf(Undecodable, "tar", "no header where one must be, at offset %d", at))
			}
			ended = true
			if at = t.resync(at + tarBlock); at < 0 {
				return nil
			}
			next = tarMember{start: at, paxSize: -1}
			continue
		}
		after, err := t.header(&next, h, at+tarBlock, size)
		if err != nil {
			return err
		}
		if after >= 0 { // an extension header: more about the same member follows
			at = after
			continue
		}
		if _, again := t.seen[at]; again {
			return nil // this reading has come to where another was
		}
		t.seen[at] = struct{}{}
		if at, err = t.member(&next, at, size); err != nil {
			return err
		}
		next = tarMember{start: at, paxSize: -1}
	}
	return nil
}

// resync returns the offset of the next header from off on, -1 when there is none.
func (t *tarWalk) resync(off int64) int64 {
	buf := make([]byte, 64*tarBlock)
	for off <= t.size-tarBlock && t.w.alive(t.n.path) == nil {
		k, _ := t.n.blob.ReadAt(buf, off)
		for i := 0; i+tarBlock <= k; i += tarBlock {
			if h := buf[i : i+tarBlock]; !allZero(h) && looksLikeTar(h) {
				return off + int64(i)
			}
		}
		off += int64(len(buf))
	}
	return -1
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// padded rounds up to whole blocks.
func padded(n int64) int64 { return (n + tarBlock - 1) &^ (tarBlock - 1) }

// header adds to m what the header h says. Where it is an extension header it returns the offset of the next header,
// otherwise -1.
func (t *tarWalk) header(m *tarMember, h []byte, data, size int64) (next int64, err error) {
	switch flag := h[156]; flag {
	case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink, 'X':
		if size > tarNames || size > t.size-data {
			return 0, errorf(TooLarge, "tar", "a header of %d bytes, at offset %d", size, data-tarBlock)
		}
		body := make([]byte, size)
		if _, err := t.n.blob.ReadAt(body, data); err != nil && err != io.EOF { //nolint:errorlint // io.ReaderAt says that the end is io.EOF itself
			return 0, err
		}
		switch flag {
		case tar.TypeGNULongName:
			m.name = string(bytes.TrimRight(body, "\x00"))
		case tar.TypeXHeader, 'X':
			m.pax(body)
		}
		return data + padded(size), nil
	case tar.TypeGNUSparse:
		m.sparse = true
	}
	m.typeflag = h[156]
	if m.name == "" {
		m.name = cString(h[:100])
		if prefix := cString(h[345:500]); prefix != "" && string(h[257:263]) == "ustar\x00" {
			m.name = prefix + "/" + m.name
		}
	}
	return -1, nil
}

// pax reads pax records, "length key=value\n" each.
func (m *tarMember) pax(b []byte) {
	for len(b) > 0 {
		sp := bytes.IndexByte(b, ' ')
		if sp < 0 {
			return
		}
		n, err := strconv.Atoi(string(b[:sp]))
		if err != nil || n <= sp+1 || n > len(b) {
			return
		}
		key, value, _ := strings.Cut(strings.TrimSuffix(string(b[sp+1:n]), "\n"), "=")
		switch {
		case key == "path":
			m.name = value
		case key == "size":
			if v, err := strconv.ParseInt(value, 10, 64); err == nil && v >= 0 {
				m.paxSize = v
			}
		case strings.HasPrefix(key, "GNU.sparse."):
			m.sparse = true
			if key == "GNU.sparse.name" {
				m.name = value
			}
		}
		b = b[n:]
	}
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// member visits a member, under all readings of its size, and returns the offset of the header after it.
func (t *tarWalk) member(m *tarMember, header, size int64) (int64, error) {
	data := header + tarBlock
	if m.typeflag == tar.TypeGNUSparse {
		data = t.afterSparseMap(header)
	}
	sizes := []int64{size}
	if m.paxSize >= 0 && m.paxSize != size {
		sizes = []int64{m.paxSize, size} // the pax size counts; a program that does not know pax goes by the other
	}
	if !hasData(m.typeflag) {
		// Links, devices and directories have no data, whatever the size says; some programs skip it all the same.
		if t.isHeader(data) {
			sizes = append([]int64{0}, sizes...)
		} else {
			sizes = append(sizes, 0)
		}
	}
	for i, size := range sizes {
		if err := visitStretch(t.w, t.n, m.name, data, size); err != nil {
			return 0, err
		}
		if end := data + padded(min(size, t.size)); i > 0 && t.isHeader(end) {
			t.todo = append(t.todo, end)
		}
	}
	if m.sparse {
		if err := t.expand(m); err != nil {
			return 0, err
		}
	}
	return data + padded(min(sizes[0], t.size)), nil
}

// hasData says whether members of a type are followed by data.
func hasData(flag byte) bool {
	switch flag {
	case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return false
	}
	return true
}

// truncated is what is read where there should have been more.
type truncated struct{}

func (truncated) Read([]byte) (int, error) {
	return 0, &Error{Kind: Undecodable, Err: io.ErrUnexpectedEOF}
}

// expand gives a sparse member as it is when it has been unpacked: with its holes. The library knows the formats of the
// map; it reads this one member only.
func (t *tarWalk) expand(m *tarMember) error {
	s := t.w.stream(t.n, m.start, -1)
	defer s.close()
	r := tar.NewReader(s)
	if _, err := r.Next(); err != nil {
		t.w.problem(joinPath(t.n.path, cleanName(m.name)), &Error{Kind: Undecodable, What: "tar", Err: err})
		return nil
	}
	_, err := t.w.member(t.n, m.name, r)
	return err
}

// afterSparseMap returns where the data of an old GNU sparse member begins: behind the blocks that continue its map.
func (t *tarWalk) afterSparseMap(header int64) int64 {
	more := func(off int64) bool {
		var b [1]byte
		_, err := t.n.blob.ReadAt(b[:], off)
		return err == nil && b[0] != 0
	}
	data := header + tarBlock
	if !more(header + 482) {
		return data
	}
	for more(data + 504) {
		data += tarBlock
	}
	return data + tarBlock
}
