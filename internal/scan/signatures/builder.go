package signatures

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// maxLine is the longest line that is read. ClamAV's own limit is a quarter of it.
const maxLine = 32 << 10

// builder makes a database of lines.
type builder struct {
	cfg     Config
	names   *names
	rows    [algorithms][]digest
	allowed *allowed
	ignored ignores
	sigs    []bodySignature
	parts   []part
	slots   uint32
	report  *Loaded
	sum     hash.Hash // over everything that was read
	left    int64     // bytes that may still be read
}

func newBuilder(cfg Config) *builder {
	b := &builder{
		cfg: cfg, names: newNames(), allowed: newAllowed(), ignored: ignores{}, report: &Loaded{}, sum: sha256.New(), left: int64(cfg.MaxSize),
	}
	name, s, parts := eicar()
	b.addBody(name, s, parts)
	return b
}

// format is what a file's lines are.
type format uint8

const (
	notRead       format = iota
	digestFormat         // .hdb, .hsb
	bodyFormat           // .ndb
	allowFormat          // .fp, .sfp
	ignoreFormat         // .ign, .ign2
	archiveFormat        // .cvd, .cld
)

// formatOf returns what a file with the extension ext (".hdb") holds.
func (cfg Config) formatOf(ext string) format {
	switch ext {
	case ".hdb", ".hsb":
		return digestFormat
	case ".ndb":
		return bodyFormat
	case ".hdu", ".hsu":
		if cfg.PUA {
			return digestFormat
		}
	case ".ndu":
		if cfg.PUA {
			return bodyFormat
		}
	case ".fp", ".sfp":
		return allowFormat
	case ".ign", ".ign2":
		return ignoreFormat
	case ".cvd", ".cld":
		return archiveFormat
	}
	return notRead
}

// line reads one line of a file.
func (b *builder) line(f format, line string) error {
	switch f {
	case digestFormat:
		d, err := parseDigestLine(line)
		if err != nil {
			return err
		}
		return b.addDigest(d, line)
	case allowFormat:
		d, err := parseDigestLine(line)
		if err != nil {
			return err
		}
		b.allowed.add(d.alg, d.sum, d.size)
		return nil
	case bodyFormat:
		name, s, parts, err := parseBodyLine(line)
		switch {
		case err != nil:
			return err
		case len(b.sigs) >= maxBodies || b.names.full(len(name)):
			return errFull
		case b.ignored.has(name, line):
			b.report.Ignored++
			return nil
		}
		b.addBody(name, s, parts)
		return nil
	default:
		return b.ignored.add(line)
	}
}

func (b *builder) addDigest(d digestLine, line string) error {
	if b.names.full(len(d.name)) {
		return errFull
	}
	if b.ignored.has(d.name, line) {
		b.report.Ignored++
		return nil
	}
	b.rows[d.alg] = append(b.rows[d.alg], digest{key: [keySize]byte(d.sum[:keySize]), size: d.size, name: b.names.add(d.name)})
	return nil
}

func (b *builder) addBody(name string, s bodySignature, parts []part) {
	s.name = b.names.add(name)
	s.first, s.parts = uint32(len(b.parts)), uint16(len(parts))
	for i := range parts {
		p := &parts[i]
		p.sig, p.targets, p.last = uint32(len(b.sigs)), s.targets, i == len(parts)-1
		p.pinned = i == 0 && s.where.exact()
		if len(parts) > 1 {
			b.slots++
			p.slot = b.slots
		}
	}
	b.parts = append(b.parts, parts...)
	b.sigs = append(b.sigs, s)
}

// errLongLine says that a line is not read.
var errLongLine = fmt.Errorf("limit: a line of more than %d bytes", maxLine)

// errTooLarge says that the files exceed max_size.
var errTooLarge = errors.New("the signature files are larger in all than max_size allows")

// file reads the lines of one file, or of one member of a container, called path in the report. An error says that the file
// is broken as a whole; what single lines are is in the report.
func (b *builder) file(path string, f format, r io.Reader) error {
	in := bufio.NewReaderSize(io.TeeReader(&metered{r: r, left: &b.left}, b.sum), maxLine)
	got := LoadedFile{Path: path}
	number, lines, malformed := 0, 0, 0
	for {
		line, err := in.ReadSlice('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			break
		}
		number++
		var bad error
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			bad = errLongLine
			if err := skipLine(in); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("%s: %w", path, err)
			}
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("%s: %w", path, err)
		default:
			line = trimLine(line)
			if len(line) == 0 || line[0] == '#' {
				continue
			}
			bad = b.line(f, string(line))
		}
		lines++
		if bad == nil {
			got.Used++
			continue
		}
		got.Skipped++
		b.report.skip(path, number, bad.Error())
		switch {
		case errors.Is(bad, errFull):
			return fmt.Errorf("%s:%d: %w", path, number, bad)
		case !strings.HasPrefix(bad.Error(), "malformed"):
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s:%d: the file ends in the middle of a line (%w): it is incomplete", path, number, bad)
		default:
			malformed++
		}
	}
	switch {
	case number == 0 && (f == digestFormat || f == bodyFormat):
		return fmt.Errorf("%s: the file is empty", path)
	case lines > 0 && malformed == lines:
		return fmt.Errorf("%s: all of its %d lines are malformed; is it the right kind of file?%s", path, lines, b.firstSkip(path))
	}
	b.report.Files = append(b.report.Files, got)
	return nil
}

func (b *builder) firstSkip(path string) string {
	for _, s := range b.report.Skips {
		if s.File == path {
			return fmt.Sprintf(" Line %d: %s", s.Line, s.Reason)
		}
	}
	return ""
}

func trimLine(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	return line
}

// skipLine reads up to the end of a line.
func skipLine(in *bufio.Reader) error {
	for {
		if _, err := in.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// metered reads from r until left is used up.
type metered struct {
	r    io.Reader
	left *int64
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if *m.left -= int64(n); *m.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// database returns what was built. The builder is not used any more.
func (b *builder) database(updated time.Time) *database {
	db := &database{names: b.names, allowed: b.allowed, sigs: b.sigs, parts: b.parts, slots: b.slots, report: b.report}
	r := b.report
	for alg, rows := range b.rows {
		r.Digests += len(rows)
		db.digests[alg] = newDigests(rows)
		b.rows[alg] = nil
	}
	r.Bodies, r.Allowed = len(b.sigs), len(b.allowed.keys)
	r.Updated, r.Digest = updated, hex.EncodeToString(b.sum.Sum(nil)[:8])
	b.names.seal()
	db.index()
	return db
}
