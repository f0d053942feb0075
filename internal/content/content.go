// Package content finds what a client could read out of a body besides the body as it stands: the parts of a multipart
// upload, the data of `data:` URLs, text in UTF-16, the messages of gRPC-Web. Each becomes an object of its own for the engines, because a scanner
// that sees only the bytes on the wire does not see these.
//
// Archives are the business of package unpack. Both are called by the gate, which also applies them to what they find.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"lazaret/internal/spool"
	"lazaret/internal/units"
)

// Limits bound what is taken out of one body.
type Limits struct {
	Parts int        `toml:"parts" doc:"so many parts, data: URLs and other readings are taken out of one body; with more the verdict is Incomplete (too many)"`
	Bytes units.Size `toml:"bytes" doc:"so many bytes are taken out of one body in all; with more the verdict is Incomplete (too large)"`
}

// Default returns the settings that work without a file.
func Default() Limits { return Limits{Parts: 5000, Bytes: 8 * units.GiB} }

// Validate returns what cannot be used in l.
func (l Limits) Validate() error {
	var errs []error
	if l.Parts <= 0 {
		errs = append(errs, fmt.Errorf("parts: %d would let no part be looked at; write a number such as 5000", l.Parts))
	}
	if l.Bytes <= 0 {
		errs = append(errs, errors.New("bytes: must be greater than zero, such as \"8 GiB\""))
	}
	return errors.Join(errs...)
}

// Kind says what kept something from being looked at.
type Kind uint8

// The kinds of problem.
const (
	Undecodable Kind = iota // broken: some client may read what we could not
	TooMany                 // more readings than the limit
	TooLarge                // more bytes than the limit
	SpoolFull               // no room
	Cancelled               // the context ended
)

// Problem is something that could not be looked at.
type Problem struct {
	Kind Kind
	Path string
	Err  error
}

// Source is the body that is looked into.
type Source struct {
	Blob *spool.Blob
	Type string // the declared Content-Type, with its parameters; may be wrong or empty
	// TransferEncoding is the declared Content-Transfer-Encoding (RFC 2045, 6), mostly empty.
	TransferEncoding string
	// Guessed says that the body is what a Guess made of another, or part of that. No further codings are guessed then: almost
	// any run of one character is "br" in "deflate" in "br", as deep as one likes, and no client undoes two that nobody declared.
	Guessed bool
}

// Part is one reading. Its blob is the finder's, and valid until visit returns.
type Part struct {
	Path string // "part 2 (report.doc)", "data: URL 3"
	Type string // what it declares itself to be, with parameters
	Blob *spool.Blob
	// Guess says that the body may just as well be something else. That such a reading is broken means nothing.
	Guess bool
	// Chance says that random bytes are read so now and then, and that no client does it without being told.
	Chance bool
	// Piece says that the body may be a piece of a file, because applications cut files into messages. That the beginning or the
	// end of something is missing in it means nothing.
	Piece bool
	// Cut says that whoever sent the mail has cut it off within the body, as mail servers do when they return one.
	Cut bool
}

// Find calls visit with every reading of src, and returns what could not be read. It ends early when visit returns an
// error, which is no problem of the content, or when ctx ends.
func Find(ctx context.Context, pool *spool.Pool, src Source, lim Limits, visit func(Part) error) []Problem {
	f := &finder{Emitter: NewEmitter(ctx, pool, lim, visit)}
	mediaType, params, err := mime.ParseMediaType(src.Type)
	if err != nil && mediaType == "" {
		mediaType, _, _ = strings.Cut(strings.ToLower(src.Type), ";")
	}
	f.Run("", func() error {
		if strings.HasPrefix(strings.TrimSpace(mediaType), "multipart/") {
			return f.multipart(src.Blob, params["boundary"])
		}
		return f.looksMultipart(src.Blob)
	})
	f.Run("UTF-16 text", func() error { return f.utf16(src.Blob, params["charset"], mediaType) })
	f.Run("UTF-32 text", func() error { return f.utf32(src.Blob, params["charset"], mediaType) })
	f.Run("UTF-7 text", func() error { return f.utf7(src.Blob, params["charset"], mediaType) })
	f.Run("NUL bytes", func() error { return f.nuls(src.Blob, mediaType) })
	f.Run("messages", func() error { return f.messages(src.Blob, mediaType) })
	f.Run("fields", func() error { return f.fields(src.Blob, "", mediaType) })
	f.Run("chunks", func() error { return f.chunks(src.Blob) })
	f.Run("transfer encoding", func() error { return f.transfer(src) })
	if !src.Guessed {
		f.Run("undeclared codings", func() error { return f.coded(src.Blob) })
	}
	f.Run("a form", func() error { return f.form(src.Blob, mediaType) })
	f.Run("an answer", func() error { return f.answer(src.Blob) })
	f.Run("data: URLs", func() error { return f.dataURLs(src.Blob) })
	f.Run("percent-encoded data: URLs", func() error { return f.percentURLs(src.Blob) })
	return f.Problems()
}

// finder is one Find.
type finder struct {
	*Emitter
	start []byte // of the body; nil: not read yet
}

// peek is how much of a body's beginning says what it might be.
const peek = 4 << 10

// head returns the beginning of b, peek bytes where there are as many.
func (f *finder) head(b *spool.Blob) ([]byte, error) {
	if f.start != nil {
		return f.start, nil
	}
	if text, ok := b.Bytes(); ok {
		f.start = text[:min(len(text), peek)]
		return f.start, nil
	}
	buf := make([]byte, peek)
	n, err := b.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	f.start = buf[:n]
	return f.start, nil
}
