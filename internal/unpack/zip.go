package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"lazaret/internal/spool"
)

// A zip archive says everything twice: in a local header before each member, and in a central directory at the end. Some
// programs go by the one, some by the other, some look for the directory in different places, some search for local
// headers. Their results differ when the two do not agree, and somebody who wants to get past a scanner makes them differ.
// So members are collected from all central directories that can be found, and from all local headers that are left over
// then, and each is read in every way that any of its headers asks for.

const (
	zipLocal   = 30 // lengths of the fixed parts
	zipCentral = 46
	zipEnd     = 22
	zipEnd64   = 56
	zipLoc64   = 20

	sigLocal   = "PK\x03\x04"
	sigCentral = "PK\x01\x02"
	sigEnd     = "PK\x05\x06"
	sigEnd64   = "PK\x06\x06"
	sigLoc64   = "PK\x06\x07"
	sigData    = "PK\x07\x08"

	maxDirectories = 8 // central directories that are read in one file

	flagEncrypted  = 1 << 0
	flagDescriptor = 1 << 3
	flagMasked     = 1 << 13 // the central directory itself is encrypted
)

var (
	errNoDirectory = errors.New("there is no central directory: the archive is not complete")
	errCutHeader   = errors.New("a member's header is not complete")
)

// zipEntry is what one header says about a member.
type zipEntry struct {
	name   string
	method uint16
	flags  uint16
	crc    uint32
	packed int64 // compressed size
	size   int64 // of the content
	header int64 // offset of the local header in the file
	data   int64 // offset of the content
	listed bool  // in a central directory, or where members must be
}

// looksLikeLocalHeader says whether h begins with a local header that makes sense.
func looksLikeLocalHeader(h []byte) bool {
	if len(h) < zipLocal || string(h[:4]) != sigLocal {
		return false
	}
	le := binary.LittleEndian
	version, method, nameLen := h[4], le.Uint16(h[8:]), int(le.Uint16(h[26:]))
	if version > 100 || method > 100 || nameLen == 0 || nameLen > 4096 {
		return false
	}
	name := h[zipLocal:min(len(h), zipLocal+nameLen)]
	return bytes.IndexByte(name, 0) < 0
}

// zipTail is where the end of a central directory is searched for: its comment may have 65,535 bytes, and programs
// tolerate a little behind it.
const zipTail = zipEnd + 1<<16 + 1<<10

// tail returns the last bytes of b, and the offset where they begin.
func tail(b *spool.Blob, n int64) ([]byte, int64) {
	start := max(0, b.Size()-n)
	if mem, ok := b.Bytes(); ok {
		return mem[start:], start
	}
	buf := make([]byte, b.Size()-start)
	if _, err := b.ReadAt(buf, start); err != nil && err != io.EOF { //nolint:errorlint // io.ReaderAt says that the end is io.EOF itself
		return nil, start
	}
	return buf, start
}

// endsAsZip says whether b has a central directory at its end, with something in it.
func endsAsZip(b *spool.Blob) bool {
	if b.Size() < zipEnd+zipCentral {
		return false
	}
	buf, start := tail(b, zipTail)
	if !bytes.Contains(buf, []byte(sigEnd)) { // asked of every object, and many times faster than LastIndex
		return false
	}
	for at := bytes.LastIndex(buf, []byte(sigEnd)); at >= 0; at = bytes.LastIndex(buf[:at], []byte(sigEnd)) {
		if len(directoriesAt(b, buf[at:], start+int64(at))) > 0 {
			return true
		}
	}
	return false
}

// zipDirectory is a central directory.
type zipDirectory struct {
	start, end int64 // in the file
	shift      int64 // what its offsets must be raised by: the length of what stands before the archive
	split      bool  // there are other parts of the archive elsewhere
}

