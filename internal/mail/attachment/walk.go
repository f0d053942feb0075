package attachment

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"lazaret/internal/mail/header"
)

// The bounds of what is walked through. A mail beyond them counts as one that parsers disagree about.
const (
	maxHeader = 256 << 10
	maxParts  = 2000
	maxDepth  = 30
	maxLine   = 64 << 10
)

// entity is a message, or a part of one (RFC 2045, 2.4).
type entity struct {
	start, body, end int64 // of its header, of its body; the end of its body
	head             []byte
	h                header.Header
	message          bool // a message, and not a part: the mail itself, or one in message/rfc822
	typ, encoding    string
	names            []string
}

// leaf says whether it holds content rather than other entities.
func (e *entity) leaf() bool {
	return !strings.HasPrefix(e.typ, "multipart/") && e.typ != "message/rfc822" && e.typ != "message/global"
}

// frame is a multipart that was begun, or a message in a part, with what ends it.
type frame struct {
	e        *entity
	boundary string // "": a message/rfc822, which ends with what it is in
}

// walker reads a mail once, and finds its entities.
type walker struct {
	entities []*entity
	odd      string // why parsers may disagree; empty: they do not
	stack    []frame
	cur      *entity // nil: preamble or epilogue
	inHeader bool
	at       int64
	lastEnd  int64 // how long the line end before is
}

func (w *walker) strange(why string) {
	if w.odd == "" {
		w.odd = why
	}
}

// lineReaders are for walk.
var lineReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxLine) }}

