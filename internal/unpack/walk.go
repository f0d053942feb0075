package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"sync"

	"lazaret/internal/spool"
)

// Walk opens the source, and every archive and compressed file inside it, and calls visit for each member with its
// content. Members of members are visited after the member itself.
//
// It goes on past what cannot be read, and returns what that was; nil says that everything was visited. A member that
// could be read in part is visited with that part. When ctx ends, a limit for the whole is reached, or visit returns an
// error, the walk ends soon, and the last Problem says so; visit's own error is the Err of a Problem of kind Cancelled.
// At most a few Problems of each kind are returned.
//
// visit is called by the goroutine that called Walk, and what it panics with is not caught. A source that is no archive
// has no members and no Problems. Contents that come up again (which is what an archive that contains itself does) are
// visited again, but not opened again.
func Walk(ctx context.Context, pool *spool.Pool, src Source, lim Limits, visit func(Part) error) []Problem {
	w := &walker{
		ctx: ctx, pool: pool, lim: lim.orDefault(), visit: visit,
		claim: claimOf(ctx), root: src.Blob.Size(), opened: make(map[[32]byte]struct{}),
	}
	w.open(&node{blob: src.Blob, path: cleanName(src.Name)})
	return w.problems
}

// walker is one walk.
type walker struct {
	ctx   context.Context
	pool  *spool.Pool
	lim   Limits
	visit func(Part) error
	root  int64 // size of the source: what the ratio refers to

	parts    int    // members so far
	expanded int64  // bytes of all members so far
	consumed int64  // bytes that decoders were given so far
	memory   int64  // for dictionaries, at present
	claim    *claim // of the memory of all
	opened   map[[32]byte]struct{}
	problems []Problem
	counts   [len(kindNames)]int // of problems, by kind
	stopped  bool
	visiting bool
	doubtful bool // what is read is something else, and seems to be an archive besides
}

// node is an object that is looked into.
type node struct {
	blob  *spool.Blob
	path  string
	depth int // 0: the source
	// message says that it is an OpenPGP message from its beginning to its end.
	message bool
}

// problemsOfAKind is how many problems of one kind are kept: an archive of 10,000 broken members is one finding.
const problemsOfAKind = 8

// inputFactor is how many times Limits.Bytes all decoders together may read. Archives in which many members begin at the
// same place make decoders read the same bytes again, without anything coming out.
const inputFactor = 4

func (w *walker) report(kind Kind, path string, err error) {
	w.counts[kind]++
	if w.counts[kind] <= problemsOfAKind {
		w.problems = append(w.problems, Problem{Kind: kind, Path: path, Err: err})
	}
}

// problem reports err, by its kind.
func (w *walker) problem(path string, err error) {
	if w.doubtful && kindOf(err) == Undecodable && !errors.Is(err, errMethod) {
		return // the way in which it is something else reads all that there is
	}
	if !w.stopped { // whatever follows from a stop is not worth telling
		w.report(kindOf(err), path, err)
	}
}

// stop reports why the walk ends, once, and returns the error that ends it.
func (w *walker) stop(kind Kind, path string, err error) error {
	if !w.stopped {
		w.stopped = true
		w.report(kind, path, err)
	}
	return errStopped
}

var errStopped = &Error{Kind: Cancelled, Err: errors.New("the walk has ended")}

// alive returns an error when the walk is to end.
func (w *walker) alive(path string) error {
	if w.stopped {
		return errStopped
	}
	if err := w.ctx.Err(); err != nil {
		return w.stop(Cancelled, path, fmt.Errorf("unpacking was ended: %w", context.Cause(w.ctx)))
	}
	return nil
}

