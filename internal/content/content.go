// Package content finds what a client could read out of a body besides the body as it stands: the parts of a multipart
// upload, the data of `data:` URLs, text in UTF-16. Each becomes an object of its own for the engines, because a scanner
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
}

// Part is one reading. Its blob is the finder's, and valid until visit returns.
type Part struct {
	Path string // "part 2 (report.doc)", "data: URL 3"
	Type string // what it declares itself to be, with parameters
	Blob *spool.Blob
}

// Find calls visit with every reading of src, and returns what could not be read. It ends early when visit returns an
// error, which is no problem of the content, or when ctx ends.
func Find(ctx context.Context, pool *spool.Pool, src Source, lim Limits, visit func(Part) error) []Problem {
	f := &finder{ctx: ctx, pool: pool, lim: lim, visit: visit}
	mediaType, params, err := mime.ParseMediaType(src.Type)
	if err != nil && mediaType == "" {
		mediaType, _, _ = strings.Cut(strings.ToLower(src.Type), ";")
	}
	f.run("", func() error {
		if strings.HasPrefix(strings.TrimSpace(mediaType), "multipart/") {
			return f.multipart(src.Blob, params["boundary"])
		}
		return nil
	})
	f.run("UTF-16 text", func() error { return f.utf16(src.Blob, params["charset"], mediaType) })
	f.run("data: URLs", func() error { return f.dataURLs(src.Blob) })
	return f.problems
}

var errStop = errors.New("the visitor has enough")

type finder struct {
	ctx      context.Context
	pool     *spool.Pool
	lim      Limits
	visit    func(Part) error
	parts    int
	bytes    int64
	ended    bool
	problems []Problem
}

// run calls one way of reading, and notes what it could not do.
func (f *finder) run(path string, read func() error) {
	if f.ended {
		return
	}
	err := read()
	var p *problem
	switch {
	case err == nil:
	case errors.Is(err, errStop):
		f.ended = true
	case errors.As(err, &p):
		f.note(p.kind, path, p.err)
	default:
		f.note(Undecodable, path, err)
	}
}

func (f *finder) note(k Kind, path string, err error) {
	if k != Undecodable {
		f.ended = true // every further reading would meet the same limit
	}
	f.problems = append(f.problems, Problem{Kind: k, Path: path, Err: err})
}

// problem is an error that knows its kind.
type problem struct {
	kind Kind
	err  error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// emit spools r and hands it to the visitor.
func (f *finder) emit(path, typ string, r io.Reader) error {
	if err := f.ctx.Err(); err != nil {
		return &problem{Cancelled, err}
	}
	f.parts++
	if f.parts > f.lim.Parts {
		return &problem{TooMany, fmt.Errorf("more than %d parts and other readings", f.lim.Parts)}
	}
	left := int64(f.lim.Bytes) - f.bytes
	w := f.pool.NewLimited(left)
	defer w.Discard()
	_, copyErr := io.Copy(w, r)
	f.bytes += w.Size()
	switch {
	case errors.Is(copyErr, spool.ErrTooLarge):
		return &problem{TooLarge, fmt.Errorf("more than %v taken out of one body", f.lim.Bytes)}
	case errors.Is(copyErr, spool.ErrFull):
		return &problem{SpoolFull, copyErr}
	}
	// What a broken part had until it broke is looked at all the same.
	b, err := w.Seal()
	if err != nil {
		return &problem{SpoolFull, err}
	}
	defer b.Close() // in memory or unlinked: nothing is lost with it
	if err := f.visit(Part{Path: path, Type: typ, Blob: b}); err != nil {
		f.ended = true
		return errStop
	}
	return copyErr
}
