package clamd

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/scan"
)

// maxReply bounds a reply of clamd, in bytes. Real ones have a file name of ours and a signature name.
const maxReply = 4096

// maxSignature bounds a signature's name, in bytes.
const maxSignature = 256

// kind is what a reply to a scan says.
type kind uint8

const (
	replyOK kind = iota + 1
	replyFound
	replyError
)

// reply is a parsed reply to a scan.
type reply struct {
	kind kind
	text string // of FOUND the signature, of ERROR the message
}

// errProtocol is a reply that is not understood. Nothing more can be had from a connection that gave one.
func errProtocol(format string, args ...any) error {
	return &scan.Error{Reason: scan.Unknown, Err: fmt.Errorf(format, args...)}
}

// body returns what follows "<id>: " in a reply inside an IDSESSION, and an error when the number is missing or another.
func body(line []byte, id uint32) (string, error) {
	number, rest, ok := bytes.Cut(line, []byte(": "))
	if !ok || string(number) != strconv.FormatUint(uint64(id), 10) {
		return "", errProtocol("the reply %s is not one to request %d", quote(line), id)
	}
	return string(rest), nil
}

var okReply = regexp.MustCompile(`\A(?:stream|fd\[[0-9]{1,10}\]): OK\z`)

// parseScan reads a reply to FILDES or INSTREAM, without its terminator. Anything that is not exactly OK, and neither
// FOUND nor ERROR, is an error.
func parseScan(line []byte, id uint32) (reply, error) {
	rest, err := body(line, id)
	if err != nil {
		return reply{}, err
	}
	if okReply.MatchString(rest) {
		return reply{kind: replyOK}, nil
	}
	if found, ok := strings.CutSuffix(rest, " FOUND"); ok {
		if _, after, ok := strings.Cut(found, ": "); ok {
			found = after
		}
		return reply{replyFound, scan.Printable(found, maxSignature)}, nil
	}
	if failed, ok := strings.CutSuffix(rest, "ERROR"); ok {
		return reply{replyError, scan.Printable(strings.TrimSpace(failed), maxReply)}, nil
	}
	return reply{}, errProtocol("the reply %s is unknown", quote(line))
}

// verdict returns what r says of an object, for the engine called name, found at path.
func (r reply) verdict(name, path string) scan.Verdict {
	switch r.kind {
	case replyOK:
		return scan.CleanVerdict()
	case replyFound:
		if reason := limitReason(r.text); reason != scan.NoReason {
			return scan.IncompleteVerdict(reason, "%s: %s", name, r.text)
		}
		signature := r.text
		if signature == "" {
			signature = "unknown"
		}
		return scan.InfectedVerdict(name, signature, path)
	case replyError:
		return scan.IncompleteVerdict(errorReason(r.text), "%s: clamd says: %s ERROR", name, r.text)
	}
	return scan.IncompleteVerdict(scan.Unknown, "%s: no reply", name)
}

// The signature names by which clamd says that it did not look at everything (AlertExceedsMax, AlertEncrypted).
const (
	limitPrefix     = "Heuristics.Limits.Exceeded"
	encryptedPrefix = "Heuristics.Encrypted."
)

// limitReason returns why clamd could not look at everything, when that is what a signature's name says.
func limitReason(signature string) scan.Reason {
	if strings.HasPrefix(signature, encryptedPrefix) {
		return scan.Encrypted
	}
	which, ok := strings.CutPrefix(signature, limitPrefix)
	if !ok {
		return scan.NoReason
	}
	switch strings.TrimPrefix(which, ".") {
	case "MaxRecursion":
		return scan.TooDeep
	case "MaxFiles", "EmailHeaders", "EmailMIMEPartsPerMessage", "EmailMIMEArguments", "EmailLineFoldCnt":
		return scan.TooMany
	case "MaxScanTime":
		return scan.Timeout
	}
	return scan.TooLarge
}

// errorReason returns the reason that the text before ERROR amounts to; most are the engine's own troubles.
func errorReason(text string) scan.Reason {
	t := strings.ToLower(text)
	for _, c := range []struct {
		part   string
		reason scan.Reason
	}{
		{"size limit exceeded", scan.TooLarge},
		{"cl_emaxsize", scan.TooLarge},
		{"cl_emaxrec", scan.TooDeep},
		{"cl_emaxfiles", scan.TooMany},
		{"time limit", scan.Timeout},
		{"timed out", scan.Timeout},
		{"timeout", scan.Timeout},
	} {
		if strings.Contains(t, c.part) {
			return c.reason
		}
	}
	return scan.EngineError
}

// noDescriptor says whether an ERROR means that the file which FILDES handed over did not arrive, or is not accepted.
func noDescriptor(text string) bool {
	return strings.Contains(text, "file descriptor") || strings.Contains(text, "FILDES") || strings.Contains(text, "Not a regular file") || strings.Contains(text, "ancillary")
}

// parseVersion reads what VERSION gives: "ClamAV 1.4.3/27453/Mon Nov 23 09:01:01 2025", or "ClamAV 1.4.3" alone where the
// database has no number. The date is in the time zone of clamd's machine, which is taken to be ours.
func parseVersion(text string) (scan.Version, error) {
	engine, rest, _ := strings.Cut(text, "/")
	if !strings.HasPrefix(engine, "ClamAV ") || len(text) > maxSignature {
		return scan.Version{}, errProtocol("the version %s is unknown", quote([]byte(text)))
	}
	v := scan.Version{Engine: scan.Printable(engine, maxSignature)}
	number, date, _ := strings.Cut(rest, "/")
	if _, err := strconv.ParseUint(number, 10, 64); err == nil && number != "0" {
		v.Signatures = number
	}
	if t, err := time.ParseInLocation(time.ANSIC, strings.TrimSpace(date), time.Local); err == nil {
		v.Updated = t
	}
	return v, nil
}

// quote writes the beginning of a reply for an error's text.
func quote(line []byte) string {
	const most = 100
	if len(line) > most {
		return strconv.Quote(string(line[:most])) + "…"
	}
	return strconv.Quote(string(line))
}

// errLost says that a connection broke without a verdict.
var errLost = errors.New("the connection was lost before clamd's verdict")
