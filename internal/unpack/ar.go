package unpack

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
)

// Archives that are members one after the other: ar (Debian packages), cpio, and RPM packages, which carry a cpio archive.

const (
	arMagic  = "!<arch>\n"
	arHeader = 60
)

func openAr(w *walker, n *node, off int64) error {
	size := n.blob.Size()
	var names []byte // GNU's table of long names
	for at := off + int64(len(arMagic)); at < size; {
		if err := w.alive(n.path); err != nil {
			return err
		}
		h := make([]byte, arHeader)
		if k, err := n.blob.ReadAt(h, at); k < arHeader || string(h[58:]) != "`\n" {
			if k == 1 && h[0] == '\n' {
				return nil // padding
			}
			return noHeader("ar", at, err)
		}
		length, err := strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 62)
		if err != nil || length < 0 {
			return errorf(Undecodable, "ar", "a member without a size, at offset %d", at)
		}
		at += arHeader
		name := strings.TrimRight(string(h[:16]), " ")
		start, skip := at, int64(0)
		switch {
		case name == "//" && length <= tarNames:
			names = make([]byte, min(length, size-at))
			if _, err := n.blob.ReadAt(names, at); err != nil && err != io.EOF { //nolint:errorlint // io.ReaderAt says that the end is io.EOF itself
				return err
			}
		case strings.HasPrefix(name, "#1/"): // BSD: the name is the beginning of the content
			skip = bsdName(name[3:], length)
			b := make([]byte, skip)
			_, _ = n.blob.ReadAt(b, at) // what cannot be read is found when the content is
			name = strings.TrimRight(string(b), "\x00")
		case len(name) > 1 && name[0] == '/' && names != nil:
			name = gnuName(names, name[1:])
		}
		if err := visitStretch(w, n, strings.TrimSuffix(name, "/"), start+skip, length-skip); err != nil {
			return err
		}
		if length > size-at {
			return nil
		}
		at += length + length&1
	}
	return nil
}

// noHeader is the error for an archive that is broken, or ends (err is io.EOF), where a header must be.
func noHeader(what string, at int64, err error) error {
	if err == nil {
		return errorf(Undecodable, what, "no header at offset %d", at)
	}
	return errorf(Undecodable, what, "no header at offset %d: %w", at, unexpected(err))
}

func bsdName(digits string, length int64) int64 {
	k, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || k < 0 || k > length || k > 4096 {
		return 0
	}
	return k
}

func gnuName(table []byte, digits string) string {
	k, err := strconv.Atoi(digits)
	if err != nil || k < 0 || k >= len(table) {
		return ""
	}
	rest := table[k:]
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		rest = rest[:i]
	}
	return string(rest)
}

// visitStretch gives size bytes of n from off on as a member. It reports when there are fewer.
func visitStretch(w *walker, n *node, name string, off, size int64) error {
	if size <= 0 {
		return nil
	}
	s := w.stream(n, off, size)
	defer s.close()
	var r io.Reader = s
	if size > n.blob.Size()-off {
		r = io.MultiReader(s, truncated{})
	}
	_, err := w.member(n, name, r)
	return err
}

// cpioHeader is a member's header, of any of the formats.
type cpioHeader struct {
	length   int64 // of the header
	nameSize int64
	size     int64
	align    int64 // of the name's and the content's ends
}

