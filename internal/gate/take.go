package gate

import (
	"bytes"
	"errors"
	"io"
	"path"
	"strings"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// Intake says what is to be taken in.
type Intake struct {
	Name      string   // what the object is called: a file name or the end of a URL's path
	Type      string   // the declared media type
	Encodings []string // content codings in the order in which they were applied (RFC 9110, 8.4)
	Transfer  string   // the declared Content-Transfer-Encoding (RFC 2045, 6), which is not undone; mostly empty
	Limit     int64    // more bytes than this are not taken; 0: the spool's limit
	Size      int64    // how many bytes are announced, as they come; 0 or less: not known
	Piece     bool     // it may be a piece of a file, see scan.Object
	// Wait is how it waits where the spool has no room; nil: not at all. See spool.Writer.Wait.
	Wait *spool.Waiting
	// Held says that what is read is held already, and does not come from a peer: it never waits for anybody.
	Held bool
	// Growing, where it is not nil, is called before anything is read, with what shows the object while it grows. Nothing that
	// is read there has been judged: see Beginning.
	Growing func(p Partial)
}

// Partial is an object that is being taken in. It is safe for use by many goroutines, and of no more use when the object has
// been closed.
type Partial interface {
	io.ReaderAt  // of what has come, decoded
	Size() int64 // how much has come, decoded
}

// Take reads r to its end into the spool, decoded, and returns the object, whose Body the caller closes when it is not nil.
//
// The error is r's own: the sender broke off, and there is no object. Everything else that may go wrong (too large, no
// room, not decodable) is noted in the object's Known verdict, so that Judge decides about it; what r still had is then
// unread.
func (g *Gate) Take(r io.Reader, in Intake) (*scan.Object, error) {
	o, _, err := g.take(r, in, false)
	return o, err
}

// TakeBeyond is Take for an object that may go on however large it is (see Passes). Where it is too large, its Known verdict says
// so, its Body is what was taken of it, and rest, which the caller closes, reads what follows, decoded; nobody looks at that. For
// all others rest is nil.
func (g *Gate) TakeBeyond(r io.Reader, in Intake) (o *scan.Object, rest io.ReadCloser, err error) {
	return g.take(r, in, true)
}

func (g *Gate) take(r io.Reader, in Intake, beyond bool) (*scan.Object, io.ReadCloser, error) {
	start := time.Now()
	o := &scan.Object{Name: objectName(in.Name), Type: in.Type, TransferEncoding: in.Transfer, Piece: in.Piece}
	src := &source{r: r}
	rest, err := g.fill(o, src, in, beyond)
	o.Took = time.Since(start)
	if src.err != nil {
		// What the decoder made of a broken stream does not matter.
		if rest != nil {
			_ = rest.Close() // gives memory back
		}
		closeBody(o)
		return nil, nil, src.err
	}
	if err != nil {
		o.Known = intakeVerdict(err)
	}
	return o, rest, nil
}

// MaxObject returns how many bytes of one object are taken at most.
func (g *Gate) MaxObject() int64 { return int64(g.opt.Pool.Config().MaxObject) }

// Room returns how many bytes of all objects together may be on disk.
func (g *Gate) Room() int64 { return int64(g.opt.Pool.Config().TotalDisk) }

func (g *Gate) fill(o *scan.Object, src io.Reader, in Intake, beyond bool) (io.ReadCloser, error) {
	limit := in.Limit
	if limit <= 0 {
		limit = g.MaxObject()
	}
	w := g.opt.Pool.NewLimited(limit)
	defer w.Discard()
	if in.Growing != nil {
		in.Growing(w)
	}
	if len(in.Encodings) > 0 {
		return g.fillDecoded(o, w, src, in, beyond)
	}
	w.Expect(in.Size)
	if in.Wait != nil {
		w.Wait(in.Size, *in.Wait)
	}
	b, rest, err := pour(w, io.NopCloser(src), beyond)
	o.Body = b
	return rest, err
}

// pour reads r into w, and returns what came of it. Where beyond is true and w does not take all, rest has what follows.
func pour(w *spool.Writer, r io.ReadCloser, beyond bool) (b *spool.Blob, rest io.ReadCloser, err error) {
	if ended, err := w.Fill(r); err != nil {
		return nil, nil, err
	} else if ended {
		b, err = w.Seal()
		return b, nil, err
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	out := &refusing{Writer: w}
	if _, err = io.CopyBuffer(out, onlyReader{r}, *buf); err == nil {
		b, err = w.Seal()
		return b, nil, err
	}
	if !beyond || !errors.Is(err, spool.ErrTooLarge) {
		return nil, nil, err
	}
	b, partErr := w.Part()
	if partErr != nil {
		return nil, nil, partErr
	}
	return b, struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(bytes.Clone(out.refused)), r), r}, err
}

// refusing remembers what a Writer did not take.
type refusing struct {
	io.Writer
	refused []byte // until the buffer that it lies in is used again
}

func (w *refusing) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.refused = p[n:]
	}
	return n, err
}

// source remembers whether the sender broke off: a decoder's error alone does not tell.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		s.err = err
	}
	return n, err
}

// onlyReader keeps io.CopyBuffer from ways around the buffer.
type onlyReader struct{ io.Reader }

func intakeVerdict(err error) scan.Verdict {
	var u *unpack.Error
	switch {
	case errors.Is(err, spool.ErrTooLarge):
		return scan.IncompleteVerdict(scan.TooLarge, "%s", err.Error())
	case errors.Is(err, spool.ErrFull):
		return scan.IncompleteVerdict(scan.SpoolFull, "%s", err.Error())
	case errors.As(err, &u):
		return scan.IncompleteVerdict(reasonOf(u.Kind), "%s", err.Error())
	}
	return scan.IncompleteVerdict(scan.EngineError, "taking the object in: %v", err)
}

// objectName returns the last element of a name, bounded, without control characters: it gets into logs and findings.
func objectName(name string) string {
	name = path.Base(strings.ReplaceAll(name, "\\", "/"))
	if name == "." || name == "/" {
		return ""
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name)
	if len(name) > 200 {
		name = strings.ToValidUTF8(name[len(name)-200:], "")
	}
	return name
}

func closeBody(o *scan.Object) {
	if o.Body != nil {
		_ = o.Body.Close() // the room is given back; nothing is lost with it
		o.Body = nil
	}
}
