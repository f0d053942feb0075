package signatures

import (
	"context"
	"crypto/md5"  // #nosec G501 -- signatures are written in it
	"crypto/sha1" // #nosec G505 -- signatures are written in it
	"errors"
	"fmt"
	"hash"
	"io"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
)

// judgement is what is known of an object while it is judged.
type judgement struct {
	db   *database
	o    *scan.Object
	sums [algorithms][]byte // nil: not computed
}

// judge returns the verdict on o.
func (db *database) judge(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	j := &judgement{db: db, o: o}
	sum := o.Body.SHA256()
	j.sums[algSHA256] = sum[:]
	found, bundled, err := j.find(ctx)
	switch {
	case err == nil && found == "":
		return scan.CleanVerdict(), nil
	case err != nil && !errors.Is(err, errWork):
		return scan.Verdict{}, err
	}
	// The allow-lists outrank every signature but the one that each start proves the engine with.
	if !bundled {
		ok, allowErr := j.isAllowed(ctx)
		switch {
		case allowErr != nil:
			return scan.Verdict{}, allowErr
		case ok:
			return scan.CleanVerdict(), nil
		}
	}
	if err != nil {
		return scan.IncompleteVerdict(scan.Bomb, "%s: %v", name, err), nil
	}
	return scan.InfectedVerdict(name, found, o.Path), nil
}

// find returns the name of a signature of the object, or an empty one. With errWork nothing was found, but not everything
// was looked at.
func (j *judgement) find(ctx context.Context) (found string, bundled bool, err error) {
	if n, ok := j.db.digests[algSHA256].find(j.sums[algSHA256], j.o.Body.Size()); ok {
		return j.db.names.get(n), false, nil
	}
	var hashes [algorithms]hash.Hash
	for alg := range hashes {
		if alg := algorithm(alg); j.sums[alg] == nil && j.db.digests[alg].has(j.o.Body.Size()) {
			hashes[alg] = newHash(alg)
		}
	}
	sig, err := j.bodies(ctx, &hashes)
	if sig != nil {
		return j.db.names.get(sig.name), sig.bundled, nil
	}
	if err != nil && !errors.Is(err, errWork) {
		return "", false, err
	}
	given := err
	for alg, h := range hashes {
		if h == nil {
			continue
		}
		if given != nil { // the text was not read to its end
			if err := j.sum(ctx, algorithm(alg)); err != nil {
				return "", false, err
			}
		} else {
			j.sums[alg] = h.Sum(nil)
		}
		if n, ok := j.db.digests[alg].find(j.sums[alg], j.o.Body.Size()); ok {
			return j.db.names.get(n), false, nil
		}
	}
	return "", false, given
}

func newHash(alg algorithm) hash.Hash {
	if alg == algMD5 {
		return md5.New() // #nosec G401
	}
	return sha1.New() // #nosec G401
}

// bodies looks for the body signatures, in the object and in its folded form, and feeds hashes with the object.
func (j *judgement) bodies(ctx context.Context, hashes *[algorithms]hash.Hash) (*bodySignature, error) {
	body := j.o.Body
	size := body.Size()
	head := make([]byte, min(headSize, size))
	if n, err := body.ReadAt(head, 0); n < len(head) {
		return nil, fmt.Errorf("reading the object: %w", noEOF(err))
	}
	targets, text := classify(head, j.o.Type)
	l := parseProgram(body, size, head)

	p, ok := j.db.passes.Get().(*pass)
	if !ok {
		p = newPass(j.db)
	}
	defer j.db.passes.Put(p)
	p.begin(targets, l, size)
	if err := j.run(ctx, p, body, hashes); err != nil || p.found != nil {
		return p.found, err
	}
	if !text || !j.db.inText {
		return nil, nil
	}
	l = layout{size: -1}
	raw := make([]byte, 32<<10)
	if j.db.fromEnd {
		n, err := io.Copy(io.Discard, newFolder(untilDone{ctx, body.NewReader()}, raw))
		if err != nil {
			return nil, err
		}
		l.size = n
	}
	p.begin(targets&(everyTarget|textTargets), l, size)
	err := p.stream(ctx, newFolder(body.NewReader(), raw))
	return p.found, err
}

// run has p run through the whole body.
func (j *judgement) run(ctx context.Context, p *pass, body *spool.Blob, hashes *[algorithms]hash.Hash) error {
	if text, ok := body.Bytes(); ok {
		for _, h := range hashes {
			if h != nil {
				h.Write(text)
			}
		}
		return p.all(ctx, text)
	}
	r := &exact{r: body.NewReader(), left: body.Size()}
	for _, h := range hashes {
		if h != nil {
			r.hashes = append(r.hashes, h)
		}
	}
	return p.stream(ctx, r)
}

// isAllowed says whether the object is on an allow-list.
func (j *judgement) isAllowed(ctx context.Context) (bool, error) {
	for alg := range algorithms {
		if !j.db.allowed.has(alg, j.o.Body.Size()) {
			continue
		}
		if j.sums[alg] == nil {
			if err := j.sum(ctx, alg); err != nil {
				return false, err
			}
		}
		if j.db.allowed.find(alg, j.sums[alg], j.o.Body.Size()) {
			return true, nil
		}
	}
	return false, nil
}

// sum computes a digest of the object.
func (j *judgement) sum(ctx context.Context, alg algorithm) error {
	h := newHash(alg)
	r := &exact{r: j.o.Body.NewReader(), left: j.o.Body.Size(), hashes: []hash.Hash{h}}
	buf := make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := r.Read(buf)
		if errors.Is(err, io.EOF) {
			j.sums[alg] = h.Sum(nil)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// exact reads as many bytes from r as are left, feeds hashes with them, and makes an early end an error: what was not read
// was not scanned.
type exact struct {
	r      io.Reader
	left   int64
	hashes []hash.Hash
}

// Read implements io.Reader.
func (e *exact) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
	for _, h := range e.hashes {
		h.Write(b[:n])
	}
	if e.left -= int64(n); err == io.EOF && e.left == 0 {
		err = nil
	}
	if err != nil {
		return n, fmt.Errorf("reading the object: %w", noEOF(err))
	}
	return n, nil
}

// untilDone reads from r until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (u untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}

// noEOF returns err, and an error where an early end would look like the end.
func noEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return errShortBody
	}
	return err
}

var errShortBody = errors.New("it ends before its size")
