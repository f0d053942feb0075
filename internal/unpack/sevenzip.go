package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/bodgit/sevenzip"
)

// sevenZipStart is the length of the header that a 7z archive begins with.
const sevenZipStart = 32

// Limits for the header of a 7z archive. The library makes tables as large as the header says, before it reads what is
// in them: a file of 60 bytes makes it ask for a terabyte, which ends the process. So the header is read here first, and
// the library sees only archives that this reading has found to be sane, and whose memory it knows.
const (
	maxSevenZipHeader  = 64 << 20 // bytes, uncompressed
	maxSevenZipFiles   = 1 << 16
	maxSevenZipFolders = 1 << 14
	maxSevenZipCoders  = 32
	maxSevenZipWork    = 1 << 28 // files times folders: the library searches through all folders for each file
	sevenZipZstdWindow = 64 << 20
)

// Coders of 7z that matter here.
const (
	coderCopy   = "\x00"
	coderLZMA   = "\x03\x01\x01"
	coderLZMA2  = "\x21"
	coderPPMd   = "\x03\x04\x01"
	coderZstd   = "\x04\xf7\x11\x01"
	coderBrotli = "\x04\xf7\x11\x02"
	coderBzip2  = "\x04\x02\x02"
	coderAES    = "\x06\xf1\x07\x01"
)

func init() { //nolint:gochecknoinits // the library has one table of decoders for the process
	// Not the library's, because that makes goroutines, and takes any window.
	sevenzip.RegisterDecompressor([]byte(coderZstd), func(_ []byte, _ uint64, in []io.ReadCloser) (io.ReadCloser, error) {
		if len(in) != 1 {
			return nil, errSevenZip
		}
		zr, err := newZstd(in[0], sevenZipZstdWindow)
		if err != nil {
			return nil, err
		}
		return readCloser{zr, in[0].Close}, nil
	})
	// Not the library's, because that takes a dictionary of the stated size for the smallest content.
	sevenzip.RegisterDecompressor([]byte(coderLZMA2), func(props []byte, size uint64, in []io.ReadCloser) (io.ReadCloser, error) {
		if len(in) != 1 || len(props) != 1 {
			return nil, errSevenZip
		}
		r, err := newLZMA2(in[0], props[0], size)
		if err != nil {
			return nil, err
		}
		return readCloser{r, in[0].Close}, nil
	})
	// Deflate64, which the library does not know.
	sevenzip.RegisterDecompressor([]byte("\x04\x01\x09"), func(_ []byte, _ uint64, in []io.ReadCloser) (io.ReadCloser, error) {
		if len(in) != 1 {
			return nil, errSevenZip
		}
		return readCloser{newInflate64(byteReader(in[0])), in[0].Close}, nil
	})
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r readCloser) Close() error { return r.close() }

var errSevenZip = errorf(Undecodable, "7z", "the header is broken")

func openSevenZip(w *walker, n *node, off int64) error {
	h, err := readSevenZip(w, n, off)
	if err != nil || h == nil {
		return err
	}
	z, err := sevenzip.NewReader(&readerAt{w: w, n: n, off: off}, n.blob.Size()-off)
	if err != nil {
		return &Error{Kind: Undecodable, What: "7z", Err: err}
	}
	o := &sevenZipWalk{w: w, n: n, h: h, folder: -1, release: func() {}}
	defer func() { o.release() }()
	for _, f := range z.File {
		if err := w.alive(n.path); err != nil {
			return err
		}
		if f.UncompressedSize == 0 || f.Stream >= len(h.folders) {
			continue
		}
		if err := o.file(f); err != nil {
			return err
		}
	}
	return nil
}

// sevenZipWalk is the reading of one archive. Its files are in folders, which are compressed each as a whole.
type sevenZipWalk struct {
	w       *walker
	n       *node
	h       *sevenZipHeader
	folder  int // that is being read
	skip    bool
	release func()
}

// file gives one file. What makes its folder unreadable makes the rest of the folder unreadable: it is reported once.
func (o *sevenZipWalk) file(f *sevenzip.File) error {
	path := joinPath(o.n.path, cleanName(f.Name))
	if f.Stream != o.folder {
		o.release()
		o.folder, o.skip, o.release = f.Stream, false, func() {}
		memory, err := o.h.folders[f.Stream].memory()
		if err == nil {
			o.release, err = o.w.reserve(memory, "7z")
		}
		if err != nil {
			o.w.problem(path, err)
			o.skip = true
		}
	}
	if o.skip {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		o.skip = true
		o.w.problem(path, sevenZipError(err))
		return nil
	}
	defer func() { _ = r.Close() }() // the content's errors came from Read
	whole, err := o.w.member(o.n, f.Name, &checked{r: r, want: f.CRC32, sum: crc32.NewIEEE()})
	o.skip = !whole
	return err
}

func sevenZipError(err error) error {
	var e *sevenzip.ReadError
	if errors.As(err, &e) && e.Encrypted {
		return &Error{Kind: Encrypted, What: "7z", Err: err}
	}
	return &Error{Kind: Undecodable, What: "7z", Err: err}
}

// checked compares what was read with a CRC-32 at its end; 0 means that there is none.
type checked struct {
	r    io.Reader
	want uint32
	sum  interface {
		io.Writer
		Sum32() uint32
	}
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	_, _ = c.sum.Write(p[:n])                                    // a hash never fails
	if err == io.EOF && c.want != 0 && c.sum.Sum32() != c.want { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		err = errorf(Undecodable, "", "the content does not have its checksum")
	}
	return n, err
}

