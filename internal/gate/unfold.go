package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// A client could undo a coding that nobody has declared. Gzip and its like are seen by their first bytes; br and deflate have none,
// and many a beginning of text could be one of theirs. So a stream is undone by them as it comes, for as long as that goes well,
// and what comes out is judged as well.

const (
	// unfoldPiece is how much of what comes out is judged at a time.
	unfoldPiece = 64 << 10
	// unfoldMost bounds what comes out. It is more than the one repetition (RFC 7932, 9.2) that text may read as by chance.
	unfoldMost = 20 << 20
	// unfoldKept is how much of a stream is kept to be undone anew with each piece, so that no decoder holds memory while nothing
	// comes. Nearly everything turns out to be something else within a few bytes; what does not has a decoder of its own from then on.
	unfoldKept = 64 << 10
	// unfoldPatience is how long memory for a decoder is waited for.
	unfoldPatience = 10 * time.Second
)

// unfolding undoes one coding of a stream that is still coming. It is used by one goroutine. A decoder that lasts has another, which
// runs while feed does, and ends with the context, or when it can make no more of the stream.
type unfolding struct {
	coding string
	kept   []byte // the stream's beginning, as long as no decoder lasts
	given  int    // how much of what comes out has been given to out

	feeds chan []byte // nil: no decoder lasts yet
	idle  chan bool   // true: the decoder wants more; closed: it has ended
	out   func(p []byte) error
	err   error // of out, or too much; it is read when idle has said something
	ended bool
}

// newUnfolding returns an unfolding by a coding, which calls out with what comes out of it, while feed is being called.
func newUnfolding(coding string, out func(p []byte) error) *unfolding {
	return &unfolding{coding: coding, out: out}
}

// feed undoes what comes next. Its error is out's, or says that there is too much.
func (u *unfolding) feed(ctx context.Context, p []byte) error {
	if u.ended {
		return u.err
	}
	if u.feeds == nil && len(u.kept)+len(p) <= unfoldKept {
		u.kept = append(u.kept, p...)
		u.ended = !u.anew(ctx)
		if u.ended {
			u.kept = nil
		}
		return u.err
	}
	if u.feeds == nil {
		u.feeds, u.idle = make(chan []byte), make(chan bool)
		go u.last(ctx)
		p, u.kept = append(u.kept, p...), nil
	}
	select {
	case u.feeds <- p:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !<-u.idle {
		u.ended = true
	}
	return u.err
}

// anew undoes what is kept from its beginning, and says whether more of it could be undone if more came.
func (u *unfolding) anew(ctx context.Context) (alive bool) {
	defer u.caught(&alive)
	src := &keptReader{left: u.kept}
	room := unpack.Room{Share: unpack.Brief, Patience: unpack.Patience{For: unfoldPatience, Waiting: spool.Waiting{Done: ctx.Done()}}}
	return u.undo(src, room) && src.dry
}

// keptReader remembers whether more was wanted than there is.
type keptReader struct {
	left []byte
	dry  bool
}

// Read implements io.Reader.
func (r *keptReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		r.dry = true
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// last undoes what is fed, from the stream's beginning, for as long as it goes on.
func (u *unfolding) last(ctx context.Context) {
	defer close(u.idle)
	defer u.caught(new(bool))
	src := &fed{ctx: ctx, u: u}
	if src.wait() {
		u.undo(src, unpack.Room{Share: unpack.Endless, Patience: unpack.Patience{For: unfoldPatience, Waiting: spool.Waiting{Done: ctx.Done()}}})
	}
}

// caught makes an error of a panic, by which nothing is alive any more.
func (u *unfolding) caught(alive *bool) {
	if p := recover(); p != nil {
		u.err, *alive = fmt.Errorf("the decoder panicked: %v", p), false
	}
}

// undo gives out what comes out of src, but for what has been given out before. It says whether there was no error but src's, or the
// content's.
func (u *unfolding) undo(src io.Reader, room unpack.Room) bool {
	d, err := unpack.NewDecoderIn(src, []string{u.coding}, unpack.Limits{MemberBytes: 1 << 62, Ratio: 1 << 30}, room)
	if err != nil {
		u.err = err
		return false
	}
	defer d.Close() //nolint:errcheck // it never fails
	buf := make([]byte, unfoldPiece)
	for total := 0; ; {
		n, err := d.Read(buf)
		total += n
		if fresh := min(n, total-u.given); fresh > 0 {
			if u.given = total; total > unfoldMost {
				u.err = errors.New("it may be compressed without saying so, and is too large to be looked into")
				return false
			}
			if u.err = u.out(buf[n-fresh : n]); u.err != nil {
				return false
			}
		}
		if noMemory(err) {
			u.err = err // what it would have been is not known
			return false
		}
		if err != nil {
			return !errors.Is(err, io.EOF) // otherwise it has come to its end
		}
	}
}

// fed gives the decoder what was fed.
type fed struct {
	ctx  context.Context
	u    *unfolding
	left []byte
}

// wait waits for something to be fed, and says whether it was.
func (f *fed) wait() bool {
	select {
	case f.left = <-f.u.feeds:
		return true
	case <-f.ctx.Done():
		return false
	}
}

// Read implements io.Reader.
func (f *fed) Read(p []byte) (int, error) {
	for len(f.left) == 0 {
		f.u.idle <- true
		if !f.wait() {
			return 0, io.ErrUnexpectedEOF
		}
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}

// unfold has the codings that s might be in undone with piece, and returns what was found in what came out.
func (s *stream) unfold(st *state, piece []byte) scan.Verdict {
	if s.folded == nil {
		for _, coding := range []string{"br", "deflate"} {
			inside := &stream{g: s.g, ctx: s.ctx, f: s.f, kind: s.kind, on: true}
			u := newUnfolding(coding, func(p []byte) error { return inside.windows(s.unfoldingBy, p) })
			s.folded = append(s.folded, u)
		}
	}
	s.unfoldingBy = st
	for _, u := range s.folded {
		if err := u.feed(s.ctx, piece); err != nil {
			var found *unfolded
			if errors.As(err, &found) {
				return found.verdict
			}
			return scan.IncompleteVerdict(scan.Undecodable, "%v", err)
		}
	}
	return scan.CleanVerdict()
}

// unfolded is the error of what came out of a coding and is infected.
type unfolded struct{ verdict scan.Verdict }

// Error implements error.
func (u *unfolded) Error() string { return u.verdict.Detail }

// windows judges p, which comes next, by window.
func (s *stream) windows(st *state, p []byte) error {
	same := true
	for _, b := range p {
		same = same && b == p[0]
	}
	if same {
		return nil // chance gives repetitions of one character more than anything else
	}
	s.past = append(s.past, p...)
	ctx, cancel := context.WithTimeout(unpack.Together(s.ctx), s.g.cfg.Timeout.Std())
	defer cancel()
	v := s.verdict(ctx, st)
	if over := len(s.past) - streamOverlap; over > 0 {
		s.past = append(s.past[:0], s.past[over:]...)
	}
	if v.Outcome != scan.Clean {
		return &unfolded{v}
	}
	return nil
}
