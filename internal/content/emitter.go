package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/spool"
)

// ErrStop is what an Emitter's methods return when the visitor has enough. It is no problem of the content.
var ErrStop = errors.New("the visitor has enough")

// Emitter hands readings of a body to a visitor, each only once, within limits. It is used by one goroutine.
type Emitter struct {
	ctx      context.Context
	pool     *spool.Pool
	lim      Limits
	visit    func(Part) error
	seen     map[[sha256.Size]byte]struct{}
	parts    int
	bytes    int64
	ended    bool
	problems []Problem
}

// NewEmitter returns an Emitter for one body.
func NewEmitter(ctx context.Context, pool *spool.Pool, lim Limits, visit func(Part) error) *Emitter {
	return &Emitter{ctx: ctx, pool: pool, lim: lim, visit: visit}
}

// Problems returns what could not be read so far.
func (e *Emitter) Problems() []Problem { return e.problems }

// Run calls one way of reading, and notes under path what it could not do. After a limit, or when the visitor has enough, it
// does nothing.
func (e *Emitter) Run(path string, read func() error) {
	if e.ended {
		return
	}
	err := read()
	var p *problem
	switch {
	case err == nil:
	case errors.Is(err, ErrStop):
		e.ended = true
	case errors.As(err, &p):
		e.note(p.kind, path, p.err)
	default:
		e.note(Undecodable, path, err)
	}
}

func (e *Emitter) note(k Kind, path string, err error) {
	if k != Undecodable {
		e.ended = true // every further reading would meet the same limit
	}
	e.problems = append(e.problems, Problem{Kind: k, Path: path, Err: err})
}

// problem is an error that knows its kind.
type problem struct {
	kind Kind
	err  error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// TooManyError returns err as one that says that there is more in the body than is looked at.
func TooManyError(err error) error { return &problem{TooMany, err} }

// Fatal says whether err ends the whole reading: a limit, or a visitor who has enough. Other errors concern one reading.
func Fatal(err error) bool {
	var p *problem
	return errors.Is(err, ErrStop) || errors.As(err, &p)
}

// Writer returns a place for one more reading, limited by what is left. Its errors need no attention before Emit.
func (e *Emitter) Writer() *spool.Writer { return e.pool.NewLimited(int64(e.lim.Bytes) - e.bytes) }

// Emit ends w and hands what was written to the visitor, unless the same bytes were handed to it before. cause is what
// writing to w ended with, nil for a whole reading; of a broken one the visitor sees what there was. The error is cause, or one
// that is Fatal.
func (e *Emitter) Emit(w *spool.Writer, path, typ string, cause error) error {
	return e.EmitPart(w, Part{Path: path, Type: typ}, cause)
}

// EmitPart is Emit for a part that has everything but its blob.
func (e *Emitter) EmitPart(w *spool.Writer, p Part, cause error) error {
	defer w.Discard()
	b, err := e.seal(w)
	if err != nil {
		return err
	}
	defer b.Close() // in memory or unlinked: nothing is lost with it
	return e.emitBlob(b, p, cause)
}

// seal ends w, which counts as taken out of the body. Its error is Fatal.
func (e *Emitter) seal(w *spool.Writer) (*spool.Blob, error) {
	if err := e.ctx.Err(); err != nil {
		return nil, &problem{Cancelled, err}
	}
	e.bytes += w.Size()
	b, err := w.Seal()
	switch {
	case errors.Is(err, spool.ErrTooLarge):
		return nil, &problem{TooLarge, fmt.Errorf("more than %v taken out of one body", e.lim.Bytes)}
	case err != nil:
		return nil, &problem{SpoolFull, err}
	}
	return b, nil
}

// emitBlob hands b to the visitor, unless the same bytes were handed to it before.
func (e *Emitter) emitBlob(b *spool.Blob, p Part, cause error) error {
	if _, again := e.seen[b.SHA256()]; again || b.Size() == 0 {
		return cause
	}
	e.parts++
	if e.parts > e.lim.Parts {
		return &problem{TooMany, fmt.Errorf("more than %d parts and other readings", e.lim.Parts)}
	}
	if e.seen == nil {
		e.seen = make(map[[sha256.Size]byte]struct{})
	}
	e.seen[b.SHA256()] = struct{}{}
	p.Blob = b
	if err := e.visit(p); err != nil {
		e.ended = true
		return ErrStop
	}
	return cause
}

// emit spools r and hands it to the visitor.
func (e *Emitter) emit(path, typ string, r io.Reader) error {
	w := e.Writer()
	_, err := io.Copy(w, r)
	return e.Emit(w, path, typ, err)
}
