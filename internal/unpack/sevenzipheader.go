package unpack

import (
	"bufio"
	"io"
	"math/bits"

	"github.com/ulikunitz/xz/lzma"
)

// newLZMA2 decodes LZMA2 data of a known size, with a dictionary that is no larger than that.
func newLZMA2(r io.Reader, props byte, size uint64) (io.Reader, error) {
	dict, err := lzma2Dictionary(props)
	if err != nil {
		return nil, err
	}
	dict = max(min(dict, int64(min(size, 1<<40))), lzma.MinDictCap)
	return lzma.Reader2Config{DictCap: int(dict)}.NewReader2(r)
}

// byteReader returns r as an io.ByteReader.
func byteReader(r io.Reader) io.ByteReader {
	if b, ok := r.(io.ByteReader); ok {
		return b
	}
	return bufio.NewReader(r)
}

// sevenZipParser reads a 7z header (7zFormat.txt). After an error, which stays, everything reads as 0.
type sevenZipParser struct {
	b   []byte
	err error
}

func (p *sevenZipParser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	p.b = nil
}

func (p *sevenZipParser) byte() byte {
	if len(p.b) == 0 {
		p.fail(errSevenZip)
		return 0
	}
	c := p.b[0]
	p.b = p.b[1:]
	return c
}

func (p *sevenZipParser) take(n uint64) []byte {
	if n > uint64(len(p.b)) {
		p.fail(errSevenZip)
		return nil
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

// number reads a number of variable length: the first byte's leading ones tell how many bytes follow.
func (p *sevenZipParser) number() uint64 {
	first := p.byte()
	n := bits.LeadingZeros8(^first)
	var v uint64
	if n < 7 {
		v = uint64(first&(1<<(7-n)-1)) << (8 * n)
	}
	for i, c := range p.take(uint64(n)) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// count reads a number that must not be larger than limit.
func (p *sevenZipParser) count(limit int) int {
	v := p.number()
	if v > uint64(limit) {
		p.fail(errorf(TooMany, "7z", "the header lists %d things, where %d are looked at", v, limit))
		return 0
	}
	return int(v)
}

func (p *sevenZipParser) expect(id byte) {
	if p.byte() != id {
		p.fail(errSevenZip)
	}
}

// digests skips the checksums of n things.
func (p *sevenZipParser) digests(n int) {
	defined := n
	if p.byte() == 0 {
		defined = 0
		for i, c := range p.take(uint64(n+7) / 8) {
			if left := n - 8*i; left < 8 {
				c &= 0xff << (8 - left)
			}
			defined += bits.OnesCount8(c)
		}
	}
	p.take(4 * uint64(defined))
}

// sevenZipStreams is what a header says about the packed streams and the folders.
type sevenZipStreams struct {
	packAt    uint64
	packSizes []uint64
	folders   []sevenZipFolder
	files     int // in all folders
}

func (p *sevenZipParser) streams() (s sevenZipStreams) {
	id := p.byte()
	if id == 6 {
		p.packInfo(&s)
		id = p.byte()
	}
	if id == 7 {
		p.folders(&s)
		id = p.byte()
	}
	s.files = len(s.folders)
	if id == 8 {
		p.subStreams(&s)
		id = p.byte()
	}
	if id != 0 {
		p.fail(errSevenZip)
	}
	return s
}

func (p *sevenZipParser) packInfo(s *sevenZipStreams) {
	s.packAt = p.number()
	n := p.count(maxSevenZipFolders * 4)
	id := p.byte()
	if id == 9 {
		for range n {
			s.packSizes = append(s.packSizes, p.number())
			if p.err != nil {
				return
			}
		}
		id = p.byte()
	}
	if id == 10 {
		p.digests(n)
		id = p.byte()
	}
	if id != 0 {
		p.fail(errSevenZip)
	}
}

func (p *sevenZipParser) folders(s *sevenZipStreams) {
	p.expect(11)
	n := p.count(maxSevenZipFolders)
	if p.byte() != 0 {
		p.fail(errorf(Undecodable, "7z", "a header with parts elsewhere"))
	}
	packed := 0
	for range n {
		f := p.folder()
		if p.err != nil {
			return
		}
		packed += f.packed
		s.folders = append(s.folders, f)
	}
	if packed > len(s.packSizes) {
		p.fail(errSevenZip)
	}
	p.expect(12)
	for i := range s.folders {
		f := &s.folders[i]
		for k := range f.outs {
			size := p.number()
			if k < len(f.coders) {
				f.coders[k].size = size
			}
		}
	}
	id := p.byte()
	if id == 10 {
		p.digests(n)
		id = p.byte()
	}
	if id != 0 {
		p.fail(errSevenZip)
	}
}

func (p *sevenZipParser) folder() (f sevenZipFolder) {
	ins := 0
	for range p.count(maxSevenZipCoders) {
		flags := p.byte()
		c := sevenZipCoder{id: string(p.take(uint64(flags & 15)))}
		in, out := 1, 1
		if flags&0x10 != 0 {
			in, out = p.count(maxSevenZipCoders), p.count(maxSevenZipCoders)
		}
		if flags&0x20 != 0 {
			c.props = p.take(p.number())
		}
		if flags&0xc0 != 0 || out != 1 { // alternatives, or what no coder has
			p.fail(errSevenZip)
		}
		ins += in
		f.outs += out
		f.coders = append(f.coders, c)
	}
	if p.err == nil && (f.outs == 0 || ins < f.outs) {
		p.fail(errSevenZip)
	}
	if p.err != nil {
		return f
	}
	for range 2 * (f.outs - 1) {
		p.count(2 * maxSevenZipCoders * maxSevenZipCoders)
	}
	f.packed = ins - (f.outs - 1)
	if f.packed > 1 {
		for range f.packed {
			p.count(2 * maxSevenZipCoders * maxSevenZipCoders)
		}
	}
	return f
}

func (p *sevenZipParser) subStreams(s *sevenZipStreams) {
	id := p.byte()
	counts := make([]int, len(s.folders))
	for i := range counts {
		counts[i] = 1
	}
	if id == 13 {
		s.files = 0
		for i := range counts {
			counts[i] = p.count(maxSevenZipFiles)
			s.files += counts[i]
			if s.files > maxSevenZipFiles {
				p.fail(errorf(TooMany, "7z", "more than %d files", maxSevenZipFiles))
				return
			}
		}
		id = p.byte()
	}
	if id == 9 {
		for _, n := range counts {
			for range n - 1 {
				p.number()
			}
		}
		id = p.byte()
	}
	// Checksums follow for the files that do not have a folder of their own with one: the library reads one for each file,
	// or fails. What is left of the header belongs to it.
	for id != 0 && p.err == nil {
		if id != 10 {
			p.fail(errSevenZip)
			return
		}
		p.digests(s.files)
		id = p.byte()
	}
}

// header reads the header proper, as far as the sizes of the library's tables depend on it.
func (p *sevenZipParser) header() (*sevenZipHeader, error) {
	p.expect(1)
	id := p.byte()
	var s sevenZipStreams
	if id == 4 {
		s = p.streams()
		id = p.byte()
	}
	if id == 5 {
		files := p.count(maxSevenZipFiles)
		if files*max(1, len(s.folders)) > maxSevenZipWork {
			p.fail(errorf(TooMany, "7z", "%d files in %d folders", files, len(s.folders)))
		}
		id = 0
	}
	if p.err == nil && id != 0 {
		p.fail(errorf(Undecodable, "7z", "a header with unknown parts"))
	}
	return &sevenZipHeader{folders: s.folders}, p.err
}
