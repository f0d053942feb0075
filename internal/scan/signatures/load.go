package signatures

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// source is a signature file as it was when the files were listed.
type source struct {
	path    string
	format  format
	size    int64
	changed time.Time
}

// maxFiles bounds the files of a database.
const maxFiles = 10_000

// list returns the files that the configuration names, those of a directory in the order of their names, and adds to report
// what is not read. A path that is not there, a file that is named although its kind is unknown, and a signature file that
// cannot be looked at are errors: nobody asked for fewer signatures. report may be nil.
func (cfg Config) list(report *Loaded) ([]source, error) {
	out := []source{} // never nil, which stands for no list
	add := func(path string, named bool) error {
		s, reason, err := cfg.file(path, named)
		switch {
		case err != nil:
			return err
		case reason != "" && report != nil:
			report.skip(path, 0, reason)
		case reason != "" || s.format == notRead:
		case len(out) == maxFiles:
			return fmt.Errorf("%s: more than %d signature files", path, maxFiles)
		default:
			out = append(out, s)
		}
		return nil
	}
	for _, path := range cfg.Paths {
		info, err := os.Stat(path)
		if err != nil || !info.IsDir() {
			if err := add(path, true); err != nil { // says what is wrong with it, too
				return nil, err
			}
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				continue // by custom, what is being written
			}
			if err := add(filepath.Join(path, e.Name()), false); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// file looks at the file called path, which is named by the configuration or found in a directory. It returns a reason where
// it is not to be read, and neither that nor a format where it was removed since the directory was read: load compares.
func (cfg Config) file(path string, named bool) (s source, reason string, err error) {
	f := cfg.formatOf(strings.ToLower(filepath.Ext(path)))
	info, err := os.Stat(path)
	if err != nil {
		_, linkErr := os.Lstat(path)
		switch {
		case named:
			return s, "", fmt.Errorf("%w; name a file or directory that is there, or remove it from paths", err)
		case errors.Is(linkErr, fs.ErrNotExist):
			return s, "", nil
		case f == notRead:
			return s, unsupportedFile(path), nil
		}
		return s, "", fmt.Errorf("%w; make it readable, or remove it from the directory", err)
	}
	switch {
	case f == notRead && named:
		return s, "", fmt.Errorf("%s: this kind of file is not supported; known are .hdb, .hsb, .ndb, .fp, .sfp, .ign, .ign2, .cvd and .cld", path)
	case f == notRead && info.IsDir():
		return s, "not read: a directory in a directory", nil
	case f == notRead:
		return s, unsupportedFile(path), nil
	case !info.Mode().IsRegular():
		return s, "", fmt.Errorf("%s: is no regular file; remove it, or name another", path)
	}
	return source{path, f, info.Size(), info.ModTime()}, "", nil
}

// unsupportedFile says why a file is not read.
func unsupportedFile(path string) string {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".ldb", ".ldu":
		return "unsupported file: logical signatures (.ldb)"
	case ".mdb", ".msb", ".mdu", ".msu", ".imp":
		return "unsupported file: digests of PE sections and imports (.mdb, .msb, .imp)"
	case ".hdu", ".hsu", ".ndu":
		return "not read: signatures of potentially unwanted applications (set pua = true to use them)"
	case "":
		return "unsupported file: no extension"
	default:
		return fmt.Sprintf("unsupported file: %.16s", ext)
	}
}

// load reads every file of cfg and returns the database. No database is returned that lacks a file, or was read while a
// file changed.
func load(cfg Config) (*database, []source, error) {
	begin := time.Now()
	b := newBuilder(cfg)
	sources, err := cfg.list(b.report)
	if err != nil {
		return nil, nil, err
	}
	// The ignore-lists come first, because the others are filtered by them while they are read.
	for _, ignoring := range []bool{true, false} {
		for _, s := range sources {
			if s.format == archiveFormat || (s.format == ignoreFormat) == ignoring {
				if err := b.read(s, ignoring); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	after, err := cfg.list(nil)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Equal(sources, after) {
		return nil, nil, errChanging
	}
	var updated time.Time
	for _, s := range sources {
		if s.changed.After(updated) {
			updated = s.changed
		}
	}
	db := b.database(updated)
	db.report.At, db.report.Took = begin, time.Since(begin)
	return db, sources, nil
}

var errChanging = errors.New("the signature files changed while they were read")

// read reads a file; of a container only the ignore-lists, or all but those.
func (b *builder) read(s source, ignoring bool) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if s.format == archiveFormat {
		return b.container(s.path, f, ignoring)
	}
	return b.file(s.path, s.format, f)
}

// headerSize is the size of the header of a .cvd or .cld file, which is text.
const headerSize = 512

// container reads the members of a .cvd (tar, gzip-compressed) or .cld file (tar); of those only the ignore-lists, or all
// but those. What stands in the header, digest and signature among it, is not verified.
func (b *builder) container(path string, r io.Reader, ignoring bool) error {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil || !strings.HasPrefix(string(header), "ClamAV-VDB:") {
		return fmt.Errorf("%s: no ClamAV database: the header is missing", path)
	}
	buffered := bufio.NewReader(r)
	var in io.Reader = buffered
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" { // an error comes up again when tar reads
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		in = z
	}
	t := tar.NewReader(in)
	for n := 0; ; n++ {
		h, err := t.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		case n == maxFiles:
			return fmt.Errorf("%s: more than %d members", path, maxFiles)
		case h.Typeflag != tar.TypeReg || strings.HasPrefix(h.Name, "COPYING"):
			continue
		}
		member := path + "/" + filepath.Base(h.Name)
		f := b.cfg.formatOf(strings.ToLower(filepath.Ext(h.Name)))
		switch {
		case (f == ignoreFormat) != ignoring:
		case f == notRead || f == archiveFormat:
			b.report.skip(member, 0, unsupportedFile(member))
		default:
			if err := b.file(member, f, t); err != nil {
				return err
			}
		}
	}
}
