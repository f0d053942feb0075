package filetype

import (
	"bytes"
	"errors"
	"io"
)

// maxSearch is how much of a zip archive or an OLE2 file is searched for what tells its kind.
const maxSearch = 256 << 20

// wide returns s in UTF-16, as OLE2 writes the names of its streams.
func wide(s string) string {
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = append(b, s[i], 0)
	}
	return string(b)
}

// marks are what a container's kind is told by. The names of its members are looked for as bytes, not by its directory: a
// broken or contradictory directory, that some programs read all the same, hides nothing then.
var (
	zipMarks = map[string]string{
		"vbaProject.bin":          Macro,
		"xl/macrosheets/":         Macro,
		"Basic/Standard/":         Macro,
		"META-INF/MANIFEST.MF":    "jar",
		"AndroidManifest.xml":     "apk",
		"word/document":           "docx",
		"xl/workbook":             "xlsx",
		"ppt/presentation":        "pptx",
		"[Content_Types].xml":     "ooxml",
		"vnd.oasis.opendocument.": "odf",
	}
	oleMarks = map[string]string{
		wide("_VBA_PROJECT"):     Macro,
		wide("VBA"):              "vba",
		wide("Macros"):           "macros",
		wide("EncryptedPackage"): Encrypted,
		// the class of a Windows Installer package, {000C1084-0000-0000-C000-000000000046}
		"\x84\x10\x0c\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46": "msi",
	}
)

// refine looks into containers for what the beginning does not tell.
func (f *file) refine(i *Info) {
	switch i.Name {
	case "zip":
		f.zip(i)
	case "ole2":
		found := f.search(oleMarks, nil)
		if found["msi"] {
			*i = Info{Name: "msi", MIME: "application/x-msi"}
			i.add(Installer)
		}
		if found[Macro] || (found["vba"] && found["macros"]) {
			i.add(Macro)
		}
		if found[Encrypted] {
			i.add(Encrypted)
		}
	}
}

// zip tells what stands in a zip archive's clothes.
func (f *file) zip(i *Info) {
	locked := false
	found := f.search(zipMarks, func(b []byte) {
		locked = locked || lockedMember(b)
	})
	for _, name := range []string{"apk", "docx", "xlsx", "pptx", "odf", "ooxml", "jar"} {
		if found[name] {
			i.Name = name
			break
		}
	}
	i.add(groupsOf[i.Name]...)
	if i.Is(Office) {
		i.Groups = []string{Office} // holds files, but nobody would call it an archive
	}
	if found[Macro] {
		i.add(Macro, Office)
	}
	if locked {
		i.add(Encrypted)
	}
}

// lockedMember says whether b has the header of an encrypted member: bit 0 of its flags (APPNOTE.TXT, 4.4.4).
func lockedMember(b []byte) bool {
	for _, h := range []struct {
		sig   string
		flags int
	}{{"PK\x03\x04", 6}, {"PK\x01\x02", 8}} {
		for rest := b; ; {
			at := bytes.Index(rest, []byte(h.sig))
			if at < 0 || at+h.flags >= len(rest) {
				break
			}
			if rest[at+h.flags]&1 != 0 {
				return true
			}
			rest = rest[at+len(h.sig):]
		}
	}
	return false
}

// search says which of marks are in the file; each piece of it is given to look besides.
func (f *file) search(marks map[string]string, look func([]byte)) map[string]bool {
	const piece, overlap = 64 << 10, 64
	found := map[string]bool{}
	buf := make([]byte, overlap+piece)
	kept := 0
	for at := int64(0); at < min(f.size, maxSearch); {
		n, err := f.r.ReadAt(buf[kept:kept+int(min(piece, f.size-at))], at)
		window := buf[:kept+n]
		for mark, what := range marks {
			if !found[what] && bytes.Contains(window, []byte(mark)) {
				found[what] = true
			}
		}
		if look != nil {
			look(window)
		}
		at += int64(n)
		if n == 0 || (err != nil && !errors.Is(err, io.EOF)) {
			break
		}
		kept = copy(buf, window[max(0, len(window)-overlap):])
	}
	return found
}
