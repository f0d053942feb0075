package filetype

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// magics are what files begin with, or have at a fixed place.
var magics = []struct {
	name   string
	offset int
	bytes  string
}{
	{"elf", 0, "\x7fELF"},
	{"mach-o", 0, "\xfe\xed\xfa\xce"},
	{"mach-o", 0, "\xfe\xed\xfa\xcf"},
	{"mach-o", 0, "\xce\xfa\xed\xfe"},
	{"mach-o", 0, "\xcf\xfa\xed\xfe"},
	{"dex", 0, "dex\n0"},
	{"wasm", 0, "\x00asm"},
	{"lnk", 0, "\x4c\x00\x00\x00\x01\x14\x02\x00"},
	{"chm", 0, "ITSF"},
	{"rpm", 0, "\xed\xab\xee\xdb"},
	{"deb", 0, "!<arch>\ndebian-binary"},
	{"ar", 0, "!<arch>\n"},
	{"zip", 0, "PK\x03\x04"},
	{"zip", 0, "PK\x05\x06"},
	{"zip", 0, "PK\x07\x08"},
	{"zip", 0, "PK00PK\x03\x04"},
	{"rar", 0, "Rar!\x1a\x07"},
	{"rar", 0, "RE~^"},
	{"7z", 0, "7z\xbc\xaf\x27\x1c"},
	{"gzip", 0, "\x1f\x8b"},
	{"compress", 0, "\x1f\x9d"},
	{"bzip2", 0, "BZh"},
	{"xz", 0, "\xfd7zXZ\x00"},
	{"zstd", 0, "\x28\xb5\x2f\xfd"},
	{"lz4", 0, "\x04\x22\x4d\x18"},
	{"cab", 0, "MSCF\x00\x00\x00\x00"},
	{"cpio", 0, "070701"},
	{"cpio", 0, "070702"},
	{"cpio", 0, "070707"},
	{"cpio", 0, "\xc7\x71"},
	{"ace", 7, "**ACE**"},
	{"arj", 0, "\x60\xea"},
	{"lha", 2, "-lh"},
	{"tar", 257, "ustar"},
	{"vhd", 0, "conectix"},
	{"vhdx", 0, "vhdxfile"},
	{"vmdk", 0, "KDMV"},
	{"qcow2", 0, "QFI\xfb"},
	{"wim", 0, "MSWIM\x00\x00\x00"},
	{"squashfs", 0, "hsqs"},
	{"ole2", 0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"},
	{"iso", 32769, "CD001"},
	{"udf", 32769, "BEA01"},
}

// kind returns the name of what the file is at its beginning, or at its end where systems look there.
func (f *file) kind() string {
	if name := f.program(); name != "" {
		return name
	}
	for _, m := range magics {
		if len(f.head) >= m.offset && bytes.HasPrefix(f.head[m.offset:], []byte(m.bytes)) {
			return m.name
		}
	}
	if name := f.atEnd(); name != "" {
		return name
	}
	return f.text()
}

// program tells the kinds of programs apart whose beginnings are too short to be sure.
func (f *file) program() string {
	switch {
	case bytes.HasPrefix(f.head, []byte("MZ")), bytes.HasPrefix(f.head, []byte("ZM")):
		if len(f.head) >= 64 {
			// The new header may lie anywhere in the file.
			at := int64(binary.LittleEndian.Uint32(f.head[60:]))
			var sig [4]byte
			if n, _ := f.r.ReadAt(sig[:], at); n == len(sig) && string(sig[:]) == "PE\x00\x00" {
				return "pe"
			}
		}
		// A DOS program can be of any length; that it is no text must do.
		if bytes.IndexByte(f.head[:min(len(f.head), 512)], 0) >= 0 {
			return "dos"
		}
	case bytes.HasPrefix(f.head, []byte("\xca\xfe\xba\xbe")) && len(f.head) >= 8:
		// Java counts its versions from 45; a Mach-O file for many processors has fewer than that of them.
		if binary.BigEndian.Uint32(f.head[4:]) >= 45 {
			return "java-class"
		}
		return "mach-o"
	case bytes.HasPrefix(f.head, []byte("\xca\xfe\xba\xbf")), bytes.HasPrefix(f.head, []byte("\xbe\xba\xfe\xca")):
		return "mach-o"
	}
	return ""
}

// atEnd finds what systems recognise by the last sector: images of disks.
func (f *file) atEnd() string {
	const sector = 512
	if f.size < sector {
		return ""
	}
	var tail [8]byte
	if n, _ := f.r.ReadAt(tail[:], f.size-sector); n < len(tail) {
		return ""
	}
	switch {
	case string(tail[:4]) == "koly":
		return "dmg"
	case string(tail[:]) == "conectix":
		return "vhd"
	}
	return ""
}

// mediaType returns the media type by content, without parameters.
func mediaType(head []byte) string {
	t, _, _ := strings.Cut(mimetype.Detect(head).String(), ";")
	return strings.TrimSpace(t)
}
