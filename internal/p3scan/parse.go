// Package p3scan reads the settings of P3Scan (2.3.2, and the 3.0 forks) and writes them as Lazaret's, with a report: what was
// taken over, what was mapped to something else, what was refused, and why. It touches no file.
package p3scan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Setting is a line of p3scan.conf.
type Setting struct {
	Line  int
	Key   string // whole, whatever was abbreviated
	Value string // empty where there is none
}

// Error is what is wrong in a line.
type Error struct {
	Line    int
	Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// renamed are the keys that 3.0 calls otherwise; handling is by the names of 2.3.2.
var renamed = map[string]string{
	"smtpport": "emailport", "delete": "justdelete", "extrapgm": "xmail", "freespace": "bytesfree", "delnotify": "notify", "smtpsize": "checksize",
}

// shared, only2 and only3 are the keys of both vocabularies, and of one alone.
var (
	shared = []string{
		"pidfile", "maxchilds", "ip", "port", "targetip", "targetport", "useurl", "sslport", "user", "virusdir", "notifydir", "extra", "emergcon",
		"scannertype", "scanner", "viruscode", "goodcode", "virusregexp", "demime", "broken", "timeout", "ispspam", "checkspam", "renattach",
		"overwrite", "template", "altvnmsg", "subject", "smtprset", "skipsize", "footer", "enabletop", "debug", "quiet", "logopt", "logfac",
	}
	only2 = []string{"emailport", "justdelete", "xmail", "bytesfree", "spamcheck", "notify", "checksize"}
	only3 = []string{
		"smtpport", "imapport", "delete", "extrapgm", "freespace", "delnotify", "smtpsize", "whitelist", "blacklist", "blacksubj", "blackshort",
		"spamsubject", "spamdelete", "noeom", "nospampipe", "cleankill",
	}
)

// maxFile bounds what is read.
const maxFile = 1 << 20

// Parse reads a p3scan.conf. Text that is no UTF-8 is taken for ISO 8859-1. The error joins an *Error for each line that
// cannot be understood.
func Parse(r io.Reader) ([]Setting, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("this is no p3scan.conf: it has more than %d bytes", maxFile)
	}
	given, errs := lines(text(b))
	// Abbreviations count in the vocabulary that the whole file is written in.
	for _, words := range [][]string{slices.Concat(shared, only2), slices.Concat(shared, only3)} {
		if out, bad := resolve(given, words); len(bad) == 0 {
			return out, errors.Join(errs...)
		}
	}
	out, bad := resolve(given, slices.Concat(shared, only2, only3))
	errs = append(errs, bad...)
	slices.SortStableFunc(errs, func(a, b error) int { return lineOf(a) - lineOf(b) })
	return out, errors.Join(errs...)
}

func lineOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Line
	}
	return 0
}

func text(b []byte) string {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if utf8.Valid(b) {
		return string(b)
	}
	out := make([]rune, len(b))
	for i, c := range b {
		out[i] = rune(c)
	}
	return string(out)
}

// lines splits a file into keys, as they are written, and values.
func lines(s string) (out []Setting, errs []error) {
	n := 0
	for line := range strings.SplitSeq(s, "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' || strings.HasPrefix(line, "//") {
			continue
		}
		if strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			errs = append(errs, &Error{n, "has control characters in it"})
			continue
		}
		i := strings.IndexFunc(line, func(r rune) bool { return r == '=' || unicode.IsSpace(r) })
		if i < 0 {
			i = len(line)
		}
		value := strings.TrimSpace(line[i:])
		value = strings.TrimSpace(strings.TrimPrefix(value, "="))
		if i == 0 {
			errs = append(errs, &Error{n, "has a value and no key"})
			continue
		}
		out = append(out, Setting{n, line[:i], value})
	}
	return out, errs
}

// resolve gives each setting the whole name of its key.
func resolve(given []Setting, words []string) (out []Setting, errs []error) {
	for _, s := range given {
		key, err := whole(s.Key, words)
		if err != nil {
			errs = append(errs, &Error{s.Line, err.Error()})
			continue
		}
		out = append(out, Setting{s.Line, key, s.Value})
	}
	return out, errs
}

// whole returns the key that s is, or is the beginning of.
func whole(s string, words []string) (string, error) {
	if slices.Contains(words, s) || strings.HasPrefix(s, "debug-") {
		return s, nil
	}
	var meant []string
	for _, w := range words {
		if strings.HasPrefix(w, s) {
			meant = append(meant, w)
		}
	}
	switch len(meant) {
	case 0:
		return "", fmt.Errorf("%.60q is no key of P3Scan", s)
	case 1:
		return meant[0], nil
	}
	slices.Sort(meant)
	return "", fmt.Errorf("%q may be %s: write it out", s, strings.Join(meant, " or "))
}
