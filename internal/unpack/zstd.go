package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// zstdWindow is the largest window that RFC 9659 allows in HTTP.
	zstdWindow = 8 << 20
	// zstdBlock is the largest block (RFC 8878, 3.1.1.2.4).
	zstdBlock = 128 << 10

	zstdMagic          = 0xfd2fb528
	zstdSkippable      = 0x184d2a50 // and fifteen more
	zstdSkippableMask  = 0xfffffff0
	zstdSkippableStart = 8
)

var errZstd = errors.New("a broken zstd frame")

// zstdMemory returns what a decoder needs for a window, measured: two blocks more than the window, and three for what comes and goes.
func zstdMemory(window int64) int64 { return window + 5*min(window, zstdBlock) + 96<<10 }

// zstdCoder decodes RFC 8878: frames one after the other, skippable ones among them. The library gets one frame at a time, so that
// the memory for each is taken before it is allocated.
type zstdCoder struct {
	admission
	series
	in      *bufio.Reader
	frame   zstdFrame
	zr      *zstd.Decoder
	taken   int64 // what was taken for this body
	largest int64 // window that zr has met
}

func (c *zstdCoder) name() string { return "zstd" }

func (c *zstdCoder) reset(r io.Reader, admit func(n int64) error) {
	c.in.Reset(r)
	c.admit, c.series, c.taken = admit, series{}, 0
}

func (c *zstdCoder) release() {
	c.in.Reset(nothing{})
	c.admit, c.series = nil, series{}
	if c.zr != nil && (zstdMemory(c.largest) > littleMemory || c.zr.Reset(nil) != nil) {
		c.drop()
	}
	zstdCoders.Put(c)
}

// drop gives the library's decoder up.
func (c *zstdCoder) drop() {
	if c.zr != nil {
		c.zr.Close()
		c.zr, c.largest = nil, 0
	}
}

func (c *zstdCoder) Read(p []byte) (int, error) { return c.read(p, c.next) }

// next begins the next frame that has content. It returns io.EOF when there is none.
func (c *zstdCoder) next() error {
	for {
		head, err := c.in.Peek(4)
		switch {
		case len(head) == 0:
			return err
		case len(head) < 4:
			return unexpected(err)
		}
		magic := binary.LittleEndian.Uint32(head)
		if magic&zstdSkippableMask != zstdSkippable {
			if magic != zstdMagic && c.started {
				return errTrailing
			}
			break
		}
		if head, err = c.in.Peek(zstdSkippableStart); err != nil {
			return unexpected(err)
		}
		if err := c.skip(zstdSkippableStart + int64(binary.LittleEndian.Uint32(head[4:]))); err != nil {
			return err
		}
		c.started = true
	}
	window, err := c.frame.begin(c.in)
	if err != nil {
		return err
	}
	return c.open(min(window, zstdWindow)) // the library refuses a larger one
}

// skip discards n bytes, in steps: every one counts against the limits of whoever reads.
func (c *zstdCoder) skip(n int64) error {
	for n > 0 {
		k, err := c.in.Discard(int(min(n, codedBuffer)))
		if n -= int64(k); err != nil {
			return unexpected(err)
		}
	}
	return nil
}

// open has the library decode a frame. Where it needs more memory than the frames before, those are forgotten first: nobody waits for
// memory who has some.
func (c *zstdCoder) open(window int64) error {
	if need := zstdMemory(window); need > c.taken {
		if c.taken > 0 {
			c.drop()
			if err := c.needs(-c.taken); err != nil {
				return err
			}
			c.taken = 0
		}
		if err := c.needs(need); err != nil {
			return err
		}
		c.taken = need
	}
	c.largest = max(c.largest, window)
	var err error
	if c.zr != nil {
		err = c.zr.Reset(&c.frame)
	} else {
		c.zr, err = newZstd(&c.frame, zstdWindow)
	}
	if err == nil {
		c.cur, c.started = c.zr, true
	}
	return err
}

// newZstd returns a decoder that refuses windows above the given size. One block at a time means that the library starts
// no goroutines: there is nothing to leak, and a panic can be caught.
func newZstd(r io.Reader, window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
}

// zstdFrame reads one frame (RFC 8878, 3.1.1), and ends with it.
type zstdFrame struct {
	in    *bufio.Reader
	left  int64 // of the header, or of the block that is being read
	last  bool  // there is no block after it
	check int64 // the length of the checksum at the end
}

// begin begins the frame that is next in r, and returns the size of its window.
func (f *zstdFrame) begin(r *bufio.Reader) (window int64, err error) {
	*f = zstdFrame{in: r}
	head, err := r.Peek(5)
	if err != nil {
		return 0, unexpected(err)
	}
	if binary.LittleEndian.Uint32(head) != zstdMagic {
		return 0, zstd.ErrMagicMismatch
	}
	d := head[4]
	single := d>>5&1 == 1
	size := []int{0, 2, 4, 8}[d>>6] // of the content's size
	if single && size == 0 {
		size = 1
	}
	length := 5 + []int{0, 1, 2, 4}[d&3] + size
	if !single {
		length++
	}
	if d>>2&1 == 1 {
		f.check = 4
	}
	if head, err = r.Peek(length); err != nil {
		return 0, unexpected(err)
	}
	f.left = int64(length)
	if !single {
		base := int64(1) << (10 + head[5]>>3)
		return base + base/8*int64(head[5]&7), nil
	}
	var content [8]byte
	copy(content[:], head[length-size:])
	n := binary.LittleEndian.Uint64(content[:])
	if size == 2 {
		n += 256
	}
	return int64(min(n, 1<<62)), nil
}

func (f *zstdFrame) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for f.left == 0 {
		switch {
		case !f.last:
			if err := f.block(); err != nil {
				return 0, err
			}
		case f.check > 0:
			f.left, f.check = f.check, 0
		default:
			return 0, io.EOF
		}
	}
	n, err := f.in.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, unexpected(err)
}

// block reads the header of the next block (RFC 8878, 3.1.1.2).
func (f *zstdFrame) block() error {
	head, err := f.in.Peek(3)
	if err != nil {
		return unexpected(err)
	}
	h := uint32(head[0]) | uint32(head[1])<<8 | uint32(head[2])<<16
	f.last, f.left = h&1 == 1, 3+int64(h>>3)
	switch h >> 1 & 3 {
	case 1: // one byte, repeated
		f.left = 3 + 1
	case 3:
		return errZstd
	}
	return nil
}
