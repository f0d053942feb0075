package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"lazaret/internal/content"
	"lazaret/internal/filetype"
	"lazaret/internal/mail/message"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/unpack"

	"github.com/maypok86/otter/v2"
)

// maxKinds is how many different sorts of files are told of one object. There are fewer words for them than that.
const maxKinds = 256

// kindsKey is what the sorts of files in an object depend on: its bytes, and its extension where the bytes leave it open.
type kindsKey struct {
	sum [sha256.Size]byte
	ext string
}

func newKinds(size int) *otter.Cache[kindsKey, []filetype.Info] {
	return otter.Must(&otter.Options[kindsKey, []filetype.Info]{MaximumSize: min(size, 10_000)})
}

// about returns what policy's rules ask about o besides its verdict, and only that. Where what is in o could not be
// found out, the error says why; what could not be opened is in the verdict already.
func (g *Gate) about(ctx context.Context, s *state, f policy.Facts, o *scan.Object) (c policy.Content, err error) {
	if o.Body == nil {
		return c, nil
	}
	c.Size = o.Body.Size()
	files := s.policy.NeedsFiles(f)
	if !files && !s.policy.NeedsType(f) {
		return c, nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if !files {
		c.Type = filetype.Of(o.Name, o.Body, c.Size).MIME
		return c, nil
	}
	key := kindsKey{o.Body.SHA256(), strings.ToLower(path.Ext(o.Name))}
	if g.kinds != nil {
		if known, ok := g.kinds.GetIfPresent(key); ok {
			c.Files, c.Type = known, known[0].MIME
			return c, nil
		}
	}
	release, err := g.place(ctx, c.Size)
	if err != nil {
		return c, err
	}
	defer release()
	k := kinds{g: g, ctx: ctx}
	k.object(o, spot{})
	c.Files, c.Type = k.found, k.found[0].MIME
	if err := errors.Join(ctx.Err(), k.err); err != nil {
		return c, err
	}
	if g.kinds != nil {
		g.kinds.Set(key, k.found)
	}
	return c, nil
}

// kinds collects the sorts of files in an object: the same ways in as the scan goes.
type kinds struct {
	g     *Gate
	ctx   context.Context
	found []filetype.Info // each sort once; the first is the object itself
	err   error           // why something could not be looked at now, which the scan may have seen
}

func (k *kinds) add(name string, b io.ReaderAt, size int64) {
	i := filetype.Of(name, b, size)
	same := func(j filetype.Info) bool { return i.Name == j.Name && slices.Equal(i.Groups, j.Groups) }
	if len(k.found) == 0 || (len(k.found) < maxKinds && !slices.ContainsFunc(k.found, same)) {
		k.found = append(k.found, i)
	}
}

func (k *kinds) object(o *scan.Object, at spot) {
	k.add(o.Name, o.Body, o.Body.Size())
	src := unpack.Source{Blob: o.Body, Name: o.Name}
	for _, p := range unpack.Walk(k.ctx, k.g.opt.Pool, src, k.g.opt.Limits, func(p unpack.Part) error {
		k.add(p.Path, p.Blob, p.Blob.Size())
		return k.ctx.Err()
	}) {
		if p.Kind == unpack.SpoolFull || p.Kind == unpack.Cancelled {
			k.err = errors.New(p.String())
		}
	}
	if at.depth >= maxReadings {
		return
	}
	visit := func(p content.Part) error {
		k.object(&scan.Object{Body: p.Blob, Name: partName(p.Path), Type: p.Type}, at.below(p))
		return k.ctx.Err()
	}
	problems := content.Find(k.ctx, k.g.opt.Pool, content.Source{Blob: o.Body, Type: o.Type, Guessed: at.guessed}, k.g.opt.Content, visit)
	if readAsMail(o, at) {
		problems = append(problems, message.Find(k.ctx, k.g.opt.Pool, o.Body, k.g.opt.Content, visit)...)
	}
	for _, p := range problems {
		if p.Kind == content.SpoolFull || p.Kind == content.Cancelled {
			k.err = p.Err
		}
	}
}

// partName returns the file name in the path of a part, "part 2 (report.doc)".
func partName(p string) string {
	if i := strings.LastIndexByte(p, '('); i >= 0 {
		return strings.TrimSuffix(p[i+1:], ")")
	}
	return p
}
