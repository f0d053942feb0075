package media

import "encoding/binary"

// state is what parse says about the bytes at hand.
type state uint8

const (
	none   state = iota // no frame begins with them
	more                // one may
	begins              // one does
)

// frame is one way to divide a stream.
type frame struct {
	// parse returns the size in bytes of the frame that begins with head, never less than head has, and what frames of one stream
	// have in common.
	parse func(head []byte) (size int, like uint32, s state)
	// row is how many in a row are no accident.
	row int
}

var (
	mpeg      = frame{parse: parseMPEG, row: 3}
	adts      = frame{parse: parseADTS, row: 3}
	ogg       = frame{parse: parseOgg, row: 1}
	transport = frame{parse: parseTransport, row: 5}
)

// bitrates are in kbit/s, by index, for MPEG-1 layers I, II and III, and for MPEG-2 and 2.5 layer I, and layers II and III.
var bitrates = [5][16]int{
	{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448},
	{0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},
	{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
	{0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256},
	{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
}

// rates are the sampling rates of MPEG-1 in Hz; those of MPEG-2 are half of them, those of 2.5 a quarter.
var rates = [3]int{44100, 48000, 32000}

// parseMPEG reads the header of a frame of MPEG audio (ISO/IEC 11172-3, 2.4.1.3), or of an ID3v2 tag before the first one.
func parseMPEG(b []byte) (size int, like uint32, s state) {
	if b[0] == 'I' {
		return parseID3(b)
	}
	if b[0] != 0xff {
		return 0, 0, none
	}
	if len(b) < 4 {
		return 0, 0, more
	}
	version, layer := b[1]>>3&3, 4-int(b[1]>>1&3) // version 0: 2.5, 1: none, 2: MPEG-2, 3: MPEG-1; layer 4: none
	bitrate, rate := b[2]>>4, b[2]>>2&3
	if b[1]&0xe0 != 0xe0 || version == 1 || layer == 4 || bitrate == 0 || bitrate == 15 || rate == 3 {
		return 0, 0, none
	}
	table, hz := layer-1, rates[rate]
	if version != 3 {
		table, hz = min(layer+2, 4), hz/2
	}
	if version == 0 {
		hz /= 2
	}
	padding := int(b[2] >> 1 & 1)
	kbit := bitrates[table][bitrate]
	switch {
	case layer == 1:
		size = (12*kbit*1000/hz + padding) * 4
	case layer == 3 && version != 3:
		size = 72*kbit*1000/hz + padding
	default:
		size = 144*kbit*1000/hz + padding
	}
	return size, uint32(b[1]&^1)<<8 | uint32(b[2]&0x0c), begins
}

// maxTag bounds an ID3v2 tag, which is in no frame: those of streams are small, and pictures are in files.
const maxTag = loose / 2

// parseID3 reads the header of an ID3v2 tag (id3.org, ID3v2.4, 3.1).
func parseID3(b []byte) (size int, like uint32, s state) {
	if len(b) < 10 {
		if len(b) <= 3 && string(b) != "ID3"[:len(b)] {
			return 0, 0, none
		}
		return 0, 0, more
	}
	if string(b[:3]) != "ID3" || (b[6]|b[7]|b[8]|b[9])&0x80 != 0 {
		return 0, 0, none
	}
	size = 10 + int(b[6])<<21 + int(b[7])<<14 + int(b[8])<<7 + int(b[9])
	if size > maxTag {
		return 0, 0, none
	}
	return size, 0, begins
}

// parseADTS reads the header of a frame of AAC (ISO/IEC 13818-7, 6.2).
func parseADTS(b []byte) (size int, like uint32, s state) {
	if b[0] != 0xff {
		return 0, 0, none
	}
	if len(b) < 7 {
		return 0, 0, more
	}
	size = int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5])>>5
	if b[1]&0xf6 != 0xf0 || b[2]>>2&15 > 12 || size < 7 {
		return 0, 0, none
	}
	return size, uint32(b[1])<<16 | uint32(b[2]&0xfd)<<8 | uint32(b[3]&0xc0), begins
}

// parseOgg reads the header of a page (RFC 3533, 6).
func parseOgg(b []byte) (size int, like uint32, s state) {
	const fixed, magic = 27, "OggS\x00"
	if n := min(len(b), len(magic)); string(b[:n]) != magic[:n] {
		return 0, 0, none
	}
	if len(b) < fixed || len(b) < fixed+int(b[26]) {
		return 0, 0, more
	}
	size = fixed + int(b[26])
	for _, n := range b[fixed : fixed+int(b[26])] {
		size += int(n)
	}
	return size, 0, begins
}

// parseTransport reads the header of a packet (ISO/IEC 13818-1, 2.4.3.2).
func parseTransport(b []byte) (size int, like uint32, s state) {
	const packet = 188
	if b[0] != 0x47 {
		return 0, 0, none
	}
	if len(b) < 4 {
		return 0, 0, more
	}
	if binary.BigEndian.Uint32(b)>>4&3 == 0 { // neither payload nor adaptation field
		return 0, 0, none
	}
	return packet, 0, begins
}
