package unpack

import (
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// Compressed files: one content, and perhaps something behind it. Tools read several streams of a format, one after the
// other, as one content. What follows that is no such stream they warn about or ignore; it is visited as a member of its
// own here, and opened if it is an archive.

const trailingName = "trailing data"

// oneStream gives the content that r decodes from s, and then what is left of s. Where r found the end it says with
// io.EOF, or with errTrailing; the next byte of s is then the first that is not part of it.
func (w *walker) oneStream(n *node, s *stream, name string, r io.Reader) error {
	if name == "" {
		name = contentName(n.path)
	}
	whole, err := w.member(n, name, &untilTrailing{r})
	if err != nil || !whole {
		return err
	}
	return w.trailing(n, s)
}

// untilTrailing ends where something else follows.
type untilTrailing struct{ r io.Reader }

func (u *untilTrailing) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if errors.Is(err, errTrailing) {
		err = io.EOF
	}
	return n, err
}

// trailing gives what is left of s, unless that is padding.
func (w *walker) trailing(n *node, s *stream) error {
	from := s.pos()
	if _, err := skipZeros(s.Reader); err != nil {
		return w.alive(n.path) // nothing but zeros, or the walk has ended
	}
	rest := w.stream(n, from, -1)
	defer rest.close()
	_, err := w.member(n, trailingName, rest)
	return err
}

func openGzip(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	c := gzipCoders.Get().(*gzipCoder)
	own := c.in
	defer func() {
		c.in = own
		c.release()
	}()
	c.in, c.series = s.Reader, series{}
	// The name in the header is the first member's; it is known when the header has been read.
	if err := c.next(); err != nil {
		return &Error{Kind: Undecodable, What: "gzip", Err: err}
	}
	return w.oneStream(n, s, c.zr.Name, c)
}

func openBzip2(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	release, err := w.reserve(bzip2Memory, "bzip2")
	if err != nil {
		return err
	}
	defer release()
	return w.oneStream(n, s, "", &bzip2Streams{s: s, r: bzip2.NewReader(s)})
}

// bzip2Memory is what the decoder needs for blocks of 900 kB, the largest there are: four bytes for each of theirs.
const bzip2Memory = 4 << 20

// bzip2Streams tells something else behind the last stream from a broken stream.
type bzip2Streams struct {
	s *stream
	r io.Reader
}

func (b *bzip2Streams) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if e, ok := err.(bzip2.StructuralError); ok && e == "bad magic value in continuation file" { //nolint:errorlint // of a library that does not wrap
		// The two bytes that are no magic have been read.
		b.s.rewind(2)
		err = errTrailing
	}
	return n, err
}

// rewind steps k bytes back.
func (s *stream) rewind(k int64) {
	s.in.off = max(0, s.pos()-k)
	s.Reset(s.in)
}

// lzmaHeader is the length of an .lzma file's header: properties, dictionary size, content size.
const lzmaHeader = 13

// surelyLZMA is how much must have been decoded without an error to take a file for LZMA, which has no magic.
const surelyLZMA = 4096

func openLZMA(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	head, err := s.Peek(lzmaHeader)
	if err != nil {
		return err
	}
	usual := head[0] == 0x5d && binary.LittleEndian.Uint64(head[5:]) == 1<<64-1
	r, release, err := w.lzmaReader(head, s)
	if err != nil {
		return err
	}
	defer release()
	m, err := w.take(n, contentName(n.path), r)
	if m.err != nil && err == nil && !usual && m.size < surelyLZMA {
		m.close() // something else, that happens to begin like this
		return nil
	}
	whole := m.err == nil && err == nil
	if giveErr := w.give(n, &m); err == nil {
		err = giveErr
	}
	if err != nil || !whole {
		return err
	}
	return w.trailing(n, s)
}

// lzmaReader decodes an LZMA stream with the header of an .lzma file: r begins with it.
func (w *walker) lzmaReader(header []byte, r io.Reader) (io.Reader, func(), error) {
	dict := max(int64(binary.LittleEndian.Uint32(header[1:])), lzma.MinDictCap)
	if size := binary.LittleEndian.Uint64(header[5:]); size < uint64(dict) {
		dict = max(int64(size), lzma.MinDictCap) // as the library does
	}
	release, err := w.reserve(dict+lzmaState, "lzma")
	if err != nil {
		return nil, release, err
	}
	// The library looks at the dictionary's size alone.
	limit := max(int(binary.LittleEndian.Uint32(header[1:])), lzma.MinDictCap)
	zr, err := lzma.ReaderConfig{DictCap: limit}.NewReader(r)
	if err != nil {
		release()
		return nil, func() {}, &Error{Kind: Undecodable, What: "lzma", Err: unexpected(err)}
	}
	return zr, release, nil
}

// lzmaState is what a decoder needs besides its dictionary, generously.
const lzmaState = 64 << 10

// zstdMinWindow is the window that is always allowed: that of RFC 8878, 3.1.1.1.2.
const zstdMinWindow = 8 << 20

func openZstd(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	r, release, err := w.zstdReader(s)
	if err != nil {
		return err
	}
	defer release()
	return w.oneStream(n, s, "", r)
}

// zstdReader decodes the frames of s, with the memory that the first asks for.
func (w *walker) zstdReader(s *stream) (io.Reader, func(), error) {
	window := uint64(zstdMinWindow)
	if head, _ := s.Peek(zstd.HeaderMaxSize); len(head) > 0 {
		var h zstd.Header
		if err := h.Decode(head); err == nil && !h.Skippable {
			window = max(window, h.WindowSize)
			if h.SingleSegment {
				window = max(window, h.FrameContentSize)
			}
		}
	}
	release, err := w.reserve(int64(min(window, 1<<62)), "zstd")
	if err != nil {
		return nil, release, err
	}
	zr, err := newZstd(s, window)
	if err != nil {
		release()
		return nil, func() {}, &Error{Kind: Undecodable, What: "zstd", Err: err}
	}
	return &zstdFrames{s: s, r: zr}, func() { zr.Close(); release() }, nil
}

// zstdFrames sorts the library's errors.
type zstdFrames struct {
	s *stream
	r *zstd.Decoder
}

func (z *zstdFrames) Read(p []byte) (int, error) {
	n, err := z.r.Read(p)
	switch {
	case errors.Is(err, zstd.ErrMagicMismatch):
		z.s.rewind(4) // the magic that is none
		err = errTrailing
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		err = &Error{Kind: TooLarge, What: "zstd", Err: err}
	case errors.Is(err, zstd.ErrUnknownDictionary):
		err = errorf(Undecodable, "zstd", "compressed with a dictionary that is not part of it")
	}
	return n, err
}

// lz4Memory is what the decoder needs for blocks of 8 MiB, the largest there are.
const lz4Memory = 8 << 20

func openLZ4(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	release, err := w.reserve(lz4Memory, "lz4")
	if err != nil {
		return err
	}
	defer release()
	return w.oneStream(n, s, "", &lz4Frames{s: s, r: lz4.NewReader(s)})
}

// lz4Frames sorts the library's errors.
type lz4Frames struct {
	s *stream
	r *lz4.Reader
}

func (l *lz4Frames) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if errors.Is(err, lz4.ErrInvalidFrame) {
		l.s.rewind(4) // the magic that is none
		err = errTrailing
	}
	return n, err
}
