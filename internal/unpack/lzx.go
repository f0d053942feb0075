package unpack

import (
	"encoding/binary"
	"errors"
	"io"
)

// LZX, the usual compression of Microsoft's cabinets ([MS-PATCH], 2). One block of a cabinet is one frame of 32 KiB.

const (
	lzxMinMatch  = 2
	lzxLengths   = 249 // codes of the length tree
	lzxPreTree   = 20
	lzxMaxSlots  = 50
	lzxE8Frames  = 32768 // frames whose call instructions are translated
	lzxVerbatim  = 1
	lzxAligned   = 2
	lzxRaw       = 3
	lzxShortest  = 7 // from this length on, the length tree is used
	lzxSlotCodes = 8 // codes of the main tree for each position slot
)

var errLZX = errors.New("broken LZX data")

// lzxSlots is the number of position slots for windows of 2^15 to 2^21 bytes.
var lzxSlots = [...]int{30, 32, 34, 36, 38, 42, 50}

// lzxDecoder decodes frame after frame.
type lzxDecoder struct {
	in   []byte // of the present frame
	hold uint64
	have uint

	win    []byte
	pos    int
	filled int // bytes that the window has, at most its size
	r      [3]int
	base   [lzxMaxSlots + 1]int

	kind  int // of the present block
	left  int // bytes that it has left
	odd   bool
	begun bool

	mainLen []byte
	lenLen  [lzxLengths]byte
	main    huffman
	length  huffman
	aligned huffman

	calls  bool // call instructions are translated
	size   int  // of the whole, for that
	frames int
	done   int
}

// checkLZX says what is wrong with a window of 2^bits bytes.
func checkLZX(bits uint) error {
	if bits < 15 || bits > 21 {
		return errorf(Undecodable, "cab", "an LZX window of 2^%d bytes", bits)
	}
	return nil
}

// newLZX returns a decoder with a window of 2^bits bytes.
func newLZX(bits uint) (*lzxDecoder, error) {
	if err := checkLZX(bits); err != nil {
		return nil, err
	}
	z := &lzxDecoder{win: make([]byte, 1<<bits), r: [3]int{1, 1, 1}}
	z.mainLen = make([]byte, 256+lzxSlotCodes*lzxSlots[bits-15])
	for i := range lzxMaxSlots {
		z.base[i+1] = z.base[i] + 1<<lzxExtraBits(i)
	}
	return z, nil
}

func lzxExtraBits(slot int) uint {
	if slot < 4 {
		return 0
	}
	return uint(min(slot/2-1, 17))
}

// bits returns the next n bits, at most 32. They are in words of 16 bits, low byte first, high bit first.
func (z *lzxDecoder) bits(n uint) (uint32, error) {
	for z.have < n {
		if len(z.in) < 2 {
			return 0, io.ErrUnexpectedEOF
		}
		z.hold = z.hold<<16 | uint64(binary.LittleEndian.Uint16(z.in))
		z.in = z.in[2:]
		z.have += 16
	}
	z.have -= n
	return uint32(z.hold>>z.have) & uint32(1<<n-1), nil
}

func (z *lzxDecoder) bit() (uint32, error) { return z.bits(1) }

// block decodes one frame, of size bytes.
func (z *lzxDecoder) block(in []byte, size int) ([]byte, error) {
	z.in, z.hold, z.have = in, 0, 0 // frames begin at a word
	if !z.begun {
		z.begun = true
		if err := z.header(); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, size)
	for len(out) < size {
		if z.left == 0 {
			if err := z.next(); err != nil {
				return out, err
			}
		}
		from := z.pos
		n := min(z.left, size-len(out))
		if err := z.run(n); err != nil {
			return out, err
		}
		for i := range n {
			out = append(out, z.win[(from+i)&(len(z.win)-1)])
		}
		z.left -= n
	}
	z.translate(out)
	z.frames++
	z.done += size
	return out, nil
}

// header says whether call instructions were translated, and for which size.
func (z *lzxDecoder) header() error {
	b, err := z.bits(1)
	if err != nil || b == 0 {
		return err
	}
	hi, err := z.bits(16)
	if err != nil {
		return err
	}
	lo, err := z.bits(16)
	z.size = int(int32(hi<<16 | lo))
	return err
}

// next begins the next block.
func (z *lzxDecoder) next() error {
	if z.odd { // a raw block of odd length is padded
		z.odd = false
		if len(z.in) > 0 {
			z.in = z.in[1:]
		}
	}
	kind, err := z.bits(3)
	if err != nil {
		return err
	}
	size, err := z.bits(24)
	if err != nil {
		return err
	}
	z.kind, z.left = int(kind), int(size)
	switch z.kind {
	case lzxAligned:
		var lengths [8]byte
		for i := range lengths {
			v, err := z.bits(3)
			if err != nil {
				return err
			}
			lengths[i] = byte(v)
		}
		if err := z.aligned.build(lengths[:]); err != nil {
			return err
		}
		return z.trees()
	case lzxVerbatim:
		return z.trees()
	case lzxRaw:
		return z.raw()
	}
	return errLZX
}

