package unpack

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/flate"
)

// cabHeader is the length of the fixed part of a cabinet's header.
const cabHeader = 36

const (
	cabStored = 0
	cabMSZIP  = 1
	cabLZX    = 3

	cabMaxBlock = 32 << 10 // of content
)

var errCab = errorf(Undecodable, "cab", "the cabinet is broken")

// cabFolder is a stretch of content that is compressed as a whole.
type cabFolder struct {
	data   int64 // offset of the first block
	blocks int
	method uint16
	files  []cabFile
}

type cabFile struct {
	name      string
	off, size int64
}

// openCab gives the files of a Microsoft cabinet. A folder is unpacked into the pool as a whole first: its files may lie in
// it in any way.
func openCab(w *walker, n *node, off int64) error {
	folders, reserve, err := readCab(w, n, off)
	if err != nil {
		return err
	}
	for i := range folders {
		f := &folders[i]
		if len(f.files) == 0 {
			continue
		}
		if err := cabFiles(w, n, f, reserve); err != nil {
			return err
		}
	}
	return nil
}

func cabFiles(w *walker, n *node, f *cabFolder, reserve int) error {
	r := &cabReader{s: w.stream(n, f.data, -1), left: f.blocks, reserve: reserve, method: f.method & 15}
	defer r.s.close()
	release := func() {}
	switch r.method {
	case cabStored:
	case cabMSZIP:
		r.inflate = flate.NewReader(nothing{})
	case cabLZX:
		bits := uint(f.method >> 8 & 31)
		err := checkLZX(bits)
		if err != nil {
			return err
		}
		if release, err = w.reserve(1<<bits, "cab"); err != nil {
			return err
		}
		if r.lzx, err = newLZX(bits); err != nil {
			release()
			return err
		}
	default:
		return errorf(Undecodable, "cab", "compression method %d, which is not known here", r.method)
	}
	m, err := w.take(n, "folder", r)
	release()
	defer m.close()
	if err != nil {
		return err
	}
	if m.err != nil {
		w.problem(n.path, m.err)
	}
	if m.blob == nil {
		return nil
	}
	content := &node{blob: m.blob, path: n.path, depth: n.depth}
	for _, file := range f.files {
		if err := visitStretch(w, content, file.name, file.off, file.size); err != nil {
			return err
		}
	}
	return nil
}

// readCab reads the headers of a cabinet.
func readCab(w *walker, n *node, off int64) (folders []cabFolder, reserve int, err error) {
	s := w.stream(n, off, -1)
	defer s.close()
	var h [cabHeader]byte
	if _, err := io.ReadFull(s, h[:]); err != nil {
		return nil, 0, unexpected(err)
	}
	le := binary.LittleEndian
	files, flags := int(le.Uint16(h[28:])), le.Uint16(h[30:])
	folders = make([]cabFolder, le.Uint16(h[26:]))
	folderReserve := 0
	if flags&4 != 0 {
		var r [4]byte
		if _, err := io.ReadFull(s, r[:]); err != nil {
			return nil, 0, unexpected(err)
		}
		folderReserve, reserve = int(r[2]), int(r[3])
		if _, err := s.Discard(int(le.Uint16(r[:]))); err != nil {
			return nil, 0, unexpected(err)
		}
	}
	for bit := range 4 { // names of the cabinets and disks before and after
		if flags&(1<<(bit/2)) != 0 {
			if _, err := cabString(s); err != nil {
				return nil, 0, err
			}
		}
	}
	for i := range folders {
		b := make([]byte, 8+folderReserve)
		if _, err := io.ReadFull(s, b); err != nil {
			return nil, 0, unexpected(err)
		}
		folders[i] = cabFolder{data: off + int64(le.Uint32(b)), blocks: int(le.Uint16(b[4:])), method: le.Uint16(b[6:])}
	}
	return folders, reserve, cabList(w, n, off+int64(le.Uint32(h[16:])), files, folders)
}

