// Package filetype says what a file is by its content, in the words that rules use: a name ("pe", "docx") and groups
// ("executable", "archive", "macro"). What a file is called counts only where content leaves it open, as with the scripts
// that Windows starts by their extension, and only ever adds to what the content says.
package filetype

import (
	"io"
	"slices"
	"sort"
)

// The groups.
const (
	Executable = "executable" // programs that a system loads: PE, DOS, ELF, Mach-O, Java classes
	Script     = "script"     // programs as text: #!, batch, PowerShell, VBScript, Windows scripts, HTA
	Installer  = "installer"  // packages that install programs: MSI, Debian, RPM, Android, Java archives
	Shortcut   = "shortcut"   // files that start something else: .lnk, .url, .reg, compiled help
	Office     = "office"     // documents of office programs, with macros or without
	Macro      = "macro"      // such documents with VBA in them
	Archive    = "archive"    // whatever holds other files, or is compressed
	DiskImage  = "disk-image" // what systems mount: ISO, UDF, VHD, VMDK, DMG, WIM
	Encrypted  = "encrypted"  // archives and documents whose content, or part of it, needs a password
)

// Info is what a file is.
type Info struct {
	Name   string   // a fixed word, such as "pe"; empty: nothing that this package knows
	Groups []string // sorted; may be empty
	MIME   string   // the media type by content, without parameters; "application/octet-stream" where it is not known
}

// Is says whether word is the file's name, or one of its groups.
func (i Info) Is(word string) bool {
	return word != "" && (i.Name == word || slices.Contains(i.Groups, word))
}

func (i *Info) add(groups ...string) {
	for _, g := range groups {
		if !slices.Contains(i.Groups, g) {
			i.Groups = append(i.Groups, g)
		}
	}
	sort.Strings(i.Groups)
}

// groupsOf lists each name with its groups.
var groupsOf = map[string][]string{
	"pe": {Executable}, "dos": {Executable}, "elf": {Executable}, "mach-o": {Executable}, "java-class": {Executable},
	"dex": {Executable}, "wasm": {Executable},
	"shebang": {Script}, "batch": {Script}, "powershell": {Script}, "vbscript": {Script}, "wsh": {Script}, "hta": {Script},
	"msi": {Installer}, "deb": {Installer, Archive}, "rpm": {Installer, Archive}, "apk": {Installer, Archive}, "jar": {Installer, Archive},
	"lnk": {Shortcut}, "url": {Shortcut}, "reg": {Shortcut}, "chm": {Shortcut},
	"ole2": {Office}, "docx": {Office}, "xlsx": {Office}, "pptx": {Office}, "ooxml": {Archive}, "odf": {Office},
	"zip": {Archive}, "rar": {Archive}, "7z": {Archive}, "gzip": {Archive}, "bzip2": {Archive}, "xz": {Archive}, "zstd": {Archive},
	"lz4": {Archive}, "compress": {Archive}, "tar": {Archive}, "cab": {Archive}, "ar": {Archive}, "cpio": {Archive}, "ace": {Archive},
	"arj": {Archive}, "lha": {Archive},
	"iso": {DiskImage}, "udf": {DiskImage}, "dmg": {DiskImage}, "vhd": {DiskImage}, "vhdx": {DiskImage}, "vmdk": {DiskImage},
	"qcow2": {DiskImage}, "wim": {DiskImage}, "squashfs": {DiskImage},
}

// Names lists the words that Info.Is can say yes to, names and groups, sorted: what settings may have.
func Names() []string {
	words := []string{Executable, Script, Installer, Shortcut, Office, Macro, Archive, DiskImage, Encrypted}
	for name := range groupsOf {
		words = append(words, name)
	}
	sort.Strings(words)
	return words
}

// headSize is how much of a file's beginning is looked at; what is found elsewhere has its own bounds.
const headSize = 36 << 10

// Of returns what the file is whose size bytes r has. Name is what it is called, with or without a path; it may be empty. It
// reads the beginning and the end, and of zip archives and OLE2 files up to maxSearch bytes. What cannot be read counts
// as not there.
func Of(name string, r io.ReaderAt, size int64) Info {
	head := make([]byte, min(size, headSize))
	n, _ := r.ReadAt(head, 0) // what is missing is not looked at
	f := file{name: name, head: head[:n], r: r, size: size}
	info := Info{Name: f.kind(), MIME: mediaType(f.head)}
	info.add(groupsOf[info.Name]...)
	f.refine(&info)
	return info
}

// file is a file that is being looked at.
type file struct {
	name string
	head []byte
	r    io.ReaderAt
	size int64
}
