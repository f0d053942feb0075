package unpack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The .xz container is read here rather than by the library, which takes the dictionary's size from each block without a
// limit, and cannot tell what follows the last stream from a broken one.

func openXZ(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	x := &xzReader{w: w, s: s}
	defer x.free()
	return w.oneStream(n, s, "", x)
}

// xzReader decodes .xz streams, one after the other.
type xzReader struct {
	w       *walker
	s       *stream
	check   byte // type of the blocks' checks
	blocks  uint64
	streams int
	inside  bool // a stream is open

	block   io.Reader // nil between blocks
	start   int64     // where the block's data began
	sum     hash.Hash // nil for checks that are none, or unknown
	checkN  int       // length of the check
	release func()
}

func (x *xzReader) free() {
	if x.release != nil {
		x.release()
		x.release = nil
	}
}

var errXZ = errorf(Undecodable, "xz", "the container is broken")

// Read implements io.Reader. It returns errTrailing where something else than a stream follows a stream.
func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := x.block.Read(p)
		if x.sum != nil {
			x.sum.Write(p[:n])
		}
		if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			err = x.endBlock()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next goes on to the next block, of this stream or of the next.
func (x *xzReader) next() error {
	if !x.inside {
		return x.startStream()
	}
	size, err := x.s.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if size == 0 {
		return x.endStream()
	}
	return x.startBlock(size)
}

func (x *xzReader) startStream() error {
	zeros := int64(0)
	if x.streams > 0 {
		var err error
		if zeros, err = skipZeros(x.s.Reader); err != nil {
			return err // the end
		}
	}
	head, err := x.s.Peek(12)
	if !bytes.HasPrefix(head, []byte(xzMagic)) {
		if x.streams > 0 {
			return errTrailing
		}
		return errXZ
	}
	if err != nil {
		return unexpected(err)
	}
	if zeros%4 != 0 || head[6] != 0 || head[7] > 15 || crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return errXZ
	}
	x.check = head[7]
	x.blocks, x.inside = 0, true
	x.streams++
	_, err = x.s.Discard(12)
	return err
}

// xzCheckSizes are the lengths of the checks, by type.
var xzCheckSizes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

func (x *xzReader) startBlock(size byte) error {
	head := make([]byte, (int(size)+1)*4)
	head[0] = size
	if _, err := io.ReadFull(x.s, head[1:]); err != nil {
		return unexpected(err)
	}
	fields, sum := head[:len(head)-4], head[len(head)-4:]
	if crc32.ChecksumIEEE(fields) != binary.LittleEndian.Uint32(sum) {
		return errXZ
	}
	dict, err := xzDictionary(fields)
	if err != nil {
		return err
	}
	if x.release, err = x.w.reserve(dict+lzmaState, "xz"); err != nil {
		return err
	}
	x.start = x.s.pos()
	x.checkN = xzCheckSizes[x.check]
	switch x.check {
	case 1:
		x.sum = crc32.NewIEEE()
	case 4:
		x.sum = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.sum = sha256.New()
	default:
		x.sum = nil
	}
	x.block, err = lzma.Reader2Config{DictCap: int(dict)}.NewReader2(x.s)
	return err
}

// xzDictionary reads a block header, and returns how large a dictionary its LZMA2 filter needs.
func xzDictionary(fields []byte) (int64, error) {
	r := bytes.NewReader(fields[2:])
	flags := fields[1]
	content := int64(-1)
	if flags&0x40 != 0 { // compressed size
		if _, err := binary.ReadUvarint(r); err != nil {
			return 0, errXZ
		}
	}
	if flags&0x80 != 0 {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > 1<<62 {
			return 0, errXZ
		}
		content = int64(n)
	}
	id, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, errXZ
	}
	if flags&3 != 0 || id != 0x21 {
		return 0, errorf(Undecodable, "xz", "uses filter %#x, which is not known here", id)
	}
	n, _ := binary.ReadUvarint(r)
	bits, err := r.ReadByte()
	if n != 1 || err != nil {
		return 0, errXZ
	}
	dict, err := lzma2Dictionary(bits)
	if err == nil && content >= 0 {
		dict = max(min(dict, content), lzma.MinDictCap)
	}
	return dict, err
}

// lzma2Dictionary returns the dictionary's size, from the property byte of an LZMA2 filter.
func lzma2Dictionary(bits byte) (int64, error) {
	if bits > 40 {
		return 0, errorf(Undecodable, "lzma2", "impossible dictionary size")
	}
	if bits == 40 {
		return 1<<32 - 1, nil
	}
	return max(int64(2|bits&1)<<(bits/2+11), lzma.MinDictCap), nil
}

// endBlock checks what comes behind the data of a block.
func (x *xzReader) endBlock() error {
	x.free()
	x.block = nil
	x.blocks++
	tail := make([]byte, int(-(x.s.pos()-x.start)&3)+x.checkN)
	if _, err := io.ReadFull(x.s, tail); err != nil {
		return unexpected(err)
	}
	want := tail[len(tail)-x.checkN:]
	if x.sum == nil {
		return nil
	}
	got := x.sum.Sum(nil)
	if x.check != 10 { // CRCs are stored with the low byte first
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(got, want) {
		return errorf(Undecodable, "xz", "the content does not have its checksum")
	}
	return nil
}

// endStream reads the index, whose first byte has been read, and the footer.
func (x *xzReader) endStream() error {
	start := x.s.pos() - 1
	records, err := binary.ReadUvarint(x.s)
	if err != nil {
		return unexpected(err)
	}
	if records != x.blocks {
		return errXZ
	}
	for range 2 * records {
		if _, err := binary.ReadUvarint(x.s); err != nil {
			return unexpected(err)
		}
	}
	// Padding, the index's checksum, and the footer.
	rest := int(-(x.s.pos()-start)&3) + 4 + 12
	tail, err := x.s.Peek(rest)
	if err != nil {
		return unexpected(err)
	}
	if string(tail[rest-2:]) != "YZ" {
		return errXZ
	}
	x.inside = false
	_, err = x.s.Discard(rest)
	return err
}
