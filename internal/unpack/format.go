package unpack

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"

	"lazaret/internal/spool"
)

// Format is a kind of archive or compressed file.
type Format uint8

// The formats that are opened.
const (
	NoArchive Format = iota
	Gzip             // RFC 1952
	Bzip2
	XZ
	LZMA // the format of the old lzma tool
	Zstd // RFC 8878
	LZ4
	Compress // .Z
	Zip
	Tar
	SevenZip
	RAR
	Ar // and so Debian packages
	Cpio
	RPM
	Cab
	OpenPGP // RFC 9580: a message that is not encrypted
)

var formatNames = [...]string{
	"", "gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "compress", "zip", "tar", "7z", "rar", "ar", "cpio", "rpm", "cab", "openpgp",
}

// String returns the usual name in lower case, empty for NoArchive.
func (f Format) String() string {
	if int(f) < len(formatNames) {
		return formatNames[f]
	}
	return ""
}

// openers open a node of each format, that begins at an offset of it. Their error is about the node as a whole; what
// concerns one member they report.
var openers [len(formatNames)]func(w *walker, n *node, offset int64) error

func init() { //nolint:gochecknoinits // a table of functions that, in the end, look into the table
	openers = [...]func(w *walker, n *node, offset int64) error{
		NoArchive: func(*walker, *node, int64) error { return nil },
		Gzip:      openGzip,
		Bzip2:     openBzip2,
		XZ:        openXZ,
		LZMA:      openLZMA,
		Zstd:      openZstd,
		LZ4:       openLZ4,
		Compress:  openCompress,
		Zip:       openZip,
		Tar:       openTar,
		SevenZip:  openSevenZip,
		RAR:       openRAR,
		Ar:        openAr,
		Cpio:      openCpio,
		RPM:       openRPM,
		Cab:       openCab,
		OpenPGP:   openOpenPGP,
	}
}

// view is one way to understand a content: as this format, from this offset on. Zip offsets count from the start.
type view struct {
	format Format
	offset int64
}

// Opens says whether Walk would find anything to open in b that is surely packed. It costs a few reads.
func Opens(b *spool.Blob) bool {
	// What looks like OpenPGP may be anything.
	return slices.ContainsFunc(viewsOf(b), func(v view) bool { return v.format != OpenPGP })
}

// FormatOf returns what b is in the first place. Content that can be understood in several ways, such as a picture with
// a zip archive behind it, has the format that an unpacker would see.
func FormatOf(b *spool.Blob) Format {
	if v := viewsOf(b); len(v) > 0 {
		return v[0].format
	}
	return NoArchive
}

// Begins says whether head, 1 KiB or all there is, is the beginning of something that Walk opens, of that size.
func Begins(head []byte, size int64) bool {
	return len(head) >= minArchive && sniff(head, size) != NoArchive
}

// MayBegin says whether something that Walk opens may begin with these two bytes, for those who look through much. Nothing is
// known by them of tar archives; of LZMA, those count that its tools write.
func MayBegin(first, second byte) bool {
	switch first {
	case 'P':
		return second == 'K' || second == 0x2a
	case 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '[', '\\', ']', '^', '_': // skippable frames of zstd, and others
		return second == 0x2a || first == 'R' && second == 'a' || first == ']' && second == 0
	case 0x1f:
		return second == 0x8b || second == 0x9d
	case 'B':
		return second == 'Z'
	case 0xfd:
		return second == '7'
	case '7':
		return second == 'z'
	case 'M':
		return second == 'S'
	case '!':
		return second == '<'
	case '0':
		return second == '7'
	case 0xc7, 0x71:
		return second == 0x71 || second == 0xc7
	case 0xed:
		return second == 0xab
	case 0x04:
		return second == 0x22
	case 0x02:
		return second == 0x21
	case 0x28:
		return second == 0xb5
	}
	return false
}

const (
	headSize = 2 * tarBlock // what sniff needs to see
	sfxLimit = 2 << 20      // where a self-extracting program's archive begins at the latest
)

// viewsOf returns all ways to understand the content of b as an archive.
func viewsOf(b *spool.Blob) []view {
	var buf [headSize]byte
	head := buf[:readHead(b, buf[:])]
	if len(head) < minArchive {
		return nil
	}
	var views []view
	f := sniff(head, b.Size())
	if f != NoArchive {
		views = append(views, view{f, 0})
	}
	if f == NoArchive && looksLikeOpenPGP(head, b) {
		views = append(views, view{OpenPGP, 0})
	}
	if f != Zip && endsAsZip(b) {
		views = append(views, view{Zip, 0})
	}
	if f == NoArchive && isProgram(head) {
		views = append(views, sfxViews(b)...)
	}
	return views
}

// minArchive is the size of the smallest archive: an empty one, of the most compact formats.
const minArchive = 6

// readHead fills buf from the start of b and returns how much there was.
func readHead(b *spool.Blob, buf []byte) int {
	n, err := b.ReadAt(buf, 0)
	if err != nil && err != io.EOF { //nolint:errorlint // io.ReaderAt says that the end is io.EOF itself
		return 0
	}
	return n
}