// walk finds the entities of a mail.
func walk(r io.Reader) (*walker, error) {
	w := &walker{}
	w.begin(true)
	br := lineReaders.Get().(*bufio.Reader)
	br.Reset(r)
	defer func() {
		br.Reset(nil) // the mail is not kept for it
		lineReaders.Put(br)
	}()
	middle := false
	for {
		line, err := br.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		if len(line) > 0 {
			w.line(line, middle)
			middle = line[len(line)-1] != '\n'
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	w.finish()
	return w, nil
}

// begin begins an entity where the walker is.
func (w *walker) begin(message bool) {
	if len(w.entities) >= maxParts || len(w.stack) > maxDepth {
		w.strange("too many parts, or too deep")
		w.cur = nil
		return
	}
	w.cur, w.inHeader = &entity{start: w.at, message: message}, true
	w.entities = append(w.entities, w.cur)
}

func (w *walker) line(line []byte, middle bool) {
	if !middle && len(line) > 2 && line[0] == '-' && line[1] == '-' && w.delimiter(line) {
		w.at += int64(len(line))
		w.lastEnd = 0
		return
	}
	switch {
	case w.cur != nil && w.inHeader:
		w.cur.head = append(w.cur.head, line...)
		if len(w.cur.head) > maxHeader {
			w.strange("a header that is too long")
			w.cur.head, w.inHeader = nil, false
		}
	case w.cur == nil && bytes.Contains(bytes.ToLower(line), []byte("content-")):
		w.strange("fields before the first part, or behind the last")
	}
	w.at += int64(len(line))
	w.lastEnd = 0
	if line[len(line)-1] == '\n' {
		w.lastEnd = 1
		if bytes.HasSuffix(line, []byte("\r\n")) {
			w.lastEnd = 2
		}
	}
	if w.cur != nil && w.inHeader && !middle && (string(line) == "\r\n" || string(line) == "\n") {
		w.header()
	}
}

// delimiter takes a line that begins with two hyphens, and says whether it is a delimiter.
func (w *walker) delimiter(line []byte) bool {
	text := string(bytes.TrimRight(line[2:], " \t\r\n"))
	for i, f := range slices.Backward(w.stack) {
		if f.boundary == "" || text != f.boundary && text != f.boundary+"--" {
			continue
		}
		for _, inner := range w.stack[i+1:] {
			if inner.boundary != "" {
				w.strange("a multipart without its end")
			}
		}
		if w.cur != nil && w.inHeader {
			w.strange("a delimiter within a header")
		}
		w.close(i + 1)
		if text == f.boundary {
			w.at += int64(len(line))
			w.begin(false)
			w.at -= int64(len(line))
			return true
		}
		f.e.end = w.at + int64(len(line))
		w.stack = w.stack[:i]
		w.cur = nil
		return true
	}
	for _, f := range w.stack {
		if f.boundary != "" && strings.HasPrefix(text, f.boundary) {
			w.strange("a line that some take for a delimiter")
		}
	}
	return false
}

// close ends the current entity, and the frames above keep, at the line end before where the walker is.
func (w *walker) close(keep int) {
	end := w.at - w.lastEnd
	if w.cur != nil {
		w.cur.end = max(end, w.cur.body)
	}
	for _, f := range w.stack[keep:] {
		f.e.end = max(end, f.e.body)
	}
	w.stack, w.cur = w.stack[:keep], nil
}

func (w *walker) finish() {
	if w.cur != nil && w.inHeader {
		w.strange("a header without an end")
		w.header()
	}
	for _, f := range w.stack {
		if f.boundary != "" {
			w.strange("a multipart without its end")
		}
	}
	w.lastEnd = 0
	w.close(0)
	if len(w.entities) > 0 {
		w.entities[0].end = w.at
	}
}

// header reads the current entity's header, which is complete.
func (w *walker) header() {
	e := w.cur
	w.inHeader = false
	e.h, e.body, e.end = header.Parse(e.head), w.at, w.at
	if e.h.Odd {
		w.strange("a header that not everybody reads alike")
	}
	for _, name := range []string{"content-type", "content-transfer-encoding", "content-disposition"} {
		if len(e.h.All(name)) > 1 {
			w.strange("two fields " + name)
		}
	}
	for _, f := range e.h.Fields {
		if strings.HasPrefix(f.Name, "content") && !known[f.Name] && (strings.Contains(f.Name, "type") || strings.Contains(f.Name, "enc") || strings.Contains(f.Name, "disp")) {
			w.strange("a field that is nearly one that matters: " + f.Name)
		}
	}
	typ, params, ok := parseValue(e.h.Value("content-type"))
	_, more, fine := parseValue(e.h.Value("content-disposition"))
	names, all := namesOf(append(slices.Clone(more), params...))
	e.typ, e.names = typ, names
	if !all {
		w.strange("more names than are looked at")
	}
	if typ == "" {
		e.typ = "text/plain"
	}
	e.encoding = strings.ToLower(e.h.Value("content-transfer-encoding"))
	if !ok || !fine {
		w.strange("a Content-Type or a Content-Disposition that not everybody reads alike")
	}
	identity := e.encoding == "" || e.encoding == "7bit" || e.encoding == "8bit" || e.encoding == "binary"
	if !identity && (!e.leaf() || e.encoding != "base64" && e.encoding != "quoted-printable") {
		w.strange("an encoding that does not belong there: " + e.encoding)
	}
	switch {
	case strings.HasPrefix(e.typ, "multipart/"):
		w.multipart(e, params)
	case !e.leaf():
		w.stack = append(w.stack, frame{e: e})
		w.begin(true)
	}
}

var known = map[string]bool{"content-type": true, "content-transfer-encoding": true, "content-disposition": true}

func (w *walker) multipart(e *entity, params []param) {
	mark := ""
	for _, p := range params {
		if p.name == "boundary" {
			mark = p.value
		} else if strings.HasPrefix(p.name, "boundary") {
			w.strange("a boundary in pieces")
		}
	}
	if mark == "" || len(mark) > 70 || strings.TrimSpace(mark) != mark || strings.ContainsAny(mark, "\"\\;") {
		w.strange("a boundary that is none")
	}
	if mark == "" {
		return
	}
	for _, f := range w.stack {
		if f.boundary != "" && (strings.HasPrefix(mark, f.boundary) || strings.HasPrefix(f.boundary, mark)) {
			w.strange("boundaries that begin alike")
		}
	}
	w.stack = append(w.stack, frame{e, mark})
	w.cur = nil
}
