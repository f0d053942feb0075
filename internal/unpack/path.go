package unpack

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lengths in bytes. A path that is longer keeps its beginning and its end.
const (
	maxName = 200
	maxPath = 1000
)

// cleanName makes a name from an archive fit for logs and pages: valid UTF-8, no control or formatting characters (which
// turn text around, or hide it), no empty, "." and ".." elements, "/" between the others, at most maxName bytes.
func cleanName(name string) string {
	if len(name) > 16*maxName {
		name = name[len(name)-16*maxName:]
	}
	name = strings.Map(func(r rune) rune {
		switch {
		case r == '\\':
			return '/'
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, name)
	elements := strings.Split(name, "/")
	kept := elements[:0]
	for _, e := range elements {
		e = strings.TrimSpace(e)
		if e != "" && e != "." && e != ".." {
			kept = append(kept, e)
		}
	}
	name = strings.Join(kept, "/")
	if len(name) > maxName {
		name = strings.TrimLeftFunc(name[len(name)-maxName:], func(r rune) bool { return r == utf8.RuneError })
	}
	return name
}

// joinPath returns the path of a member of the object at parent. A member without a usable name is called by its number
// among the members of the walk.
func joinPath(parent, name string) string {
	if parent == "" {
		return name
	}
	path := parent + "/" + name
	if len(path) <= maxPath {
		return path
	}
	const gap = "/.../"
	head := strings.ToValidUTF8(path[:maxName], "")
	tail := strings.ToValidUTF8(path[len(path)-(maxPath-maxName-len(gap)):], "")
	return head + gap + tail
}

// compressedSuffixes are the ends of names of compressed files, and what they become when the content is unpacked.
var compressedSuffixes = []struct{ from, to string }{
	{".gz", ""},
	{".tgz", ".tar"},
	{".svgz", ".svg"},
	{".bz2", ""},
	{".tbz", ".tar"},
	{".tbz2", ".tar"},
	{".xz", ""},
	{".txz", ".tar"},
	{".lzma", ""},
	{".tlz", ".tar"},
	{".zst", ""},
	{".tzst", ".tar"},
	{".lz4", ""},
	{".z", ""},
	{".taz", ".tar"},
}

// contentName returns what the content of the compressed file at path is called: its name without the extension that says
// that it is compressed, otherwise "content".
func contentName(path string) string {
	base := path[strings.LastIndexByte(path, '/')+1:]
	lower := strings.ToLower(base)
	for _, s := range compressedSuffixes {
		if len(lower) == len(base) && len(base) > len(s.from) && strings.HasSuffix(lower, s.from) {
			return base[:len(base)-len(s.from)] + s.to
		}
	}
	return "content"
}
