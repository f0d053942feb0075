package unpack

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// Small bodies are frequent, and a decoder has 40 KiB and more: they are kept for the next body. Those that have grown large are not,
// because what is kept is in nobody's budget: see littleMemory.
var (
	gzipCoders    = sync.Pool{New: func() any { return &gzipCoder{in: bufio.NewReaderSize(nothing{}, codedBuffer)} }}
	deflateCoders = sync.Pool{New: func() any { return &deflateCoder{in: bufio.NewReaderSize(nothing{}, codedBuffer)} }}
	brotliCoders  = sync.Pool{New: func() any { return new(brotliCoder) }}
	zstdCoders    = sync.Pool{New: func() any { return &zstdCoder{in: bufio.NewReaderSize(nothing{}, codedBuffer)} }}
)

// codedBuffer is how much of an encoded body is read at a time.
const codedBuffer = 8 << 10

// inflateMemory is what a decoder of RFC 1951 needs, its buffers included: measured.
const inflateMemory = 48 << 10

var errTrailing = errors.New("something follows the end of the compressed content")

// admission asks for memory before a coder allocates it.
type admission struct {
	admit func(n int64) error // nil: whoever uses the coder has seen to it
}

// needs takes n bytes. The error is the one that the coder is to return.
func (a *admission) needs(n int64) error {
	if a.admit == nil {
		return nil
	}
	return a.admit(n)
}

// nothing is what a coder without work reads, so that it keeps no body alive.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// unexpected turns the end of the input into an error, where more was needed.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		return io.ErrUnexpectedEOF
	}
	return err
}

// skipZeros discards zero bytes, and returns how many there were, and the input's error: io.EOF at its end, nil where
// something else follows.
func skipZeros(br *bufio.Reader) (zeros int64, err error) {
	for {
		b, err := br.ReadByte()
		if err != nil {
			return zeros, err
		}
		if b != 0 {
			return zeros, br.UnreadByte()
		}
		zeros++
	}
}

// padding reads zeros to the end of the input, and returns io.EOF there, errTrailing when there is anything else.
func padding(br *bufio.Reader) error {
	_, err := skipZeros(br)
	if err == nil {
		err = errTrailing
	}
	return err
}

// series is content that consists of pieces, one behind the other: gzip's members, zstd's frames.
type series struct {
	cur     io.Reader // the piece that is being read; nil: the next one is to begin
	started bool      // there was a piece
}

// read reads the pieces as one content. next begins the next piece, or returns what there is instead: io.EOF at the end.
func (s *series) read(p []byte, next func() error) (int, error) {
	for {
		if s.cur == nil {
			if err := next(); err != nil {
				return 0, err
			}
		}
		n, err := s.cur.Read(p)
		if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			s.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// gzipCoder decodes RFC 1952, all members of it.
type gzipCoder struct {
	admission
	series
	in *bufio.Reader
	zr gzip.Reader
}

func (c *gzipCoder) name() string { return "gzip" }

func (c *gzipCoder) reset(r io.Reader, admit func(n int64) error) {
	c.in.Reset(r)
	c.admit, c.series = admit, series{}
}

func (c *gzipCoder) release() {
	c.in.Reset(nothing{})
	c.admit, c.series = nil, series{}
	c.zr.Header = gzip.Header{}
	gzipCoders.Put(c)
}

func (c *gzipCoder) Read(p []byte) (int, error) { return c.read(p, c.next) }

// next begins the next member. It returns io.EOF when there is none: nothing but zeros may follow the last.
func (c *gzipCoder) next() error {
	if _, err := c.in.Peek(1); err != nil {
		return err
	}
	if !c.started {
		if err := c.needs(inflateMemory); err != nil {
			return err
		}
	}
	if c.started {
		zeros, err := skipZeros(c.in)
		if err != nil {
			return err
		}
		magic, err := c.in.Peek(2)
		if zeros > 0 || err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
			return errTrailing
		}
	}
	if err := c.zr.Reset(c.in); err != nil {
		return unexpected(err)
	}
	c.zr.Multistream(false)
	c.cur, c.started = &c.zr, true
	return nil
}

// deflateCoder decodes the "deflate" coding in both readings: RFC 1950, as RFC 9110 has it, and bare RFC 1951.
type deflateCoder struct {
	admission
	series // of one piece, which is read by one of the two
	in     *bufio.Reader
	zlib   io.ReadCloser // kept for the next use
	raw    io.ReadCloser
}

func (c *deflateCoder) name() string { return "deflate" }

func (c *deflateCoder) reset(r io.Reader, admit func(n int64) error) {
	c.in.Reset(r)
	c.admit, c.series = admit, series{}
}

func (c *deflateCoder) release() {
	c.in.Reset(nothing{})
	c.admit, c.series = nil, series{}
	deflateCoders.Put(c)
}

func (c *deflateCoder) Read(p []byte) (int, error) { return c.read(p, c.next) }

// next begins the stream, and returns what padding does behind it.
func (c *deflateCoder) next() error {
	if c.started {
		return padding(c.in)
	}
	err := c.start()
	c.started = err == nil
	return err
}

// start looks at the first two bytes. A zlib header is taken for one, because that is what the coding means and what
// every client tries first. A bare stream can look like that only by beginning with a stored block whose padding bits
// are set, which no encoder writes; it is then found to be broken, and never passes as something that it is not.
func (c *deflateCoder) start() error {
	head, err := c.in.Peek(2)
	if len(head) == 0 {
		return err
	}
	if err := c.needs(inflateMemory); err != nil {
		return err
	}
	if len(head) == 2 && head[0]&0x0f == 8 && head[0]>>4 <= 7 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return c.startZlib()
	}
	if c.raw == nil {
		c.raw = flate.NewReader(c.in)
	} else if err := c.raw.(flate.Resetter).Reset(c.in, nil); err != nil {
		return err
	}
	c.cur = c.raw
	return nil
}

func (c *deflateCoder) startZlib() (err error) {
	if c.zlib == nil {
		c.zlib, err = zlib.NewReader(c.in)
	} else {
		err = c.zlib.(zlib.Resetter).Reset(c.in, nil)
	}
	if err != nil {
		return unexpected(err)
	}
	c.cur = c.zlib
	return nil
}
