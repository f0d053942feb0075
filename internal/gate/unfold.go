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
	// unfoldPatience is how long memory for a decoder is waited for.
	unfoldPatience = 10 * time.Second
)

// unfolding undoes one coding of a stream that is still coming. It is used by one goroutine; the decoder has another, which runs
// while feed does, and ends with the context, or when it can make no more of the stream.
type unfolding struct {
	feeds chan []byte
	idle  chan bool // true: the decoder wants more; closed: it has ended
	out   func(p []byte) error
	err   error // of out, or too much; it is read when idle has said something
	ended bool
	total int
}

// newUnfolding returns an unfolding by a coding, which calls out with what comes out of it, while feed is being called.
func newUnfolding(ctx context.Context, coding string, out func(p []byte) error) *unfolding {
	u := &unfolding{feeds: make(chan []byte), idle: make(chan bool), out: out}
	go u.run(ctx, coding)
	return u
}

// feed undoes what comes next. Its error is out's, or says that there is too much.
func (u *unfolding) feed(ctx context.Context, p []byte) error {
	if u.ended {
		return u.err
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

func (u *unfolding) run(ctx context.Context, coding string) {
	defer close(u.idle)
	defer func() {
		if p := recover(); p != nil {
			u.err = fmt.Errorf("the decoder panicked: %v", p)
		}
	}()
	src := &fed{ctx: ctx, u: u}
	if !src.wait() {
		return
	}
	room := unpack.Room{Patience: unpack.Patience{For: unfoldPatience, Waiting: spool.Waiting{Done: ctx.Done()}}}
	d, err := unpack.NewDecoderIn(src, []string{coding}, unpack.Limits{MemberBytes: 1 << 62, Ratio: 1 << 30}, room)
	if err != nil {
		u.err = err
		return
	}
	defer d.Close() //nolint:errcheck // it never fails
	buf := make([]byte, unfoldPiece)
	for {
		n, err := d.Read(buf)
		if n > 0 {
			if u.total += n; u.total > unfoldMost {
				u.err = errors.New("it may be compressed without saying so, and is too large to be looked into")
				return
			}
			if u.err = u.out(buf[:n]); u.err != nil {
				return
			}
		}
		if noMemory(err) {
			u.err = err // what it would have been is not known
		}
		if err != nil {
			return // it is something else
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
			u := newUnfolding(s.ctx, coding, func(p []byte) error { return inside.windows(s.unfoldingBy, p) })
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
	ctx, cancel := context.WithTimeout(s.ctx, s.g.cfg.Timeout.Std())
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
