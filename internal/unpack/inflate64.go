package unpack

import (
	"errors"
	"io"
)

// Deflate64, which Windows uses for large members of zip archives, and no library here reads: RFC 1951 with a window of
// 64 KiB, two more distance codes, and a length code 285 that takes 16 extra bits.

const inflateWindow = 1 << 16

var errInflate64 = errors.New("broken deflate64 data")

// inflate64 decodes Deflate64.
type inflate64 struct {
	r    io.ByteReader
	hold uint64 // bits that were read and not used
	have uint

	win    [inflateWindow]byte
	w      int // next byte to write
	out    int // next byte to return
	wait   int // bytes from out to w
	total  int64
	length int // of a match that is being copied
	dist   int

	last   bool
	state  func(z *inflate64) error
	stored int
	lit    huffman
	off    huffman
}

func newInflate64(r io.ByteReader) *inflate64 { return &inflate64{r: r, state: (*inflate64).header} }

// bits returns the next n bits, at most 32.
func (z *inflate64) bits(n uint) (uint32, error) {
	for z.have < n {
		c, err := z.r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		z.hold |= uint64(c) << z.have
		z.have += 8
	}
	v := uint32(z.hold & (1<<n - 1))
	z.hold >>= n
	z.have -= n
	return v, nil
}

func (z *inflate64) bit() (uint32, error) { return z.bits(1) }

func (z *inflate64) decode(h *huffman) (int, error) { return h.decode(z) }

// Read implements io.Reader.
func (z *inflate64) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if z.wait > 0 {
			k := copy(p[n:], z.win[z.out:min(z.out+z.wait, inflateWindow)])
			z.out = (z.out + k) % inflateWindow
			z.wait -= k
			n += k
			continue
		}
		if z.state == nil {
			break
		}
		if err := z.state(z); err != nil {
			z.state = nil
			return n, err
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// full says whether the window has no room: what is in it must be read first.
func (z *inflate64) full() bool { return z.wait == inflateWindow }

func (z *inflate64) put(c byte) {
	z.win[z.w] = c
	z.w = (z.w + 1) % inflateWindow
	z.wait++
	z.total++
}

// header begins the next block.
func (z *inflate64) header() error {
	if z.last {
		z.state = nil
		return nil
	}
	h, err := z.bits(3)
	if err != nil {
		return err
	}
	z.last = h&1 != 0
	switch h >> 1 {
	case 0:
		z.bitsToByte()
		v, err := z.bits(32)
		if err != nil {
			return err
		}
		if v&0xffff != ^v>>16 {
			return errInflate64
		}
		z.stored = int(v & 0xffff)
		z.state = (*inflate64).copyStored
		return nil
	case 1:
		return z.fixed()
	case 2:
		return z.dynamic()
	}
	return errInflate64
}

func (z *inflate64) bitsToByte() {
	z.hold >>= z.have % 8
	z.have -= z.have % 8
}

func (z *inflate64) copyStored() error {
	for z.stored > 0 && !z.full() {
		c, err := z.bits(8)
		if err != nil {
			return err
		}
		z.put(byte(c))
		z.stored--
	}
	if z.stored == 0 {
		z.state = (*inflate64).header
	}
	return nil
}

func (z *inflate64) fixed() error {
	var lengths [288]byte
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	var dist [32]byte
	for i := range dist {
		dist[i] = 5
	}
	z.state = (*inflate64).block
	if err := z.lit.build(lengths[:]); err != nil {
		return err
	}
	return z.off.build(dist[:])
}

var codeOrder = [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block.
func (z *inflate64) dynamic() error {
	counts, err := z.bits(14)
	if err != nil {
		return err
	}
	nlit, ndist, ncode := int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	var lengths [320]byte
	for i := range ncode {
		v, err := z.bits(3)
		if err != nil {
			return err
		}
		lengths[codeOrder[i]] = byte(v)
	}
	if err := z.lit.build(lengths[:19]); err != nil {
		return err
	}
	clear(lengths[:])
	for i := 0; i < nlit+ndist; {
		sym, err := z.decode(&z.lit)
		if err != nil {
			return err
		}
		if sym < 16 {
			lengths[i] = byte(sym)
			i++
			continue
		}
		var value byte
		extra, base := uint(7), 11
		switch sym {
		case 16:
			if i == 0 {
				return errInflate64
			}
			value, extra, base = lengths[i-1], 2, 3 //nolint:gosec // i is between 1 and nlit+ndist here, which is at most 320
		case 17:
			extra, base = 3, 3
		}
		v, err := z.bits(extra)
		if err != nil {
			return err
		}
		n := base + int(v)
		if i+n > nlit+ndist {
			return errInflate64
		}
		for ; n > 0; n-- {
			lengths[i] = value //nolint:gosec // i+n was compared with nlit+ndist above, which is at most 320
			i++
		}
	}
	z.state = (*inflate64).block
	if err := z.lit.build(lengths[:nlit]); err != nil {
		return err
	}
	return z.off.build(lengths[nlit : nlit+ndist])
}

// block decodes literals and matches until the window is full or the block ends.
func (z *inflate64) block() error {
	for {
		for z.length > 0 {
			if z.full() {
				return nil
			}
			z.put(z.win[(z.w-z.dist+inflateWindow)%inflateWindow])
			z.length--
		}
		if z.full() {
			return nil
		}
		sym, err := z.decode(&z.lit)
		switch {
		case err != nil:
			return err
		case sym < 256:
			z.put(byte(sym))
			continue
		case sym == 256:
			z.state = (*inflate64).header
			return nil
		}
		if err := z.match(sym); err != nil {
			return err
		}
	}
}

// match reads the rest of a match whose length code is sym.
func (z *inflate64) match(sym int) error {
	var extra uint
	var base int
	switch {
	case sym < 265:
		base = sym - 257 + 3
	case sym < 285:
		extra = uint(sym-261) / 4
		base = (4+(sym-261)%4)<<extra + 3
	case sym == 285:
		extra, base = 16, 3
	default:
		return errInflate64
	}
	v, err := z.bits(extra)
	if err != nil {
		return err
	}
	z.length = base + int(v)
	sym, err = z.decode(&z.off)
	if err != nil {
		return err
	}
	if sym < 4 {
		z.dist = sym + 1
	} else {
		extra := uint(sym)/2 - 1
		v, err := z.bits(extra)
		if err != nil {
			return err
		}
		z.dist = (2+sym&1)<<extra + int(v) + 1
	}
	if int64(z.dist) > z.total {
		return errInflate64
	}
	return nil
}
