package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"strings"

	"lazaret/internal/gate"
	"lazaret/internal/mixed"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/unpack"
)

// maxPicture is how large a part of multipart/x-mixed-replace may be. A larger one is policy.too_large, and never delivered.
const maxPicture = 32 << 20

// pictures has each part of a multipart/x-mixed-replace judged when it has come whole, and put into a body of our own. What is read from
// it is that body; its end is io.EOF, or a *refusal. It is used by one goroutine, and closed at the end.
type pictures struct {
	c     *call
	ctx   context.Context
	in    *mixed.Reader
	form  *mixed.Writer
	begun bool

	part *scan.Object // what is being given; nil: none
	out  io.Reader    // gives it
	then error        // comes behind out
}

// newPictures returns the pictures in body. What h says of its form is replaced by what is said of ours.
func (c *call) newPictures(ctx context.Context, h http.Header, body io.Reader) *pictures {
	p := &pictures{
		c: c, ctx: ctx, in: mixed.NewReader(body, mixed.Boundary(h.Get("Content-Type"))), form: mixed.NewWriter(), out: strings.NewReader(""),
	}
	decodedHeader(h)
	h["Content-Type"] = []string{p.form.Type()}
	return p
}

// Read implements io.Reader.
func (p *pictures) Read(b []byte) (int, error) {
	for {
		if n, err := p.out.Read(b); n > 0 || err != io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			return n, err
		}
		p.drop()
		if p.then != nil {
			return 0, p.then
		}
		p.next()
	}
}

// next has out be what comes next.
func (p *pictures) next() {
	before := ""
	if !p.begun {
		p.begun, before = true, p.form.Begin()
	}
	h, err := p.in.Next()
	if err == io.EOF { //nolint:errorlint // as above
		p.out, p.then = strings.NewReader(before+p.form.End()), err
		return
	}
	if err == nil {
		err = p.take(h)
	} else if broken := new(mixed.Error); errors.As(err, &broken) {
		err = p.judge(p.without(broken), "")
	}
	if err != nil {
		p.drop()
		p.out, p.then = strings.NewReader(""), err
		return
	}
	p.out = io.MultiReader(strings.NewReader(before+p.form.Head(h, p.part.Body.Size())), p.part.Body.NewReader(), strings.NewReader(p.form.Foot()))
}

// take takes the part in that h has announced, and has it judged.
func (p *pictures) take(h mixed.Head) error {
	o, err := p.c.s.opt.Gate.Take(p.in, gate.Intake{
		Name: path.Base(p.c.facts.URL), Type: h.Type, Transfer: h.Transfer, Limit: min(maxPicture, p.c.s.opt.Gate.MaxObject()),
	})
	if broken := new(mixed.Error); errors.As(err, &broken) {
		o, err = p.without(broken), nil
	}
	if err != nil {
		return err
	}
	if o.Body != nil {
		// What a part ends, and another one begins, would be whole for somebody who saves them all as one file.
		if loose, err := unpack.Loose(o.Body); err != nil {
			o.Known = scan.IncompleteVerdict(scan.EngineError, "multipart/x-mixed-replace: reading a part again: %v", err)
		} else if loose {
			o.Known = scan.IncompleteVerdict(scan.Undecodable, "multipart/x-mixed-replace: a part has a piece of an archive in it")
		}
	}
	return p.judge(o, h.Type)
}

// without returns a part that is not there, and why.
func (p *pictures) without(why *mixed.Error) *scan.Object {
	return &scan.Object{Name: path.Base(p.c.facts.URL), Known: scan.IncompleteVerdict(scan.Undecodable, "multipart/x-mixed-replace: %s", why.What)}
}

// judge has the gate decide about a part. The error is why it does not pass.
func (p *pictures) judge(o *scan.Object, declared string) error {
	p.part = o
	f := p.c.facts
	f.Type = mediaType(http.Header{"Content-Type": {declared}})
	d, n := p.c.s.opt.Gate.JudgePart(p.ctx, f, streamKinds[replacing], o)
	switch {
	case d.Action != policy.Pass:
		return &refusal{n}
	case o.Body == nil:
		return &refusal{p.c.s.opt.Gate.Refuse(f, notice.NotScanned, "a part of the stream could not be held", "policy lets it pass, but it is not there to be delivered")}
	}
	return nil
}

// drop gives the room of the part back.
func (p *pictures) drop() {
	if p.part != nil && p.part.Body != nil {
		_ = p.part.Body.Close() // in memory, or unlinked: nothing is lost with it
	}
	p.part = nil
}
