package unpack

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Small bodies are frequent, and a decoder is large (40 KiB to some MiB): they are kept for the next body.
var (
	gzipCoders    = sync.Pool{New: func() any { return &gzipCoder{in: bufio.NewReaderSize(nothing{}, codedBuffer)} }}
	deflateCoders = sync.Pool{New: func() any { return &deflateCoder{in: bufio.NewReaderSize(nothing{}, codedBuffer)} }}
	brotliCoders  = sync.Pool{New: func() any { return new(brotliCoder) }}
	zstdCoders    = sync.Pool{New: func() any { return new(zstdCoder) }}
)

// codedBuffer is how much of an encoded body is read at a time.
const codedBuffer = 8 << 10

// zstdWindow is the largest window that RFC 9659 allows in HTTP.
const zstdWindow = 8 << 20

var errTrailing = errors.New("something follows the end of the compressed content")

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

// gzipCoder decodes RFC 1952, all members of it.
type gzipCoder struct {
	in      *bufio.Reader
	zr      gzip.Reader
	within  bool // a member is being read
	started bool // there was a member
}

func (c *gzipCoder) name() string { return "gzip" }

func (c *gzipCoder) reset(r io.Reader) {
	c.in.Reset(r)
	c.within, c.started = false, false
}

func (c *gzipCoder) release() {
	c.in.Reset(nothing{})
	c.zr.Header = gzip.Header{}
	gzipCoders.Put(c)
}

func (c *gzipCoder) Read(p []byte) (int, error) {
	for {
		if !c.within {
			if err := c.next(); err != nil {
				return 0, err
			}
		}
		n, err := c.zr.Read(p)
		if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			c.within, err = false, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the next member. It returns io.EOF when there is none: nothing but zeros may follow the last.
func (c *gzipCoder) next() error {
	if _, err := c.in.Peek(1); err != nil {
		return err
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
	c.within, c.started = true, true
	return nil
}

// deflateCoder decodes the "deflate" coding in both readings: RFC 1950, as RFC 9110 has it, and bare RFC 1951.
type deflateCoder struct {
	in   *bufio.Reader
	zlib io.ReadCloser // kept for the next use
	raw  io.ReadCloser
	cur  io.Reader // one of the two, nil before the first byte
	end  bool
}

func (c *deflateCoder) name() string { return "deflate" }

func (c *deflateCoder) reset(r io.Reader) {
	c.in.Reset(r)
	c.cur, c.end = nil, false
}

func (c *deflateCoder) release() {
	c.in.Reset(nothing{})
	c.cur = nil
	deflateCoders.Put(c)
}

func (c *deflateCoder) Read(p []byte) (int, error) {
	for {
		if c.end {
			return 0, padding(c.in)
		}
		if c.cur == nil {
			if err := c.start(); err != nil {
				return 0, err
			}
		}
		n, err := c.cur.Read(p)
		if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			c.end, err = true, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// start looks at the first two bytes. A zlib header is taken for one, because that is what the coding means and what
// every client tries first. A bare stream can look like that only by beginning with a stored block whose padding bits
// are set, which no encoder writes; it is then found to be broken, and never passes as something that it is not.
func (c *deflateCoder) start() error {
	head, err := c.in.Peek(2)
	if len(head) == 0 {
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

// brotliCoder decodes RFC 7932. The large windows that are no part of it are refused by the library.
type brotliCoder struct {
	src brotliSource
	zr  *brotli.Reader
}

// brotliSource tells an empty body from a truncated one.
type brotliSource struct {
	r   io.Reader
	any bool
}

func (s *brotliSource) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.any = s.any || n > 0
	return n, err
}

func (c *brotliCoder) name() string { return "br" }

func (c *brotliCoder) reset(r io.Reader) {
	c.src = brotliSource{r: r}
	if c.zr == nil {
		c.zr = brotli.NewReader(&c.src)
		return
	}
	_ = c.zr.Reset(&c.src) // documented never to fail
}

func (c *brotliCoder) release() {
	c.src = brotliSource{r: nothing{}}
	brotliCoders.Put(c)
}

func (c *brotliCoder) Read(p []byte) (int, error) {
	n, err := c.zr.Read(p)
	if err == io.ErrUnexpectedEOF && !c.src.any { //nolint:errorlint // set by the library at the end of its input
		return 0, io.EOF
	}
	return n, err
}

// zstdCoder decodes RFC 8878: frames one after the other, skippable ones among them.
type zstdCoder struct {
	src io.Reader
	zr  *zstd.Decoder
}

func (c *zstdCoder) name() string { return "zstd" }

func (c *zstdCoder) reset(r io.Reader) { c.src = r }

func (c *zstdCoder) release() {
	c.src = nil
	if c.zr == nil || c.zr.Reset(nil) == nil {
		zstdCoders.Put(c)
	}
}

func (c *zstdCoder) Read(p []byte) (int, error) {
	if c.src != nil {
		err := c.begin()
		c.src = nil
		if err != nil {
			return 0, err
		}
	}
	return c.zr.Read(p)
}

func (c *zstdCoder) begin() (err error) {
	if c.zr != nil {
		return c.zr.Reset(c.src)
	}
	c.zr, err = newZstd(c.src, zstdWindow)
	return err
}

// newZstd returns a decoder that refuses windows above the given size. One block at a time means that the library starts
// no goroutines: there is nothing to leak, and a panic can be caught.
func newZstd(r io.Reader, window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
}
