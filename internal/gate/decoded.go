package gate

import (
	"errors"
	"io"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// A decoder's window is up to 16 MiB, and a sender may take as long as it likes. So what is encoded in a coding with windows is
// gathered first, as it comes: most bodies end before there is much of it, and are then undone at once. Of a longer one the rest is
// undone as it comes, where there is memory for a decoder to wait with; where there is none, all of it is gathered before. Decision 16.

// gatherMost and gatherFor are how much of an encoded body is gathered, and for how long, before a decoder is begun with that its
// sender may keep waiting.
const (
	gatherMost = 256 << 10
	gatherFor  = 2 * time.Second
)

// fillDecoded is fill for a body whose codings are undone.
func (g *Gate) fillDecoded(o *scan.Object, w *spool.Writer, src io.Reader, in Intake, beyond bool) (io.ReadCloser, error) {
	r := &gathered{g: g, src: src, in: in}
	rest, err := r.fill(o, w, beyond)
	if rest == nil {
		r.close()
		return nil, err
	}
	return closing{rest, r.close}, err
}

// closing calls also when it is closed.
type closing struct {
	io.ReadCloser
	also func()
}

func (c closing) Close() error {
	defer c.also()
	return c.ReadCloser.Close()
}

// gathered is an encoded body, of which some has been gathered.
type gathered struct {
	g     *Gate
	src   io.Reader
	in    Intake
	parts []*spool.Blob
	begun bool // something of src was read by a decoder
}

// Read reads what has not been gathered.
func (r *gathered) Read(p []byte) (int, error) {
	r.begun = true
	return r.src.Read(p)
}

// close gives the room back.
func (r *gathered) close() {
	for _, b := range r.parts {
		_ = b.Close() // nothing is lost with it
	}
	r.parts = nil
}

func (r *gathered) fill(o *scan.Object, w *spool.Writer, beyond bool) (rest io.ReadCloser, err error) {
	wait := spool.Waiting{}
	if r.in.Wait != nil {
		wait = *r.in.Wait
		w.Wait(0, wait)
	}
	patience := unpack.Patience{For: r.g.opt.Pool.Config().Wait.Std(), Waiting: wait}
	switch {
	case r.in.Held:
		return r.undo(o, w, beyond, unpack.Room{Share: unpack.Inner, Patience: patience})
	case r.in.Wait == nil:
		patience = unpack.Patience{} // somebody may be waiting for what it holds
	}
	if !unpack.NeedsWindow(r.in.Encodings) {
		return r.undo(o, w, beyond, unpack.Room{Share: unpack.Lasting, Patience: patience})
	}
	memory := int64(r.g.opt.Pool.Config().Memory)
	whole, err := r.gather(w, &beginning{r: r.src, left: min(gatherMost, memory), until: time.Now().Add(gatherFor)})
	if err != nil {
		return nil, err
	}
	if !whole {
		room := unpack.Room{Share: unpack.Lasting}
		if beyond && r.inMemory() {
			room.Patience = patience // all of it may be more than can be gathered
		}
		rest, err = r.undo(o, w, beyond, room)
		if r.begun || !noMemory(err) {
			return rest, err
		}
		whole, err = r.gather(w, &beginning{r: r.src, left: r.g.MaxObject()})
		if err == nil && !whole {
			err = spool.ErrTooLarge
		}
		if err != nil {
			return nil, err
		}
	}
	room := unpack.Room{Share: unpack.Brief, Patience: patience}
	if !r.inMemory() {
		// Whoever has memory of a smaller share may be waiting for the room that this has.
		room.Share = unpack.Inner
	}
	return r.undo(o, w, beyond, room)
}

// noMemory says whether a decoder could not be begun for lack of memory at present.
func noMemory(err error) bool {
	var u *unpack.Error
	return errors.As(err, &u) && u.Kind == unpack.SpoolFull
}

// beginning is what there is to gather of r.
type beginning struct {
	r     io.Reader
	left  int64
	until time.Time // nothing is read after that; zero: time does not matter
	whole bool      // r has ended
}

func (b *beginning) Read(p []byte) (int, error) {
	if b.left == 0 || !b.until.IsZero() && time.Now().After(b.until) {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.whole = errors.Is(err, io.EOF)
	return n, err
}

// gather reads more of what is encoded into the spool, and says whether that is the whole. After that w waits for room only where
// what was gathered is in memory: what waits for room must hold none.
func (r *gathered) gather(w *spool.Writer, some *beginning) (whole bool, err error) {
	to := r.g.opt.Pool.New()
	defer to.Discard()
	if r.in.Wait != nil && r.inMemory() {
		to.Wait(0, *r.in.Wait)
	}
	if _, err := io.Copy(to, some); err != nil {
		return false, err
	}
	b, err := to.Seal()
	if err != nil {
		return false, err
	}
	r.parts = append(r.parts, b)
	if !r.inMemory() {
		w.Hurry()
	}
	return some.whole, nil
}

// inMemory says whether all that was gathered is in memory.
func (r *gathered) inMemory() bool {
	for _, b := range r.parts {
		if _, ok := b.Bytes(); !ok {
			return false
		}
	}
	return true
}

// undo decodes what was gathered, and what follows it, into w.
func (r *gathered) undo(o *scan.Object, w *spool.Writer, beyond bool, room unpack.Room) (rest io.ReadCloser, err error) {
	all := make([]io.Reader, 0, len(r.parts)+1)
	for _, b := range r.parts {
		all = append(all, b.NewReader())
	}
	d, err := unpack.NewDecoderIn(io.MultiReader(append(all, r)...), r.in.Encodings, r.g.opt.Limits, room)
	if err != nil {
		return nil, err
	}
	o.Body, rest, err = pour(w, d, beyond)
	if rest == nil {
		_ = d.Close() // it gives memory back; the content's errors came from Read
	}
	return rest, err
}
