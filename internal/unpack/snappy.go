package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
)

// snappyStream is what Snappy's framing format begins with. In the block format it would be 895 bytes that begin with a copy of
// what came long before, and so broken.
const snappyStream = "\xff\x06\x00\x00sNaPpY"

// snappyBlock bounds a block, which is decoded in memory, as it comes and decoded.
const snappyBlock = 8 << 20

const (
	// snappyFrames is what a decoder of frames needs: a block as it comes and decoded, and its buffers.
	snappyFrames = 192 << 10
	// snappyMost is what one of blocks needs: what comes, with as much again while that grows, and what it is decoded.
	snappyMost = 3*snappyBlock + codedBuffer
)

var snappyCoders = sync.Pool{New: func() any {
	return &snappyCoder{in: bufio.NewReaderSize(nothing{}, codedBuffer)}
}}

// snappyCoder decodes Snappy in both formats that gRPC and HTTP clients have: frames, and one block.
type snappyCoder struct {
	admission
	in     *bufio.Reader
	frames *s2.Reader // kept for the next use
	cur    io.Reader  // nil before the first byte
}

func (c *snappyCoder) name() string { return "snappy" }

func (c *snappyCoder) reset(r io.Reader, admit func(n int64) error) {
	c.in.Reset(r)
	c.admit, c.cur = admit, nil
}

func (c *snappyCoder) release() {
	c.in.Reset(nothing{})
	if c.frames != nil {
		c.frames.Reset(nothing{})
	}
	c.admit, c.cur = nil, nil
	snappyCoders.Put(c)
}

func (c *snappyCoder) Read(p []byte) (int, error) {
	if c.cur == nil {
		if err := c.start(); err != nil {
			return 0, err
		}
	}
	return c.cur.Read(p)
}

// start looks at the first bytes.
func (c *snappyCoder) start() error {
	head, err := c.in.Peek(len(snappyStream))
	if len(head) == 0 {
		return err
	}
	if string(head) != snappyStream {
		return c.block(head)
	}
	if err := c.needs(snappyFrames); err != nil {
		return err
	}
	if c.frames == nil {
		c.frames = s2.NewReader(c.in, s2.ReaderMaxBlockSize(64<<10)) // the format has no larger ones
	} else {
		c.frames.Reset(c.in)
	}
	c.cur = c.frames
	return nil
}

// block decodes the block format. Head is how it begins: with its length.
func (c *snappyCoder) block(head []byte) error {
	size, err := s2.DecodedLen(head)
	switch {
	case err != nil:
		return err
	case size > snappyBlock:
		return &Error{Kind: TooLarge, What: "snappy", Err: fmt.Errorf("a block of more than %d bytes", snappyBlock)}
	}
	// Two bytes for one are the most that an encoder could make of it.
	most := min(2*int64(size)+64, snappyBlock)
	if err := c.needs(int64(size) + 2*most + codedBuffer); err != nil {
		return err
	}
	coded, err := io.ReadAll(io.LimitReader(c.in, most+1))
	switch {
	case err != nil:
		return err
	case int64(len(coded)) > most && most < snappyBlock:
		return fmt.Errorf("a block of %d bytes in more than %d", size, most)
	case int64(len(coded)) > most:
		return &Error{Kind: TooLarge, What: "snappy", Err: fmt.Errorf("a block of more than %d bytes", snappyBlock)}
	case size > 64*len(coded):
		return errors.New("the length does not fit the block") // three bytes stand for 64 at most
	}
	b, err := s2.Decode(nil, coded)
	if err != nil {
		return err
	}
	c.cur = bytes.NewReader(b)
	return nil
}