// cabList reads the list of files, and puts them into their folders.
func cabList(w *walker, n *node, off int64, files int, folders []cabFolder) error {
	s := w.stream(n, off, -1)
	defer s.close()
	le := binary.LittleEndian
	for range files {
		var h [16]byte
		if _, err := io.ReadFull(s, h[:]); err != nil {
			return unexpected(err)
		}
		name, err := cabString(s)
		if err != nil {
			return err
		}
		i := int(le.Uint16(h[8:]))
		if i >= 0xfffd {
			// Begins in the cabinet before this one, or ends in the next.
			w.problem(joinPath(n.path, cleanName(name)), errorf(Undecodable, "cab", "a part of the file is in another cabinet"))
			if i == 0xfffe {
				i = len(folders) - 1
			} else {
				i = 0
			}
		}
		if i < 0 || i >= len(folders) {
			return errCab
		}
		folders[i].files = append(folders[i].files, cabFile{name: name, off: int64(le.Uint32(h[4:])), size: int64(le.Uint32(h[:]))})
	}
	return nil
}

// cabString reads a name that ends with a zero.
func cabString(s *stream) (string, error) {
	var b []byte
	for len(b) <= 1024 {
		c, err := s.ReadByte()
		if err != nil {
			return "", unexpected(err)
		}
		if c == 0 {
			return string(b), nil
		}
		b = append(b, c)
	}
	return "", errCab
}

// cabReader unpacks the blocks of a folder.
type cabReader struct {
	s       *stream
	left    int // blocks
	reserve int // bytes in each block's header that belong to somebody else
	method  uint16
	inflate io.ReadCloser
	lzx     *lzxDecoder
	block   []byte // content of the present block
	out     int    // bytes of it that were returned
	history []byte // the last 32 KiB of content: MSZIP refers back to them
	wrong   bool   // some block does not have its checksum
}

// Read implements io.Reader.
func (c *cabReader) Read(p []byte) (int, error) {
	for c.out == len(c.block) {
		if c.left == 0 {
			if c.wrong { // said at the end: tolerant programs unpack it all the same
				return 0, errorf(Undecodable, "cab", "the content does not have its checksum")
			}
			return 0, io.EOF
		}
		c.left--
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.block[c.out:])
	c.out += n
	return n, nil
}

// cabSum is the checksum of cabinets ([MS-CAB], 3.1): the exclusive or of words, the last one being what is left over, in the
// opposite order.
func cabSum(b []byte, sum uint32) uint32 {
	for ; len(b) >= 4; b = b[4:] {
		sum ^= binary.LittleEndian.Uint32(b)
	}
	last := uint32(0)
	for _, c := range b {
		last = last<<8 | uint32(c)
	}
	return sum ^ last
}

func (c *cabReader) next() error {
	h := make([]byte, 8+c.reserve)
	if _, err := io.ReadFull(c.s, h); err != nil {
		return unexpected(err)
	}
	packed := make([]byte, binary.LittleEndian.Uint16(h[4:]))
	size := int(binary.LittleEndian.Uint16(h[6:]))
	if _, err := io.ReadFull(c.s, packed); err != nil {
		return unexpected(err)
	}
	if size > cabMaxBlock {
		return errCab
	}
	if sum := binary.LittleEndian.Uint32(h); sum != 0 { // 0: there is none
		// Programs do not agree on whether the reserved bytes count.
		own := cabSum(packed, 0)
		c.wrong = c.wrong || sum != cabSum(h[4:8], own) && sum != cabSum(h[4:], own)
	}
	c.block, c.out = nil, 0
	var err error
	switch c.method {
	case cabStored:
		c.block = packed
	case cabMSZIP:
		if !bytes.HasPrefix(packed, []byte("CK")) {
			return errCab
		}
		if err := c.inflate.(flate.Resetter).Reset(bytes.NewReader(packed[2:]), c.history); err != nil {
			return err
		}
		block := make([]byte, size)
		var k int
		k, err = io.ReadFull(c.inflate, block)
		c.block = block[:k]
		c.history = append(c.history, c.block...)
		c.history = c.history[max(0, len(c.history)-cabMaxBlock):]
	case cabLZX:
		c.block, err = c.lzx.block(packed, size)
	}
	if err != nil {
		return unexpected(err)
	}
	return nil
}