// raw begins a block that is not compressed.
func (z *lzxDecoder) raw() error {
	z.calls = true
	// One to sixteen bits are padding. With words read only as they are needed, a whole one is left in the second case.
	if z.have == 0 {
		if len(z.in) < 2 {
			return io.ErrUnexpectedEOF
		}
		z.in = z.in[2:]
	}
	z.hold, z.have = 0, 0
	if len(z.in) < 12 {
		return io.ErrUnexpectedEOF
	}
	for i := range z.r {
		z.r[i] = int(int32(binary.LittleEndian.Uint32(z.in[4*i:])))
	}
	z.in = z.in[12:]
	z.odd = z.left&1 != 0
	return nil
}

// trees reads the main tree and the length tree, which are stored as differences to the ones before.
func (z *lzxDecoder) trees() error {
	if err := z.lengths(z.mainLen[:256]); err != nil {
		return err
	}
	if err := z.lengths(z.mainLen[256:]); err != nil {
		return err
	}
	if err := z.lengths(z.lenLen[:]); err != nil {
		return err
	}
	z.calls = z.calls || z.mainLen[0xe8] != 0
	if err := z.main.build(z.mainLen); err != nil {
		return err
	}
	return z.length.build(z.lenLen[:])
}

// lengths reads code lengths.
func (z *lzxDecoder) lengths(dst []byte) error {
	var pre [lzxPreTree]byte
	for i := range pre {
		v, err := z.bits(4)
		if err != nil {
			return err
		}
		pre[i] = byte(v)
	}
	var tree huffman
	if err := tree.build(pre[:]); err != nil {
		return err
	}
	for i := 0; i < len(dst); {
		sym, err := tree.decode(z)
		if err != nil {
			return err
		}
		n, zero := 1, false
		switch sym {
		case 17, 18:
			zero = true
			extra, least := uint(4), 4
			if sym == 18 {
				extra, least = 5, 20
			}
			v, err := z.bits(extra)
			if err != nil {
				return err
			}
			n = least + int(v)
		case 19:
			v, err := z.bits(1)
			if err != nil {
				return err
			}
			n = 4 + int(v)
			if sym, err = tree.decode(z); err != nil {
				return err
			}
		}
		if sym > 16 && !zero || i+n > len(dst) {
			return errLZX
		}
		value := byte(0)
		if !zero {
			value = byte((int(dst[i]) - sym + 17) % 17)
		}
		for ; n > 0; n-- {
			dst[i] = value
			i++
		}
	}
	return nil
}

// run decodes n bytes of the present block into the window. No match may go beyond them.
func (z *lzxDecoder) run(n int) error {
	if z.kind == lzxRaw {
		if len(z.in) < n {
			return io.ErrUnexpectedEOF
		}
		for _, c := range z.in[:n] {
			z.put(c)
		}
		z.in = z.in[n:]
		return nil
	}
	for n > 0 {
		sym, err := z.main.decode(z)
		if err != nil {
			return err
		}
		if sym < 256 {
			z.put(byte(sym))
			n--
			continue
		}
		length, dist, err := z.match(sym - 256)
		if err != nil {
			return err
		}
		if length > n || dist <= 0 || dist > z.filled {
			return errLZX
		}
		n -= length
		for ; length > 0; length-- {
			z.put(z.win[(z.pos-dist)&(len(z.win)-1)])
		}
	}
	return nil
}

func (z *lzxDecoder) put(c byte) {
	z.win[z.pos] = c
	z.pos = (z.pos + 1) & (len(z.win) - 1)
	z.filled = min(z.filled+1, len(z.win))
}

// match reads what follows the main tree's code of a match.
func (z *lzxDecoder) match(sym int) (length, dist int, err error) {
	length = sym%lzxSlotCodes + lzxMinMatch
	if sym%lzxSlotCodes == lzxShortest {
		more, err := z.length.decode(z)
		if err != nil {
			return 0, 0, err
		}
		length += more
	}
	slot := sym / lzxSlotCodes
	if slot < 3 { // one of the last three distances
		dist = z.r[slot]
		z.r[slot] = z.r[0]
		z.r[0] = dist
		return length, dist, nil
	}
	dist = z.base[slot] - 2
	extra := lzxExtraBits(slot)
	var low int
	if z.kind == lzxAligned && extra >= 3 {
		v, err := z.bits(extra - 3)
		if err != nil {
			return 0, 0, err
		}
		dist += int(v) << 3
		if low, err = z.aligned.decode(z); err != nil {
			return 0, 0, err
		}
	} else {
		v, err := z.bits(extra)
		if err != nil {
			return 0, 0, err
		}
		low = int(v)
	}
	dist += low
	z.r = [3]int{dist, z.r[0], z.r[1]}
	return length, dist, nil
}

// translate turns the absolute targets of call instructions back into relative ones.
func (z *lzxDecoder) translate(b []byte) {
	if !z.calls || z.size == 0 || z.frames >= lzxE8Frames || len(b) <= 10 {
		return
	}
	for i := 0; i < len(b)-10; i++ {
		if b[i] != 0xe8 {
			continue
		}
		at := z.done + i
		target := int(int32(binary.LittleEndian.Uint32(b[i+1:])))
		if target >= -at && target < z.size {
			if target >= 0 {
				target -= at
			} else {
				target += z.size
			}
			binary.LittleEndian.PutUint32(b[i+1:], uint32(int32(target)))
		}
		i += 4
	}
}
