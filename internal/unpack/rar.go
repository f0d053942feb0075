package unpack

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/nwaples/rardecode/v2"
)

// RAR archives are decoded by rardecode. What it passes over are service blocks. One kind of them has content that WinRAR
// writes to disk, wherever the stream's name says: NTFS streams. They are looked for here first, together with how large
// a dictionary the archive asks for.

const (
	rar4Magic = rarMagic + "\x00"
	rar5Magic = rarMagic + "\x01\x00"

	rarMaxHeader = 2 << 20 // RAR's own limit
	rarMinWindow = 256 << 10
	// rar4Memory is what decoding RAR 3 and 4 takes: a window of 4 MiB, and what of the PPM model is usually filled.
	rar4Memory = 32 << 20
)

// saneRAR checks the header behind the signature.
func saneRAR(h []byte, _ int64) bool {
	switch {
	case len(h) >= 20 && string(h[:7]) == rar4Magic:
		size := int(binary.LittleEndian.Uint16(h[12:]))
		return h[9] == 0x73 && size >= 13 && 7+size <= len(h) &&
			uint16(crc32.ChecksumIEEE(h[9:7+13])) == binary.LittleEndian.Uint16(h[7:])
	case len(h) >= 20 && string(h[:8]) == rar5Magic:
		size, k := binary.Uvarint(h[12:])
		return k > 0 && size > 0 && int(min(size, 1<<20))+12+k <= len(h) &&
			crc32.ChecksumIEEE(h[12:12+k+int(size)]) == binary.LittleEndian.Uint32(h[8:])
	}
	return false
}

func openRAR(w *walker, n *node, off int64) error {
	o := &rarBlocks{w: w, n: n, size: n.blob.Size()}
	if err := o.scan(off); err != nil {
		return err
	}
	memory := min(max(o.dict, rarMinWindow), int64(w.lim.Memory)-w.memory)
	release, err := w.reserve(memory, "rar")
	if kindOf(err) == SpoolFull {
		return err // there is enough, and others have it
	}
	if err != nil || memory < rarMinWindow {
		release()
		return errorf(TooLarge, "rar", "the archive's dictionary of %d bytes takes more memory than there is", o.dict)
	}
	defer release()
	s := w.stream(n, off, -1)
	defer s.close()
	r, err := rardecode.NewReader(s, rardecode.MaxDictionarySize(memory))
	if err != nil {
		return rarError(err)
	}
	for w.alive(n.path) == nil {
		h, err := r.Next()
		if err == io.EOF { //nolint:errorlint // of a library that returns it unwrapped
			return nil
		}
		if err != nil {
			return rarError(err)
		}
		if h.IsDir {
			continue
		}
		if h.Encrypted {
			w.problem(joinPath(n.path, cleanName(h.Name)), errorf(Encrypted, "rar", "the member is encrypted"))
			if h.Solid {
				return nil
			}
			continue
		}
		whole, err := w.member(n, h.Name, rarMember{r})
		if err != nil {
			return err
		}
		if !whole && o.solid {
			return nil // the members behind it cannot be read without it
		}
	}
	return errStopped
}

// rarMember sorts the errors of reading a member.
type rarMember struct{ r *rardecode.Reader }

func (m rarMember) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		err = rarError(err)
	}
	return n, err
}

func rarError(err error) error {
	kind := Undecodable
	switch {
	case errors.Is(err, rardecode.ErrArchiveEncrypted), errors.Is(err, rardecode.ErrArchivedFileEncrypted),
		errors.Is(err, rardecode.ErrBadPassword):
		kind = Encrypted
	case errors.Is(err, rardecode.ErrDictionaryTooLarge):
		kind = TooLarge
	}
	return &Error{Kind: kind, What: "rar", Err: unexpected(err)}
}

// rarBlocks goes through the blocks of an archive.
type rarBlocks struct {
	w     *walker
	n     *node
	size  int64
	dict  int64 // the largest that a member asks for
	solid bool
	last  string // name of the last file: streams belong to it
}

// scan looks at all blocks that can be read. What is broken rardecode will find out.
func (o *rarBlocks) scan(off int64) error {
	var magic [8]byte
	if !readFull(o.n.blob, magic[:], off) {
		return &Error{Kind: Undecodable, What: "rar", Err: io.ErrUnexpectedEOF}
	}
	if string(magic[:]) == rar5Magic {
		return o.scan5(off + 8)
	}
	o.dict = rar4Memory
	return o.scan4(off + 7)
}

func (o *rarBlocks) scan5(at int64) error {
	for at < o.size {
		if err := o.w.alive(o.n.path); err != nil {
			return err
		}
		head := make([]byte, min(4+3+64, o.size-at))
		if !readFull(o.n.blob, head, at) || len(head) < 8 {
			return nil
		}
		size, k := binary.Uvarint(head[4:])
		if k <= 0 || k > 3 || size == 0 || size > rarMaxHeader || int64(size) > o.size-at {
			return nil
		}
		start := at + 4 + int64(k)
		body := make([]byte, size)
		if !readFull(o.n.blob, body, start) {
			return nil
		}
		p := &rarFields{b: body}
		kind, flags := p.number(), p.number()
		var extra, data uint64
		if flags&1 != 0 {
			extra = p.number()
		}
		if flags&2 != 0 {
			data = p.number()
		}
		at = start + int64(size)
		switch kind {
		case 1:
			o.solid = p.number()&4 != 0
		case 2, 3:
			if err := o.file5(p, kind == 3, extra, at, int64(min(data, 1<<62))); err != nil {
				return err
			}
		case 4:
			return errorf(Encrypted, "rar", "the archive's headers are encrypted")
		case 5:
			return nil
		}
		if data > uint64(o.size) {
			return nil
		}
		at += int64(data)
	}
	return nil
}