// directoriesAt returns the central directories that an end record points at. There are two where the offsets can be
// understood as counting from the start of the file, and from the start of the archive.
func directoriesAt(b *spool.Blob, end []byte, at int64) []zipDirectory {
	if len(end) < zipEnd {
		return nil
	}
	le := binary.LittleEndian
	size, off := int64(le.Uint32(end[12:])), int64(le.Uint32(end[16:]))
	split := le.Uint16(end[4:]) != 0 && le.Uint16(end[4:]) != 0xffff || le.Uint16(end[6:]) != le.Uint16(end[4:])
	type candidate struct{ at, size, off int64 }
	candidates := []candidate{{at, size, off}}
	if at64, size64, off64, ok := end64(b, at); ok {
		candidates = append([]candidate{{at64, size64, off64}}, candidates...)
	}
	var dirs []zipDirectory
	for _, c := range candidates {
		for _, shift := range []int64{0, c.at - c.size - c.off} {
			d := zipDirectory{start: c.off + shift, end: c.off + shift + c.size, shift: shift, split: split}
			if shift >= 0 && d.start >= 0 && c.size >= zipCentral && hasSignature(b, d.start, sigCentral) {
				known := false
				for _, e := range dirs {
					known = known || e.start == d.start && e.shift == d.shift
				}
				if !known {
					dirs = append(dirs, d)
				}
			}
		}
	}
	return dirs
}

// end64 returns what the zip64 record before the end record at the offset says.
func end64(b *spool.Blob, at int64) (at64, size, off int64, ok bool) {
	var loc [zipLoc64]byte
	if at < zipLoc64 || !readFull(b, loc[:], at-zipLoc64) || string(loc[:4]) != sigLoc64 {
		return 0, 0, 0, false
	}
	le := binary.LittleEndian
	var rec [zipEnd64]byte
	// Where the locator points, or, with something before the archive, right before the locator.
	for _, at64 := range []int64{int64(le.Uint64(loc[8:])), at - zipLoc64 - zipEnd64} {
		if at64 >= 0 && readFull(b, rec[:], at64) && string(rec[:4]) == sigEnd64 {
			size, off := le.Uint64(rec[40:]), le.Uint64(rec[48:])
			if size < 1<<62 && off < 1<<62 {
				return at64, int64(size), int64(off), true
			}
		}
	}
	return 0, 0, 0, false
}

func readFull(b *spool.Blob, p []byte, off int64) bool {
	k, _ := b.ReadAt(p, off)
	return k == len(p)
}

func hasSignature(b *spool.Blob, off int64, sig string) bool {
	var s [4]byte
	return readFull(b, s[:], off) && string(s[:]) == sig
}

// zipWalk is the reading of one archive.
type zipWalk struct {
	w    *walker
	n    *node
	size int64

	tried   map[zipAttempt]struct{}
	headers map[int64]struct{} // local headers that were read
	covered stretches          // what belongs to the members that are listed, and to directories
	looked  int64              // bytes that were searched for headers
}

func openZip(w *walker, n *node, _ int64) error {
	z := &zipWalk{
		w: w, n: n, size: n.blob.Size(),
		tried: make(map[zipAttempt]struct{}), headers: make(map[int64]struct{}),
	}
	buf, start := tail(n.blob, zipTail)
	var dirs []zipDirectory
	for at := bytes.LastIndex(buf, []byte(sigEnd)); at >= 0 && len(dirs) < maxDirectories; at = bytes.LastIndex(buf[:at], []byte(sigEnd)) {
		dirs = append(dirs, directoriesAt(n.blob, buf[at:], start+int64(at))...)
	}
	for _, d := range dirs {
		if err := z.directory(d); err != nil {
			return err
		}
	}
	if len(dirs) == 0 {
		empty := z.size >= zipEnd && hasSignature(n.blob, 0, sigEnd)
		if !empty {
			w.problem(n.path, &Error{Kind: Undecodable, What: "zip", Err: errNoDirectory})
		}
	}
	return z.leftOver()
}

// directory reads a central directory and its members.
func (z *zipWalk) directory(d zipDirectory) error {
	z.covered.add(d.start, d.end)
	if d.split {
		z.w.problem(z.n.path, errorf(Undecodable, "zip", "one part of an archive that was split"))
	}
	s := z.w.stream(z.n, d.start, -1) // not to d.end: it may be a lie
	defer s.close()
	for {
		if err := z.w.alive(z.n.path); err != nil {
			return err
		}
		h, err := s.Peek(zipCentral)
		if err != nil || string(h[:4]) != sigCentral {
			if s.pos() < d.end {
				z.w.problem(z.n.path, errorf(Undecodable, "zip", "the central directory is broken at offset %d", s.pos()))
			}
			z.covered.add(d.start, s.pos())
			return nil
		}
		e, err := readCentral(s)
		if err != nil {
			z.w.problem(z.n.path, &Error{Kind: Undecodable, What: "zip", Err: unexpected(err)})
			return nil
		}
		if err := z.member(d, e); err != nil {
			return err
		}
	}
}

