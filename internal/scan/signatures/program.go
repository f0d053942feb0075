package signatures

import (
	"encoding/binary"
	"io"
)

// Bounds of an executable's tables, as ClamAV has them. Beyond them an executable has no entry and no sections for us.
const (
	maxPESections  = 97
	maxELFSections = 256
	maxELFSegments = 128
)

// parseProgram returns what offsets are counted from in the object that begins with head, with entry point and sections
// where it is a PE or ELF file in which they can be found. Where they cannot, an error of reading may be why: it comes up
// again where the object is scanned.
func parseProgram(r io.ReaderAt, size int64, head []byte) layout {
	l := layout{size: size}
	switch {
	case len(head) >= 64 && head[0] == 'M' && head[1] == 'Z':
		l.program = parsePE(r, &l, int64(binary.LittleEndian.Uint32(head[60:])))
	case len(head) >= 52 && string(head[:4]) == "\x7fELF":
		l.program = parseELF(r, &l, head)
	}
	return l
}

// table reads n records of width bytes at the place at.
func table(r io.ReaderAt, size, at int64, n, width int) ([]byte, bool) {
	if at < 0 || n < 0 || at > size-int64(n*width) {
		return nil, false
	}
	b := make([]byte, n*width)
	_, err := r.ReadAt(b, at)
	return b, err == nil || err == io.EOF
}

// alignDown and alignUp round v to a multiple of to; like ClamAV they leave it alone where to is zero.
func alignDown(v, to int64) int64 {
	if to == 0 {
		return v
	}
	return v / to * to
}

func alignUp(v, to int64) int64 {
	if to == 0 {
		return v
	}
	return (v + to - 1) / to * to
}

// parsePE reads the headers at the place at. The rounding is ClamAV's, so that offsets mean the same bytes.
func parsePE(r io.ReaderAt, l *layout, at int64) bool {
	const fileHeader, sectionHeader = 24, 40
	coff, ok := table(r, l.size, at, 1, fileHeader)
	if !ok || string(coff[:4]) != "PE\x00\x00" {
		return false
	}
	count := int(binary.LittleEndian.Uint16(coff[6:]))
	optionalSize := int(binary.LittleEndian.Uint16(coff[20:]))
	if count == 0 || count >= maxPESections || optionalSize < 64 {
		return false
	}
	optional, ok := table(r, l.size, at+fileHeader, 1, 64)
	if !ok {
		return false
	}
	entry := int64(binary.LittleEndian.Uint32(optional[16:]))
	sectionAlign := int64(binary.LittleEndian.Uint32(optional[32:]))
	fileAlign := int64(binary.LittleEndian.Uint32(optional[36:]))
	headers := alignUp(int64(binary.LittleEndian.Uint32(optional[60:])), sectionAlign)
	rows, ok := table(r, l.size, at+fileHeader+int64(optionalSize), count, sectionHeader)
	if !ok {
		return false
	}
	for i := 0; i < count; i++ {
		raw := int64(binary.LittleEndian.Uint32(rows[i*sectionHeader+20:]))
		if binary.LittleEndian.Uint32(rows[i*sectionHeader+16:]) != 0 && fileAlign != 0 && raw%fileAlign != 0 && raw%0x200 == 0 {
			fileAlign = 0x200
		}
	}
	virtual := make([]int64, count)
	for i := range count {
		row := rows[i*sectionHeader:]
		virtual[i] = alignDown(int64(binary.LittleEndian.Uint32(row[12:])), sectionAlign)
		s := section{
			size: alignUp(int64(binary.LittleEndian.Uint32(row[16:])), fileAlign),
			at:   alignDown(int64(binary.LittleEndian.Uint32(row[20:])), fileAlign),
		}
		if s.at >= l.size {
			s.size = 0
		}
		s.size = max(0, min(s.size, l.size-s.at))
		l.sections = append(l.sections, s)
	}
	if entry < headers {
		l.entry = entry
		return entry < l.size
	}
	for i := count - 1; i >= 0; i-- {
		if d := entry - virtual[i]; d >= 0 && d < l.sections[i].size {
			l.entry = l.sections[i].at + d
			return true
		}
	}
	return false
}

// elfShape is where the fields of the ELF headers are, which differ between 32 and 64 bits.
type elfShape struct {
	header, segment, section                    int // sizes
	segments, sections, counts                  int // places in the header: e_phoff, e_shoff, e_phentsize
	vaddr, memsz, offset, sectionAt, sectionLen int // places in the rows
}

var (
	elf32 = elfShape{52, 32, 40, 28, 32, 42, 8, 20, 4, 16, 20}
	elf64 = elfShape{64, 56, 64, 32, 40, 54, 16, 40, 8, 24, 32}
)

func parseELF(r io.ReaderAt, l *layout, head []byte) bool {
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	shape, wide := elf32, false
	if head[4] == 2 {
		shape, wide = elf64, true
	}
	if len(head) < shape.header {
		return false
	}
	word := func(b []byte) int64 {
		if wide {
			return int64(order.Uint64(b))
		}
		return int64(order.Uint32(b))
	}
	count := func(i int) int { return int(order.Uint16(head[shape.counts+2*i:])) }
	segments, sections := count(1), count(3)
	if segments > maxELFSegments || sections > maxELFSections {
		return false
	}
	if entry := word(head[24:]); entry != 0 && segments > 0 {
		rows, ok := table(r, l.size, word(head[shape.segments:]), segments, shape.segment)
		if !ok || count(0) != shape.segment {
			return false
		}
		found := false
		for ; len(rows) > 0 && !found; rows = rows[shape.segment:] {
			d := entry - word(rows[shape.vaddr:])
			if found = d >= 0 && d < word(rows[shape.memsz:]); found {
				l.entry = d + word(rows[shape.offset:])
			}
		}
		if !found {
			return false
		}
	}
	if sections == 0 {
		return true
	}
	rows, ok := table(r, l.size, word(head[shape.sections:]), sections, shape.section)
	if !ok || count(2) != shape.section {
		return false
	}
	for ; len(rows) > 0; rows = rows[shape.section:] {
		s := section{at: word(rows[shape.sectionAt:]), size: word(rows[shape.sectionLen:])}
		if s.at < 0 || s.at > l.size {
			s = section{at: l.size} // keeps its number, and holds nothing
		}
		s.size = max(0, min(s.size, l.size-s.at))
		l.sections = append(l.sections, s)
	}
	return true
}