// file5 looks at a file block, or a service block, of RAR 5.
func (o *rarBlocks) file5(p *rarFields, service bool, extraSize uint64, data, packed int64) error {
	flags := p.number()
	size := p.number()
	p.number() // attributes
	if flags&2 != 0 {
		p.take(4)
	}
	if flags&4 != 0 {
		p.take(4)
	}
	info := p.number()
	p.number() // host system
	name := string(p.take(p.number()))
	method := info >> 7 & 7
	if !service {
		o.last = name
		if method != 0 {
			o.dictionary5(info, size, flags)
		}
		return nil
	}
	if name != "STM" || extraSize > uint64(len(p.b)) {
		return nil
	}
	stream, encrypted := rar5Extra(p.b[uint64(len(p.b))-extraSize:])
	return o.stream(stream, method == 0 && !encrypted, data, packed)
}

// dictionary5 notes the dictionary that a file asks for. RAR 7 added sizes that are no powers of two.
func (o *rarBlocks) dictionary5(info, size, flags uint64) {
	dict := int64(128<<10) << (info >> 10 & 15)
	if info&63 == 1 { // RAR 7
		dict = int64(128<<10) << (info >> 10 & 31)
		dict += dict / 32 * int64(info>>15&31)
	}
	if unknown := flags&8 != 0; !unknown && info&64 == 0 {
		dict = min(dict, int64(min(size, 1<<62)))
	}
	o.dict = max(o.dict, dict)
}

// rar5Extra reads the extra area of a service block: the name of the stream, and whether it is encrypted.
func rar5Extra(b []byte) (name string, encrypted bool) {
	p := &rarFields{b: b}
	for len(p.b) > 0 {
		field := &rarFields{b: p.take(p.number())}
		switch field.number() {
		case 1:
			encrypted = true
		case 7:
			name = string(field.b)
		}
	}
	return name, encrypted
}

func (o *rarBlocks) scan4(at int64) error {
	le := binary.LittleEndian
	for at < o.size {
		if err := o.w.alive(o.n.path); err != nil {
			return err
		}
		var h [11]byte
		k, _ := o.n.blob.ReadAt(h[:], at)
		if k < 7 {
			return nil
		}
		kind, flags, size := h[2], le.Uint16(h[3:]), int64(le.Uint16(h[5:]))
		data := int64(0)
		if flags&0x8000 != 0 || kind == 0x74 || kind == 0x7a {
			data = int64(le.Uint32(h[7:]))
		}
		if size < 7 {
			return nil
		}
		body := make([]byte, size)
		if !readFull(o.n.blob, body, at) {
			return nil
		}
		switch kind {
		case 0x73:
			o.solid = flags&8 != 0
			if flags&0x80 != 0 {
				return errorf(Encrypted, "rar", "the archive's headers are encrypted")
			}
		case 0x74, 0x7a:
			if flags&0x100 != 0 && size >= 36 {
				data |= int64(le.Uint32(body[32:])&(1<<30-1)) << 32
			}
			if kind == 0x7a && size >= 32 {
				if err := o.service4(body, flags, at+size, data); err != nil {
					return err
				}
			}
		case 0x77: // the sub-blocks of RAR 2: type 0x105 is a stream
			if size >= 13 && le.Uint16(body[11:]) == 0x105 {
				if err := o.stream("", false, at+size, data); err != nil {
					return err
				}
			}
		case 0x7b:
			return nil
		}
		at += size + data
	}
	return nil
}

// service4 looks at a service block of RAR 3 and 4.
func (o *rarBlocks) service4(b []byte, flags uint16, data, packed int64) error {
	at := 32
	if flags&0x100 != 0 {
		at += 8
	}
	end := at + int(binary.LittleEndian.Uint16(b[26:]))
	if end > len(b) || string(b[at:end]) != "STM" {
		return nil
	}
	return o.stream(cString(b[end:]), b[25] == 0x30 && flags&4 == 0, data, packed)
}

// stream gives an NTFS stream, where it can be read without decoding it.
func (o *rarBlocks) stream(name string, stored bool, data, size int64) error {
	name = o.last + ":" + name
	if stored {
		return visitStretch(o.w, o.n, name, data, size)
	}
	o.w.problem(joinPath(o.n.path, cleanName(name)), errorf(Undecodable, "rar", "an NTFS stream that is compressed"))
	return nil
}

// rarFields reads the fields of a RAR 5 header. What is not there reads as 0.
type rarFields struct{ b []byte }

func (p *rarFields) number() uint64 {
	v, k := binary.Uvarint(p.b)
	if k <= 0 {
		p.b = nil
		return 0
	}
	p.b = p.b[k:]
	return v
}

func (p *rarFields) take(n uint64) []byte {
	n = min(n, uint64(len(p.b)))
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}