// reserve takes n bytes of memory for a decoder, and returns what gives them back. It waits where others have it. The error is of
// kind TooLarge, or SpoolFull.
func (w *walker) reserve(n int64, what string) (release func(), err error) {
	if n < 0 || n > int64(w.lim.Memory)-w.memory {
		return func() {}, errorf(TooLarge, what, "reading it takes %d bytes of memory, more than memory (%v) has left", n, w.lim.Memory)
	}
	p := Patience{For: w.pool.Config().Wait.Std(), Waiting: spool.Waiting{Done: w.ctx.Done()}}
	if err := w.claim.take(n, Inner, p, what); err != nil {
		return func() {}, err
	}
	w.memory += n
	return func() { w.memory -= n; w.claim.give(n) }, nil
}

// open looks into n, under every view that its content allows.
func (w *walker) open(n *node) {
	views := viewsOf(n.blob)
	if len(views) == 0 {
		return
	}
	if n.depth >= w.lim.Depth {
		w.report(TooDeep, n.path, fmt.Errorf("nested more than %d deep", w.lim.Depth))
		return
	}
	sum := n.blob.SHA256()
	if _, again := w.opened[sum]; again {
		return
	}
	w.opened[sum] = struct{}{}
	for _, v := range views {
		if w.alive(n.path) != nil {
			return
		}
		outer := w.doubtful
		w.doubtful = outer || n.message
		if err := w.guard(func() error { return openers[v.format](w, n, v.offset) }); err != nil {
			w.problem(n.path, err)
		}
		w.doubtful = outer
	}
}

// guard calls f, and turns a panic of a library into an error. What the visitor panics with goes on.
func (w *walker) guard(f func() error) (err error) {
	defer func() {
		if w.visiting {
			return
		}
		if r := recover(); r != nil {
			err = broke(r)
		}
	}()
	return f()
}

// member is what could be read of a member.
type member struct {
	path string
	blob *spool.Blob // nil when there is nothing
	size int64       // bytes that were read
	err  error       // why that is not everything; nil: it is
	// quiet says that whoever took it reports the error.
	quiet bool
	mail  bool // see Part
}

func (m *member) close() {
	if m.blob != nil {
		_ = m.blob.Close() // gives the room back; nothing is lost with it
		m.blob = nil
	}
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// take reads r, the content of a member of n, into the pool. The error is errStopped: the walk is to end. Everything else
// is said in the member, which the caller closes.
func (w *walker) take(n *node, name string, r io.Reader) (m member, err error) {
	w.parts++
	m.path = cleanName(name)
	if m.path == "" {
		m.path = "member " + strconv.Itoa(w.parts)
	}
	m.path = joinPath(n.path, m.path)
	if err := w.alive(m.path); err != nil {
		return m, err
	}
	if w.parts > w.lim.Parts {
		return m, w.stop(TooMany, n.path, fmt.Errorf("more than %d members", w.lim.Parts))
	}
	out := w.pool.New()
	defer out.Discard()
	m.err = w.fill(out, &m, r)
	if m.err == errStopped { //nolint:errorlint // comparing with our own variable
		err = m.err
	}
	m.size = out.Size()
	if m.size == 0 {
		return m, err
	}
	blob, sealErr := out.Seal()
	if sealErr != nil {
		m.err = errors.Join(m.err, sealErr)
	}
	m.blob = blob
	return m, err
}

// fill copies r to out within the limits.
func (w *walker) fill(out *spool.Writer, m *member, r io.Reader) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	idle := 0
	for {
		n, err := readSafely(r, *buf)
		if stop := w.alive(m.path); stop != nil {
			return stop
		}
		if n > 0 {
			idle = 0
			if lim := w.admit(out, m, (*buf)[:n]); lim != nil {
				return lim
			}
		} else if idle++; err == nil && idle > 100 {
			return io.ErrNoProgress
		}
		if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readSafely is r.Read, where a panic is an error.
func readSafely(r io.Reader, p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, broke(r)
		}
	}()
	return r.Read(p)
}

// broke returns the error that stands for the panic of a library.
func broke(reason any) error {
	return errorf(Undecodable, "", "the decoder broke: %v\n%s", reason, debug.Stack())
}