// readerAt is a blob from an offset on, for as long as the walk goes on.
type readerAt struct {
	w   *walker
	n   *node
	off int64
}

func (r *readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.EOF
	}
	in := input{w: r.w, n: r.n, off: r.off + off, end: r.n.blob.Size()}
	return io.ReadFull(&in, p)
}

// sevenZipFolder is what is known of a folder.
type sevenZipFolder struct {
	coders []sevenZipCoder
	outs   int
	packed int
}

type sevenZipCoder struct {
	id    string
	props []byte
	size  uint64 // of what comes out
}

// memory returns what the coders of a folder need, or that the folder is encrypted.
func (f *sevenZipFolder) memory() (int64, error) {
	total := int64(1 << 20)
	for _, c := range f.coders {
		need := int64(1 << 17)
		switch c.id {
		case coderAES:
			return 0, errorf(Encrypted, "7z", "the member is encrypted")
		case coderLZMA, coderPPMd:
			if len(c.props) != 5 {
				return 0, errSevenZip
			}
			need = int64(binary.LittleEndian.Uint32(c.props[1:]))
			if c.id == coderLZMA {
				need = min(need, int64(min(c.size, 1<<40)))
			}
		case coderLZMA2:
			if len(c.props) != 1 {
				return 0, errSevenZip
			}
			dict, err := lzma2Dictionary(c.props[0])
			if err != nil {
				return 0, err
			}
			need = min(dict, int64(min(c.size, 1<<40)))
		case coderZstd:
			need = int64(min(c.size, sevenZipZstdWindow))
		case coderBrotli:
			need = int64(min(c.size, 1<<24))
		case coderBzip2:
			need = 4 << 20
		}
		total += need
	}
	return total, nil
}

// sevenZipHeader is what is known of an archive before the library reads it.
type sevenZipHeader struct{ folders []sevenZipFolder }

// readSevenZip reads the header of an archive; nil says that the archive is empty.
func readSevenZip(w *walker, n *node, off int64) (*sevenZipHeader, error) {
	r := &readerAt{w: w, n: n, off: off}
	var start [sevenZipStart]byte
	if _, err := r.ReadAt(start[:], 0); err != nil {
		return nil, &Error{Kind: Undecodable, What: "7z", Err: unexpected(err)}
	}
	le := binary.LittleEndian
	if crc32.ChecksumIEEE(start[12:]) != le.Uint32(start[8:]) {
		return nil, errSevenZip
	}
	next, size := le.Uint64(start[12:]), le.Uint64(start[20:])
	if size == 0 {
		return nil, nil
	}
	if rest := uint64(n.blob.Size() - off - sevenZipStart); next > rest || size > rest-next {
		return nil, errorf(Undecodable, "7z", "the archive is not complete: %w", io.ErrUnexpectedEOF)
	}
	if size > maxSevenZipHeader {
		return nil, errorf(TooLarge, "7z", "a header of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := r.ReadAt(b, sevenZipStart+int64(next)); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(b) != le.Uint32(start[28:]) {
		return nil, errSevenZip
	}
	p := &sevenZipParser{b: b}
	if b[0] == 0x17 {
		var err error
		if b, err = decodeSevenZipHeader(w, r, p); err != nil {
			return nil, err
		}
		p = &sevenZipParser{b: b}
	}
	return p.header()
}

// decodeSevenZipHeader unpacks a header that is compressed: p has what says how.
func decodeSevenZipHeader(w *walker, r *readerAt, p *sevenZipParser) ([]byte, error) {
	p.byte()
	info := p.streams()
	if p.err != nil {
		return nil, p.err
	}
	if len(info.folders) != 1 || len(info.packSizes) == 0 {
		return nil, errSevenZip
	}
	f := info.folders[0]
	memory, err := f.memory()
	if err != nil {
		return nil, err // encrypted, most likely
	}
	if len(f.coders) != 1 || f.coders[0].size == 0 {
		return nil, errorf(Undecodable, "7z", "a header that is packed in an unknown way")
	}
	c := f.coders[0]
	if c.size > maxSevenZipHeader {
		return nil, errorf(TooLarge, "7z", "a header of %d bytes", c.size)
	}
	release, err := w.reserve(memory, "7z")
	if err != nil {
		return nil, err
	}
	defer release()
	s := w.stream(r.n, r.off+sevenZipStart+int64(min(info.packAt, 1<<60)), int64(min(info.packSizes[0], 1<<60)))
	defer s.close()
	var content io.Reader
	switch c.id {
	case coderCopy:
		content = s
	case coderLZMA:
		head := binary.LittleEndian.AppendUint64(bytes.Clone(c.props), c.size)
		var free func()
		content, free, err = w.lzmaReader(head, &prefixed{head: head, stream: s})
		defer free()
	case coderLZMA2:
		content, err = newLZMA2(s, c.props[0], c.size)
	default:
		err = errorf(Undecodable, "7z", "a header that is packed in an unknown way")
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, c.size)
	if _, err := io.ReadFull(content, b); err != nil {
		return nil, &Error{Kind: Undecodable, What: "7z", Err: unexpected(err)}
	}
	return b, nil
}