// readCentral reads a header of a central directory.
func readCentral(s *stream) (zipEntry, error) {
	var h [zipCentral]byte
	if _, err := io.ReadFull(s, h[:]); err != nil {
		return zipEntry{}, err
	}
	le := binary.LittleEndian
	nameLen, extraLen, commentLen := int(le.Uint16(h[28:])), int(le.Uint16(h[30:])), int(le.Uint16(h[32:]))
	b := make([]byte, nameLen+extraLen)
	if _, err := io.ReadFull(s, b); err != nil {
		return zipEntry{}, err
	}
	if _, err := s.Discard(commentLen); err != nil && !errors.Is(err, io.EOF) {
		return zipEntry{}, err
	}
	e := zipEntry{
		name: string(b[:nameLen]), flags: le.Uint16(h[8:]), method: le.Uint16(h[10:]), crc: le.Uint32(h[16:]),
		packed: int64(le.Uint32(h[20:])), size: int64(le.Uint32(h[24:])), header: int64(le.Uint32(h[42:])), listed: true,
	}
	e.zip64(b[nameLen:], &e.header)
	return e, nil
}

// zip64 reads the extra field that has the sizes which do not fit in the header: those that are all ones there.
func (e *zipEntry) zip64(extra []byte, offset *int64) {
	le := binary.LittleEndian
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return
		}
		field := extra[:n]
		extra = extra[n:]
		if id != 1 {
			continue
		}
		for _, v := range []*int64{&e.size, &e.packed, offset} {
			if v != nil && *v == 1<<32-1 && len(field) >= 8 {
				if u := le.Uint64(field); u < 1<<62 {
					*v = int64(u)
				}
				field = field[8:]
			}
		}
	}
}

// local reads the local header at an offset.
func (z *zipWalk) local(off int64) (e zipEntry, ok bool) {
	var h [zipLocal]byte
	if off < 0 || !readFull(z.n.blob, h[:], off) || string(h[:4]) != sigLocal {
		return e, false
	}
	le := binary.LittleEndian
	nameLen, extraLen := int64(le.Uint16(h[26:])), int64(le.Uint16(h[28:]))
	b := make([]byte, nameLen+extraLen)
	if !readFull(z.n.blob, b, off+zipLocal) {
		return e, false
	}
	e = zipEntry{
		name: string(b[:nameLen]), flags: le.Uint16(h[6:]), method: le.Uint16(h[8:]), crc: le.Uint32(h[14:]),
		packed: int64(le.Uint32(h[18:])), size: int64(le.Uint32(h[22:])), header: off, data: off + zipLocal + nameLen + extraLen,
	}
	e.zip64(b[nameLen:], nil)
	return e, true
}

// member reads a member that a central directory lists, as that has it and as its local header does.
func (z *zipWalk) member(d zipDirectory, e zipEntry) error {
	local, ok := z.local(e.header + d.shift)
	if !ok && d.shift != 0 {
		local, ok = z.local(e.header)
	}
	path := joinPath(z.n.path, cleanName(e.name))
	if !ok {
		if e.packed > 0 && !d.split {
			z.w.problem(path, errorf(Undecodable, "zip", "no member where the central directory says that it is"))
		}
		return nil
	}
	if e.flags&flagMasked != 0 {
		z.w.problem(path, errorf(Encrypted, "zip", "the central directory is encrypted"))
		return nil
	}
	z.headers[local.header] = struct{}{}
	e.header, e.data = local.header, local.data
	views := []zipEntry{e}
	if local.differs(&e) {
		views = append(views, local)
	}
	r, err := z.read(views)
	z.covered.add(local.header, r.end)
	return err
}

// differs says whether a local header makes a program read something else than the central header e does. Sizes that are
// left to the data descriptor say nothing.
func (e *zipEntry) differs(c *zipEntry) bool {
	if e.method != c.method || (e.flags^c.flags)&flagEncrypted != 0 {
		return true
	}
	return e.flags&flagDescriptor == 0 && (e.packed != c.packed || e.size != c.size)
}
