package signatures

import (
	"crypto/md5" // #nosec G501 -- the format says so
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"lazaret/internal/scan"
)

const (
	// engineLevel is the functionality level that is claimed: that of ClamAV 1.4.
	engineLevel = 216
	// unsizedLevel is the level that a signature without a size must ask for.
	unsizedLevel = 73
	// maxDigestSize is the size of the largest file that a digest can be about.
	maxDigestSize = 1<<32 - 2
	// maxBodies bounds the body signatures of a database.
	maxBodies = 1 << 22
)

// Errors of a line. They have no details, so that they can be counted.
var (
	errFields    = errors.New("malformed line: wrong number of fields")
	errDigest    = errors.New("malformed digest: want 32, 40 or 64 hexadecimal digits")
	errSize      = errors.New("malformed size: want a number from 1 to 4294967294, or *")
	errUnsized   = errors.New("malformed line: the size * needs a minimum functionality level of 73")
	errLevel     = errors.New("malformed functionality level")
	errNotForUs  = errors.New("not for this engine: functionality level")
	errNoName    = errors.New("malformed line: no name")
	errIgnoreSum = errors.New("malformed line: the digest of the ignored entry is no MD5")
	errFull      = errors.New("limit: more signatures than a database can hold")
)

// fields splits line at its colons into out, and returns how many fields there are; more than out holds is one too many.
func fields(line string, out []string) int {
	for n := range out {
		f, rest, more := strings.Cut(line, ":")
		out[n] = f
		if !more {
			return n + 1
		}
		line = rest
	}
	return len(out) + 1
}

// checkLevels returns an error unless the engine is within the levels that a line asks for; empty fields ask for nothing.
func checkLevels(lowest, highest string) error {
	number := func(s string, absent int) (int, error) {
		if s == "" {
			return absent, nil
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return 0, errLevel
		}
		return n, nil
	}
	low, err := number(lowest, 0)
	if err != nil {
		return err
	}
	high, err := number(highest, engineLevel)
	if err != nil {
		return err
	}
	if low > engineLevel || high < engineLevel {
		return errNotForUs
	}
	return nil
}

// digestLine is a line of .hdb, .hsb, .fp and .sfp: digest:size:name[:lowest[:highest]].
type digestLine struct {
	alg  algorithm
	sum  []byte
	size uint32 // 0: any
	name string
}

func parseDigestLine(line string) (d digestLine, err error) {
	var f [5]string
	n := fields(line, f[:])
	if n < 3 || n > len(f) {
		return d, errFields
	}
	if err := checkLevels(f[3], f[4]); err != nil {
		return d, err
	}
	if d.sum, err = hex.DecodeString(f[0]); err != nil {
		return d, errDigest
	}
	var known bool
	if d.alg, known = byLength(len(d.sum)); !known {
		return d, errDigest
	}
	if f[1] == "*" {
		if level, _ := strconv.Atoi(f[3]); level < unsizedLevel { // checkLevels has read it
			return d, errUnsized
		}
	} else {
		size, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil || size == 0 || size > maxDigestSize {
			return d, errSize
		}
		d.size = uint32(size)
	}
	if d.name = f[2]; d.name == "" {
		return d, errNoName
	}
	return d, nil
}

// bodySignature is a signature of a body.
type bodySignature struct {
	name    uint32
	first   uint32 // its parts in database.parts
	parts   uint16
	targets uint16 // one bit
	where   where
	bundled bool
}

// parseBodyLine reads a line of .ndb: name:target:offset:body[:lowest[:highest]].
func parseBodyLine(line string) (name string, s bodySignature, parts []part, err error) {
	var f [6]string
	n := fields(line, f[:])
	if n < 4 || n > len(f) {
		return "", s, nil, errFields
	}
	if name = f[0]; name == "" {
		return "", s, nil, errNoName
	}
	if err := checkLevels(f[4], f[5]); err != nil {
		return name, s, nil, err
	}
	target, err := parseTarget(f[1])
	if err != nil {
		return name, s, nil, err
	}
	if s.where, err = parseOffset(f[2], target); err != nil {
		return name, s, nil, err
	}
	s.targets = 1 << target
	parts, err = parseBody(f[3])
	return name, s, parts, err
}

// ignores is what the ignore-lists name: for each name the digests of the lines that are ignored, or nil for every line.
type ignores map[string]map[[md5.Size]byte]bool

// add reads a line of .ign2, name[:digest], or of .ign, database:line:name.
func (g ignores) add(line string) error {
	var f [4]string
	n := fields(line, f[:])
	name := f[0]
	switch {
	case n > len(f):
		return errFields
	case n > 2:
		name = f[2]
	}
	if name = plainName(name); name == "" {
		return errNoName
	}
	if n != 2 {
		g[name] = nil
		return nil
	}
	sum, err := hex.DecodeString(f[1])
	if err != nil || len(sum) != md5.Size {
		return errIgnoreSum
	}
	have, ok := g[name]
	if ok && have == nil {
		return nil
	}
	if have == nil {
		have = map[[md5.Size]byte]bool{}
		g[name] = have
	}
	have[[md5.Size]byte(sum)] = true
	return nil
}

// has says whether the signature called name, which stands in line, is ignored.
func (g ignores) has(name, line string) bool {
	if len(g) == 0 {
		return false
	}
	sums, ok := g[plainName(name)]
	return ok && (sums == nil || sums[md5.Sum([]byte(line))]) // #nosec G401 -- the format says so
}

// plainName returns name without what ClamAV adds to it in its messages.
func plainName(name string) string {
	name = strings.TrimSuffix(name, ".UNOFFICIAL")
	if strings.HasSuffix(name, "}") {
		if i := strings.Index(name, ".{"); i > 0 {
			name = name[:i]
		}
	}
	return name
}

// eicar returns the signature that is built in: the test file's 68 bytes, anywhere.
func eicar() (string, bodySignature, []part) {
	p := part{elems: []element{{kind: isRun, masked: masked{value: scan.EICAR()}}}}
	return "Eicar-Test-Signature", bodySignature{targets: 1 << targetAny, bundled: true}, []part{p}
}