// sniff says what begins with head, and is size bytes long. It says so only where magic and the fields behind it fit.
func sniff(head []byte, size int64) Format {
	is := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case is("PK\x03\x04") && looksLikeLocalHeader(head), is("PK\x07\x08PK\x03\x04"), is("PK00PK\x03\x04"):
		return Zip
	case is("\x1f\x8b\x08") && len(head) > 3 && head[3]&0xe0 == 0:
		return Gzip
	case is("\x1f\x9d") && head[2]&0x60 == 0 && head[2]&0x1f >= 9 && head[2]&0x1f <= 16:
		return Compress
	case is("BZh") && len(head) >= 10 && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == bzip2Block || string(head[4:10]) == bzip2End):
		return Bzip2
	case is(xzMagic):
		return XZ
	case is(sevenZipMagic):
		return SevenZip
	case is(rarMagic):
		return RAR
	case is("MSCF\x00\x00\x00\x00"):
		return Cab
	case is("!<arch>\n"):
		return Ar
	case is("070701"), is("070702"), is("070707"), is("\xc7\x71"), is("\x71\xc7"):
		if looksLikeCpio(head) {
			return Cpio
		}
	case is("\xed\xab\xee\xdb") && size > rpmLead:
		return RPM
	case is("\x04\x22\x4d\x18"), is("\x02\x21\x4c\x18"):
		return LZ4
	case is("\x28\xb5\x2f\xfd"), looksLikeSkippableFrame(head):
		return Zstd
	}
	if looksLikeTar(head) {
		return Tar
	}
	if looksLikeLZMA(head) {
		return LZMA
	}
	return NoArchive
}

const (
	bzip2Block    = "\x31\x41\x59\x26\x53\x59"
	bzip2End      = "\x17\x72\x45\x38\x50\x90"
	xzMagic       = "\xfd7zXZ\x00"
	sevenZipMagic = "7z\xbc\xaf\x27\x1c"
	rarMagic      = "Rar!\x1a\x07"
)

// looksLikeSkippableFrame says whether head begins with the skippable frame that zstd and lz4 share, small enough to
// come before something.
func looksLikeSkippableFrame(head []byte) bool {
	return len(head) >= 8 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50
}

// looksLikeLZMA says whether head is the header of an .lzma file. There is no magic: these are the tests that xz applies,
// and those of the range coder's first byte.
func looksLikeLZMA(head []byte) bool {
	if len(head) < lzmaHeader+5 || head[0] >= 225 || head[lzmaHeader] != 0 {
		return false
	}
	dict := binary.LittleEndian.Uint32(head[1:])
	size := binary.LittleEndian.Uint64(head[5:])
	roundDict := dict == 1<<32-1 || dict&(dict-1) == 0 || dict%3 == 0 && (dict/3)&(dict/3-1) == 0
	return dict >= 4096 && roundDict && (size == 1<<64-1 || size > 0 && size < 1<<38)
}

// isProgram says whether head begins a program for Windows or Unix: a self-extracting archive is one.
func isProgram(head []byte) bool {
	return bytes.HasPrefix(head, []byte("MZ")) || bytes.HasPrefix(head, []byte("\x7fELF"))
}

// sfxViews finds the archives that a self-extracting program carries. Signatures alone prove nothing: every unpacker
// contains them. What follows them has to be a header with the right checksum, or one that makes sense.
func sfxViews(b *spool.Blob) []view {
	head, ok := b.Bytes()
	if !ok {
		head = make([]byte, min(sfxLimit+sfxHeader, b.Size()))
		head = head[:readHead(b, head)]
	}
	head = head[:min(len(head), sfxLimit+sfxHeader)]
	var views []view
	for _, s := range []struct {
		format Format
		magic  string
		sane   func(header []byte, rest int64) bool
	}{
		{SevenZip, sevenZipMagic, saneSevenZip},
		{RAR, rarMagic, saneRAR},
		{Cab, "MSCF\x00\x00\x00\x00", saneCab},
	} {
		found := 0
		for at := 0; found < maxSFX; at++ {
			i := bytes.Index(head[at:], []byte(s.magic))
			if i < 0 {
				break
			}
			at += i
			if s.sane(head[at:min(len(head), at+sfxHeader)], b.Size()-int64(at)) {
				views = append(views, view{s.format, int64(at)})
				found++
			}
		}
	}
	return views
}

const (
	sfxHeader = 4 << 10 // what the sanity checks look at behind a signature
	maxSFX    = 4       // archives of one format in one program
)

// saneSevenZip checks the start header of a 7z archive.
func saneSevenZip(h []byte, rest int64) bool {
	if len(h) < sevenZipStart || crc32.ChecksumIEEE(h[12:sevenZipStart]) != binary.LittleEndian.Uint32(h[8:]) {
		return false
	}
	next := binary.LittleEndian.Uint64(h[12:])
	return next < uint64(rest)
}

// saneCab checks the header of a cabinet.
func saneCab(h []byte, rest int64) bool {
	if len(h) < cabHeader {
		return false
	}
	size := int64(binary.LittleEndian.Uint32(h[8:]))
	files := int64(binary.LittleEndian.Uint32(h[16:]))
	return h[24] == 3 && h[25] == 1 && size <= rest && size > cabHeader && files < size && files >= cabHeader
}
