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

// Looks says whether the beginning of a body looks like a mail message, for bodies that do not declare it: whether there are fields of
// one, behind empty lines perhaps. What ends them need not be an empty line, because mail programs take whatever is no field for the body;
// but there have to be more of them then.
func Looks(head []byte) bool {
	fields, begun := 0, false
	for line := range bytes.Lines(head) {
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) == 0 && !begun:
			continue
		case len(line) == 0:
			return fields >= 2
		case line[0] == ' ' || line[0] == '\t':
			continue
		}
		begun = true
		name, ok := fieldName(line)
		if !ok {
			return fields > 2
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

// LooksMailbox says whether the beginning of a file looks like a mailbox: like a message behind the line that stands before each of them
// there (RFC 4155). The readings of the first message are those of all.
func LooksMailbox(head []byte) bool {
	line, rest, _ := bytes.Cut(head, []byte("\n"))
	return bytes.HasPrefix(line, []byte("From ")) && Looks(rest)
}

// LooksPart says whether the beginning of a body looks like a part of a mail with its header, for what is known to come out of a mail.
func LooksPart(head []byte) bool {
	for line := range bytes.Lines(head) {
		line = bytes.TrimRight(line, " \t\r\n")
		if len(line) == 0 {
			continue
		}
		_, ok := fieldName(line)
		return ok
	}
	return false
}

// Find calls visit with every reading of every section of the message b, and returns what could not be read.
func Find(ctx context.Context, pool *spool.Pool, b *spool.Blob, lim content.Limits, visit func(content.Part) error) []content.Problem {
	f := &finder{}
	f.Emitter = content.NewEmitter(ctx, pool, lim, func(p content.Part) error {
		message := f.message
		if err := visit(p); err != nil {
			return err
		}
		f.inner++
		defer func() { f.inner-- }()
		err := within(f, p, message)
		if err != nil && !errors.Is(err, content.ErrStop) {
			f.Run(p.Path, func() error { return err }) // noted here: to the caller, what a visitor returns is no problem
		}
		if content.Fatal(err) {
			return err
		}
		return nil
	})
	f.Run("message", func() error { return read(f, "", b) })
	f.Run("message", func() error { return f.beyond })
	return f.Problems()
}

// finder is one Find.
type finder struct {
	*content.Emitter
	message bool // the reading that is emitted next came out of a decoder, and could be a message to somebody
	inner   int  // how many readings that are emitted stand inside each other
	// beyond says that there is more than is looked at. It is told when everything else has been read: that may have a virus in it.
	beyond error
}

// tooMuch notes that there is more than is looked at; nil: there is not.
func (f *finder) tooMuch(err error) {
	if f.beyond == nil {
		f.beyond = err
	}
}

// errPartial says that a message is one of several (RFC 2046, 5.2.2): what it holds shows only when all are put together.
var errPartial = errors.New("message/partial: a fragment of a message cannot be scanned by itself")

// read reads a message. under is put before the names of its parts.
func read(e *finder, under string, b *spool.Blob) error {
	s := &splitter{e: e, under: under, boundaries: make(map[string]struct{}), lengths: make(map[int]struct{})}
	defer s.discard()
	lines := newLines(b)
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
