// Package message reads mail (RFC 5322, MIME) the way that any mail client might: not by one parser's opinion, but under
// every reading that some client is known to have.
//
// Mail clients disagree about malformed MIME: about duplicated or misspelt headers, about boundaries, about what junk in
// base64 means. A virus hides where the scanner's parser and the client's differ. So Find does not parse a message, it takes
// a union: the text between any two lines that could be delimiters is a section, whatever was declared; each section is
// decoded by every transfer encoding that its header or its looks allow, in every way in which decoders treat errors; and
// embedded encodings (uuencode, yEnc, BinHex, TNEF, S/MIME's signed messages) are found anywhere. Most readings of an
// ordinary message come out the same, and are handed on once.
//
// It reads a message once from the start to the end, with memory that does not depend on its size.
package message

import (
	"bytes"
	"context"
	"errors"
	"io"

	"lazaret/internal/content"
	"lazaret/internal/spool"
)

// Looks says whether the beginning of a body looks like a mail message, for bodies that do not declare it.
func Looks(head []byte) bool {
	fields := 0
	for line := range bytes.Lines(head) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, ok := fieldName(line)
		if !ok {
			return false
		}
		switch string(name) {
		case "received", "mime-version", "message-id", "return-path", "dkim-signature":
			fields += 2
		case "from", "to", "date", "subject", "content-type", "content-transfer-encoding":
			fields++
		}
	}
	return fields >= 2
}

// Find calls visit with every reading of every section of the message b, and returns what could not be read.
func Find(ctx context.Context, pool *spool.Pool, b *spool.Blob, lim content.Limits, visit func(content.Part) error) []content.Problem {
	var e *content.Emitter
	inner := 0
	e = content.NewEmitter(ctx, pool, lim, func(p content.Part) error {
		if err := visit(p); err != nil || inner >= maxInner {
			return err
		}
		inner++
		defer func() { inner-- }()
		err := within(e, p)
		if err != nil && !errors.Is(err, content.ErrStop) {
			e.Run(p.Path, func() error { return err }) // noted here: to the caller, what a visitor returns is no problem
		}
		if content.Fatal(err) {
			return err
		}
		return nil
	})
	e.Run("message", func() error { return read(e, b.NewReader()) })
	return e.Problems()
}

// errPartial says that a message is one of several (RFC 2046, 5.2.2): what it holds shows only when all are put together.
var errPartial = errors.New("message/partial: a fragment of a message cannot be scanned by itself")

func read(e *content.Emitter, r io.Reader) error {
	s := &splitter{e: e, boundaries: make(map[string]struct{}), lengths: make(map[int]struct{})}
	defer s.discard()
	lines := newLines(r)
	for {
		l, err := lines.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(l.text) > 0 {
			if fatal := s.line(l); fatal != nil {
				return fatal
			}
		}
		if err != nil {
			break
		}
	}
	if err := s.end(); err != nil {
		return err
	}
	if s.partial {
		return errPartial
	}
	return nil
}