// admit writes b to out as far as the limits allow.
func (w *walker) admit(out *spool.Writer, m *member, b []byte) error {
	limit := min(w.lim.MemberBytes, w.pool.Config().MaxObject)
	room := int64(limit) - out.Size()
	total := int64(w.lim.Bytes) - w.expanded
	n := min(int64(len(b)), room, total)
	if n > 0 {
		if _, err := out.Write(b[:n]); err != nil {
			return err
		}
		w.expanded += n
	}
	switch {
	case total < int64(len(b)):
		return w.stop(TooLarge, m.path, fmt.Errorf("the object expands to more than %v", w.lim.Bytes))
	case w.lim.isBomb(w.expanded, w.root):
		return w.stop(Bomb, m.path, fmt.Errorf("the object expands to more than %d times its size", w.lim.Ratio))
	case room < int64(len(b)):
		return errorf(TooLarge, "", "the member is larger than %v", limit)
	}
	return nil
}

// give reports what is wrong with m, has it visited and looked into, and closes it.
func (w *walker) give(n *node, m *member) error {
	defer m.close()
	if m.err != nil && !m.quiet {
		w.problem(m.path, m.err)
	}
	if m.blob == nil || w.stopped && w.ctx.Err() != nil {
		return nil
	}
	w.visiting = true
	err := w.visit(Part{Blob: m.blob, Path: m.path, Depth: n.depth + 1, Partial: m.err != nil, Mail: m.mail})
	w.visiting = false
	if err != nil {
		return w.stop(Cancelled, m.path, err)
	}
	if !w.stopped {
		w.open(&node{blob: m.blob, path: m.path, depth: n.depth + 1})
	}
	return w.alive(m.path)
}

// member takes the content of a member of n from r and gives it. It says whether all of it could be read; the error is
// errStopped: the walk is to end.
func (w *walker) member(n *node, name string, r io.Reader) (whole bool, err error) {
	m, err := w.take(n, name, r)
	whole = m.err == nil && err == nil
	if giveErr := w.give(n, &m); err == nil {
		err = giveErr
	}
	return whole, err
}

// input reads a stretch of a blob, as long as the walk goes on.
type input struct {
	w        *walker
	n        *node
	off, end int64
}

func (in *input) Read(p []byte) (int, error) {
	if in.off >= in.end {
		return 0, io.EOF
	}
	if err := in.w.alive(in.n.path); err != nil {
		return 0, err
	}
	if int64(len(p)) > in.end-in.off {
		p = p[:in.end-in.off]
	}
	n, err := in.n.blob.ReadAt(p, in.off)
	in.off += int64(n)
	in.w.consumed += int64(n)
	if in.w.consumed/inputFactor > int64(in.w.lim.Bytes) {
		return 0, in.w.stop(TooLarge, in.n.path, fmt.Errorf("opening it makes the decoders read more than %d times %v", inputFactor, in.w.lim.Bytes))
	}
	if n > 0 && err == io.EOF { //nolint:errorlint // io.ReaderAt says that the end is io.EOF itself
		err = nil
	}
	return n, err
}

// stream is an input that is read in small steps, and knows where it is.
type stream struct {
	*bufio.Reader
	in *input
}

var streamBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nothing{}, 16<<10) }}

// stream returns the bytes of n from off on, size of them; less than 0 means to the end. The caller closes it.
func (w *walker) stream(n *node, off, size int64) *stream {
	end := n.blob.Size()
	off = max(0, min(off, end))
	if size >= 0 && size < end-off {
		end = off + size
	}
	s := &stream{Reader: streamBuffers.Get().(*bufio.Reader), in: &input{w: w, n: n, off: off, end: end}}
	s.Reset(s.in)
	return s
}

// pos returns the offset in the blob of the next byte.
func (s *stream) pos() int64 { return s.in.off - int64(s.Buffered()) }

func (s *stream) close() {
	s.Reset(nothing{})
	streamBuffers.Put(s.Reader)
	s.Reader = nil
}
