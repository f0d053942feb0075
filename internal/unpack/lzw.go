package unpack

import (
	"errors"
	"io"
)

// The .Z files of the Unix tool compress: LZW with codes of 9 to 16 bits, low bit first, in groups of eight. The lzw
// packages of the libraries read the variants of GIF, TIFF and PDF only.

func openCompress(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	r, err := newLZW(s)
	if err != nil {
		return err
	}
	return w.oneStream(n, s, "", r)
}

const (
	lzwFirstBits = 9
	lzwMaxBits   = 16
	lzwClear     = 256
	lzwTableSize = 1 << lzwMaxBits
)

var errLZW = errors.New("a code that cannot be")

// lzwReader decodes a .Z file.
type lzwReader struct {
	r       io.Reader
	maxBits uint
	block   bool // code 256 clears the table

	bits  uint // length of the codes at present
	free  int  // the first code that is not in the table
	old   int  // the code before; -1 at the start
	first byte // the first byte of the last string
	group [lzwMaxBits]byte
	have  uint // bits in group
	off   uint // bits of group that were used

	prefix [lzwTableSize]uint16
	suffix [lzwTableSize]byte
	stack  [lzwTableSize]byte // the next string, at its end
	top    int
}

// newLZW reads the header.
func newLZW(r io.Reader) (*lzwReader, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, unexpected(err)
	}
	z := &lzwReader{
		r: r, maxBits: uint(head[2] & 0x1f), block: head[2]&0x80 != 0,
		bits: lzwFirstBits, free: lzwClear, old: -1, top: lzwTableSize,
	}
	if z.maxBits < lzwFirstBits || z.maxBits > lzwMaxBits {
		return nil, errorf(Undecodable, "compress", "codes of %d bits", z.maxBits)
	}
	if z.maxBits == lzwFirstBits {
		z.maxBits++ // gzip and pigz read it so; compress itself cannot read what it writes here
	}
	if z.block {
		z.free++
	}
	for i := range 256 {
		z.suffix[i] = byte(i)
	}
	return z, nil
}

// Read implements io.Reader. The format has no end marker: the content ends where the file does.
func (z *lzwReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if z.top == lzwTableSize {
			if err := z.next(); err != nil {
				if n > 0 && err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
					return n, nil
				}
				return n, err
			}
		}
		k := copy(p[n:], z.stack[z.top:])
		z.top += k
		n += k
	}
	return n, nil
}

// code returns the next code, io.EOF when there are not enough bits for one.
func (z *lzwReader) code() (int, error) {
	if z.free > 1<<z.bits-1 && z.bits < z.maxBits {
		z.bits++
		z.have = 0
	}
	if z.off+z.bits > z.have || z.have == 0 {
		k, err := io.ReadFull(z.r, z.group[:z.bits])
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, err
		}
		z.have, z.off = uint(k)*8, 0
		if z.have < z.bits {
			return 0, io.EOF
		}
	}
	v := 0
	for i := range z.bits {
		at := z.off + i
		v |= int(z.group[at/8]>>(at%8)&1) << i
	}
	z.off += z.bits
	return v, nil
}

// next puts the string of the next code on the stack.
func (z *lzwReader) next() error {
	c, err := z.code()
	if err != nil {
		return err
	}
	if z.old < 0 {
		if c > 255 {
			return errLZW
		}
		z.old, z.first = c, byte(c)
		z.top--
		z.stack[z.top] = byte(c)
		return nil
	}
	if c == lzwClear && z.block {
		// As compress does it: the next code makes an entry at 256, which is never used.
		z.free, z.bits, z.have = lzwClear, lzwFirstBits, 0
		return nil
	}
	given := c
	if c >= z.free {
		if c > z.free {
			return errLZW
		}
		z.top--
		z.stack[z.top] = z.first
		c = z.old
	}
	for c > 255 {
		z.top--
		z.stack[z.top] = z.suffix[c]
		c = int(z.prefix[c])
	}
	z.first = byte(c)
	z.top--
	z.stack[z.top] = z.first
	if z.free < 1<<z.maxBits {
		z.prefix[z.free], z.suffix[z.free] = uint16(z.old), z.first
		z.free++
	}
	z.old = given
	return nil
}