// parseCpio reads the header at the beginning of h.
func parseCpio(h []byte) (c cpioHeader, ok bool) {
	number := func(from, length, base int) int64 {
		v, err := strconv.ParseUint(string(h[from:from+length]), base, 62)
		ok = ok && err == nil
		return int64(v)
	}
	ok = true
	switch {
	case len(h) >= 110 && (string(h[:6]) == "070701" || string(h[:6]) == "070702"): // newc, and newc with checksums
		c = cpioHeader{length: 110, align: 4, size: number(54, 8, 16), nameSize: number(94, 8, 16)}
	case len(h) >= 76 && string(h[:6]) == "070707": // odc
		c = cpioHeader{length: 76, align: 1, nameSize: number(59, 6, 8), size: number(65, 11, 8)}
	case len(h) >= 26 && (h[0] == 0xc7 && h[1] == 0x71 || h[0] == 0x71 && h[1] == 0xc7): // binary, of either byte order
		var order binary.ByteOrder = binary.LittleEndian
		if h[0] == 0x71 {
			order = binary.BigEndian
		}
		c = cpioHeader{
			length: 26, align: 2, nameSize: int64(order.Uint16(h[20:])),
			size: int64(order.Uint16(h[22:]))<<16 | int64(order.Uint16(h[24:])),
		}
	default:
		return c, false
	}
	return c, ok && c.nameSize > 0 && c.nameSize <= 1<<16
}

// maxCpioName is PATH_MAX of systems that have made archives of the binary formats.
const maxCpioName = 4096

// looksLikeCpio says whether head begins with a cpio header: its name must end where the header says. The binary formats are known by
// two bytes, which one file in 32,768 has by chance: there a name whose end is not seen must at least be one.
func looksLikeCpio(head []byte) bool {
	c, ok := parseCpio(head)
	if !ok {
		return false
	}
	end := c.length + c.nameSize
	if end > int64(len(head)) {
		return head[0] == '0' || c.nameSize <= maxCpioName && !bytes.Contains(head[c.length:], []byte{0})
	}
	return head[end-1] == 0 && !bytes.Contains(head[c.length:end-1], []byte{0})
}

func openCpio(w *walker, n *node, off int64) error {
	size := n.blob.Size()
	align := func(at, to int64) int64 { return off + (at-off+to-1)/to*to }
	for at := off; at < size; {
		if err := w.alive(n.path); err != nil {
			return err
		}
		h := make([]byte, 110)
		k, err := n.blob.ReadAt(h, at)
		c, ok := parseCpio(h[:k])
		if !ok {
			return noHeader("cpio", at, err)
		}
		name := make([]byte, c.nameSize)
		if k, _ := n.blob.ReadAt(name, at+c.length); int64(k) < c.nameSize {
			return &Error{Kind: Undecodable, What: "cpio", Err: io.ErrUnexpectedEOF}
		}
		at = align(at+c.length+c.nameSize, c.align)
		if cString(name) == "TRAILER!!!" {
			return afterCpio(w, n, at)
		}
		if err := visitStretch(w, n, cString(name), at, c.size); err != nil {
			return err
		}
		if c.size > size-at {
			return nil
		}
		at = align(at+c.size, c.align)
	}
	return errorf(Undecodable, "cpio", "the archive ends without its trailer")
}

// afterCpio gives what follows the trailer. An initial RAM disk is several archives in a row.
func afterCpio(w *walker, n *node, at int64) error {
	s := w.stream(n, at, -1)
	defer s.close()
	return w.trailing(n, s)
}

// rpmLead is the length of the obsolete header that an RPM package begins with.
const rpmLead = 96

// openRPM gives the payload of an RPM package, which is a compressed cpio archive behind two headers.
func openRPM(w *walker, n *node, off int64) error {
	at := off + rpmLead
	for i := range 2 {
		var h [16]byte
		if _, err := n.blob.ReadAt(h[:], at); err != nil || string(h[:3]) != "\x8e\xad\xe8" {
			return noHeader("rpm", at, err)
		}
		entries := int64(binary.BigEndian.Uint32(h[8:]))
		store := int64(binary.BigEndian.Uint32(h[12:]))
		at += int64(len(h)) + 16*entries + store
		if i == 0 { // the signature's header is padded
			at = off + (at-off+7)&^7
		}
	}
	if at >= n.blob.Size() {
		return &Error{Kind: Undecodable, What: "rpm", Err: io.ErrUnexpectedEOF}
	}
	return visitStretch(w, n, "payload", at, n.blob.Size()-at)
}
