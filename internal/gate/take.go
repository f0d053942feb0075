package gate

import (
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
	Limit     int64    // more bytes than this are not taken; 0: the spool's limit
	Size      int64    // how many bytes are announced, as they come; 0 or less: not known
}

// Take reads r to its end into the spool, decoded, and returns the object, whose Body the caller closes when it is not nil.
//
// The error is r's own: the sender broke off, and there is no object. Everything else that may go wrong (too large, no
// room, not decodable) is noted in the object's Known verdict, so that Judge decides about it; what r still had is then
// unread.
func (g *Gate) Take(r io.Reader, in Intake) (*scan.Object, error) {
	start := time.Now()
	o := &scan.Object{Name: objectName(in.Name), Type: in.Type}
	src := &source{r: r}
	err := g.fill(o, src, in)
	o.Took = time.Since(start)
	if src.err != nil {
		// What the decoder made of a broken stream does not matter.
		closeBody(o)
		return nil, src.err
	}
	if err != nil {
		o.Known = intakeVerdict(err)
	}
	return o, nil
}

func (g *Gate) fill(o *scan.Object, src io.Reader, in Intake) error {
	limit := in.Limit
	if limit <= 0 {
		limit = int64(g.opt.Pool.Config().MaxObject)
	}
	w := g.opt.Pool.NewLimited(limit)
	defer w.Discard()
	r := src
	if len(in.Encodings) == 0 {
		w.Expect(in.Size)
	} else {
		d, err := unpack.NewDecoder(src, in.Encodings, g.opt.Limits)
		if err != nil {
			return err
		}
		defer d.Close() // a decoder's Close gives memory back; the content's errors came from Read
		r = d
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(onlyWriter{w}, onlyReader{r}, *buf); err != nil {
		return err
	}
	b, err := w.Seal()
	if err != nil {
		return err
	}
	o.Body = b
	return nil
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

// onlyReader and onlyWriter keep io.CopyBuffer from ways around the buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

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
