package signatures

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// A target type says which files a body signature is about, in ClamAV's numbers. Sets of them are bits.
const (
	targetAny      = 0
	targetPE       = 1
	targetOLE2     = 2
	targetHTML     = 3
	targetMail     = 4
	targetGraphics = 5
	targetELF      = 6
	targetText     = 7
	targetMachO    = 9
	targetPDF      = 10
	targetFlash    = 11
	targetJava     = 12
	targetOther    = 14

	// everyTarget is matched in every object: 14 is for the types that ClamAV has no number for.
	everyTarget = 1<<targetAny | 1<<targetOther
	// textTargets are matched in whatever could be read as text.
	textTargets = 1<<targetHTML | 1<<targetMail | 1<<targetText
)

var errTarget = errors.New("unsupported: target type (known are 0-7, 9-12 and 14)")

// parseTarget reads the target type of a body signature; like ClamAV, it takes * for 0.
func parseTarget(s string) (int, error) {
	if s == "*" {
		return targetAny, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n == 8 || n == 13 || n > 14 {
		return 0, errTarget
	}
	return n, nil
}

// headSize is how much of an object's beginning tells what it is.
const headSize = 4 << 10

// magics are beginnings that tell the target type; targetAny where they only tell that the object is no text.
var magics = []struct {
	begin  string
	target int
}{
	{"MZ", targetPE},
	{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", targetOLE2},
	{"\x7fELF", targetELF},
	{"GIF8", targetGraphics},
	{"\x89PNG", targetGraphics},
	{"\xff\xd8\xff", targetGraphics},
	{"II*\x00", targetGraphics},
	{"MM\x00*", targetGraphics},
	{"II+\x00", targetGraphics},
	{"MM\x00+", targetGraphics},
	{"\xfe\xed\xfa\xce", targetMachO},
	{"\xfe\xed\xfa\xcf", targetMachO},
	{"\xce\xfa\xed\xfe", targetMachO},
	{"\xcf\xfa\xed\xfe", targetMachO},
	{"FWS", targetFlash},
	{"CWS", targetFlash},
	{"ZWS", targetFlash},
	{"PK\x03\x04", targetAny},
	{"\x1f\x8b", targetAny},
	{"Rar!\x1a", targetAny},
	{"7z\xbc\xaf\x27\x1c", targetAny},
	{"\xfd7zXZ\x00", targetAny},
	{"\x28\xb5\x2f\xfd", targetAny},
	{"wOF2", targetAny},
	{"wOFF", targetAny},
}

// classify returns the target types that are matched in an object which begins with head and was declared to be of the
// given media type, and whether it could be read as text. Where it is not certain, more is matched.
func classify(head []byte, declared string) (targets uint16, text bool) {
	targets = everyTarget
	binary := false
	for i := range magics {
		if len(head) >= len(magics[i].begin) && string(head[:len(magics[i].begin)]) == magics[i].begin {
			targets |= 1 << magics[i].target
			binary = true
		}
	}
	if bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")) { // a Java class, or a Mach-O file for several processors
		targets |= 1<<targetJava | 1<<targetMachO
		binary = true
	}
	if bytes.Contains(head[:min(len(head), 1024)], []byte("%PDF-")) {
		targets |= 1 << targetPDF
	}
	// "MZ", "FWS" and "GIF8" may also begin a text, and a browser believes the declared type.
	text = declaredText(declared) || looksText(head) && (!binary || bytes.IndexByte(head, 0) < 0)
	if text {
		targets |= textTargets
	}
	return targets, text
}

// declaredText says whether a browser shows, or runs, what comes under that media type.
func declaredText(t string) bool {
	t = strings.ToLower(t)
	if strings.HasPrefix(t, "text/") || strings.HasPrefix(t, "message/") {
		return true
	}
	for _, word := range []string{"html", "xml", "javascript", "ecmascript", "json"} {
		if strings.HasPrefix(t, "application/") && strings.Contains(t, word) {
			return true
		}
	}
	return t == "image/svg+xml"
}

// looksText says whether head has few control characters. NUL does not count against it: browsers pass over it, and
// UTF-16 is half of it.
func looksText(head []byte) bool {
	control := 0
	for _, b := range head {
		if b < ' ' && b != 0 && (b < '\t' || b > '\r') && b != 0x1b {
			control++
		}
	}
	return control*32 <= len(head)
}
