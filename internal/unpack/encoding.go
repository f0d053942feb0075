package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
)

// maxCodings is how many content codings one body may have been given; curl has the same limit. Nobody has a use for two.
const maxCodings = 5

// maxListed bounds what ParseContentEncoding returns, identity and repeated names included.
const maxListed = 32

// Supported returns the value of an Accept-Encoding field that offers what NewDecoder decodes.
func Supported() string { return "gzip, deflate, br, zstd" }

// ParseContentEncoding returns the content codings that the lines of a Content-Encoding field list (RFC 9110, 8.4), in
// lower case and in the order in which they were applied. Empty list elements are skipped, as RFC 9110, 5.6.1.2 asks for.
// The error is an *Error: Undecodable for what is no list of tokens, TooDeep for an absurdly long one. Names that nobody
// knows are returned as they are; NewDecoder refuses them.
func ParseContentEncoding(values []string) ([]string, error) {
	var codings []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.Trim(name, " \t")
			if name == "" {
				continue
			}
			if !isToken(name) {
				return nil, errorf(Undecodable, "Content-Encoding", "%.40q is not the name of a content coding", name)
			}
			if len(codings) == maxListed {
				return nil, errorf(TooDeep, "Content-Encoding", "more than %d codings", maxListed)
			}
			codings = append(codings, strings.ToLower(name))
		}
	}
	return codings, nil
}

// isToken says whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// coder decodes one content coding.
type coder interface {
	io.Reader
	// reset makes it ready to decode r. It calls admit with the memory that it is about to allocate for it, and with less than
	// nothing for what it has given up; it returns admit's error as it is.
	reset(r io.Reader, admit func(n int64) error)
	// release gives the memory back; the coder is not used afterwards.
	release()
	name() string
}

// newCoder returns a coder for the name, nil for one that is not known.
func newCoder(name string) coder {
	switch {
	case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"):
		return gzipCoders.Get().(coder)
	case strings.EqualFold(name, "deflate"):
		return deflateCoders.Get().(coder)
	case strings.EqualFold(name, "br"):
		return brotliCoders.Get().(coder)
	case strings.EqualFold(name, "zstd"):
		return zstdCoders.Get().(coder)
	case strings.EqualFold(name, "snappy"):
		return snappyCoders.Get().(coder)
	}
	return nil
}

// NewDecoder returns a reader of what r is when its content codings are undone. They are listed in the order in which
// they were applied, as in a Content-Encoding field: the last is undone first. Names are compared without case; known
// are gzip, x-gzip, deflate (RFC 1950, and the bare RFC 1951 that some send), br (RFC 7932), zstd (RFC 8878, with the
// window of at most 8 MiB of RFC 9659), snappy (frames, or one block of at most 8 MiB) and identity.
//
// NewDecoder itself reads nothing; its error is an *Error: Undecodable for an unknown name, TooDeep for too many. Read
// returns the content or an error, which stays: the error of r itself, unchanged; or an *Error: Undecodable for content
// that is broken, incomplete, or followed by something else (several gzip members or zstd frames are one content, and
// zeros after gzip and deflate are padding); TooLarge above lim.MemberBytes; Bomb above lim.Ratio. An empty r is empty
// content in every coding: servers send that, and nothing can hide in it.
//
// A decoder takes memory of Memory() before it allocates it, as much as the content declares, and gives it back at its end or its
// first error. The decoder of NewDecoder takes it of the share Endless, and does not wait for it. An *Error of kind SpoolFull says that there was none, TooLarge that
// the codings of the body need more than one object may have.
//
// Close gives the decoder's memory back where that has not been done. It never fails, and does not close r.
func NewDecoder(r io.Reader, encodings []string, lim Limits) (io.ReadCloser, error) {
	return NewDecoderIn(r, encodings, lim, Room{})
}

// Room says how a decoder comes by its memory. The zero value has the smallest share, and does not wait.
type Room struct {
	// Share of Memory(). Endless and Lasting are Brief for decoders that need little. Those of Inner must not wait for room on disk, and wait for
	// no more memory than is left to them.
	Share    Share
	Patience Patience
	// Together is what Together returned, for a decoder that is part of the judging of an object; nil: it is not.
	Together context.Context
}

// NewDecoderIn is NewDecoder for a decoder that comes by its memory as room says.
func NewDecoderIn(r io.Reader, encodings []string, lim Limits, room Room) (io.ReadCloser, error) {
	d := &decoder{lim: lim.orDefault(), src: sender{r: r}, room: room, claim: &claim{b: decoders}}
	if room.Together != nil {
		d.claim = claimOf(room.Together)
	}
	for i := len(encodings) - 1; i >= 0; i-- {
		if strings.EqualFold(encodings[i], "identity") {
			continue
		}
		if d.n == maxCodings {
			d.release()
			return nil, errorf(TooDeep, "Content-Encoding", "more than %d content codings on top of each other", maxCodings)
		}
		c := newCoder(encodings[i])
		if c == nil {
			d.release()
			return nil, errorf(Undecodable, "Content-Encoding", "%.40q is not a content coding that can be decoded", encodings[i])
		}
		s := &d.stages[d.n]
		*s = stage{d: d, coder: c}
		if d.n == 0 {
			c.reset(&d.src, d.admit)
		} else {
			c.reset(&d.stages[d.n-1], d.admit)
		}
		d.n++
	}
	return d, nil
}

// decoder undoes a stack of content codings.
type decoder struct {
	lim    Limits
	src    sender
	stages [maxCodings]stage // the first n are in use, in the order of decoding
	n      int
	out    int64 // bytes returned, where there is no stage that counts them
	cause  error // the first error of a stage: a coding above it may make another one of it
	err    error // what every further Read returns
	closed bool

	room   Room
	claim  *claim
	needed int64 // memory, as far as is known
	taken  int64 // of the claim
}

// sender reads the encoded body, counts it, and remembers whether it was the sender that failed.
type sender struct {
	r   io.Reader
	n   int64
	err error
}

func (s *sender) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		s.err = err
	}
	return n, err
}

// stage is one coding of a decoder, within the limits: what a coding in the middle of a stack expands to is bounded too.
type stage struct {
	d     *decoder
	coder coder
	out   int64
}

func (s *stage) Read(p []byte) (int, error) {
	n, err := s.coder.Read(p)
	s.out += int64(n)
	if lim := s.d.within(s.out, s.coder.name()); lim != nil {
		return 0, s.d.explain(lim, s.coder.name())
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		err = s.d.explain(err, s.coder.name())
	}
	return n, err
}

// within returns an error when out bytes are too many.
func (d *decoder) within(out int64, what string) error {
	switch {
	case out > int64(d.lim.MemberBytes):
		return errorf(TooLarge, what, "the decoded body is larger than %v", d.lim.MemberBytes)
	case d.lim.isBomb(out, d.src.n):
		return errorf(Bomb, what, "the body expands to more than %d times its size", d.lim.Ratio)
	}
	return nil
}

// explain returns what is to be said about an error of a coding: what the error came from, which is the sender's own error
// where that was the first to go wrong.
func (d *decoder) explain(err error, what string) error {
	if d.src.err != nil {
		return d.src.err
	}
	if d.cause == nil {
		var e *Error
		if !errors.As(err, &e) {
			err = &Error{Kind: Undecodable, What: what, Err: err}
		}
		d.cause = err
	}
	return d.cause
}

// Read implements io.Reader.
func (d *decoder) Read(p []byte) (n int, err error) {
	if d.err != nil {
		return 0, d.err
	}
	// A library that breaks over hostile input has found it to be undecodable.
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, d.explain(fmt.Errorf("the decoder broke: %v\n%s", r, debug.Stack()), d.codings())
			d.n = 0 // what is broken is not used again; its memory is garbage
		}
		if d.err = err; err != nil {
			d.release() // nothing more will come: others may have the memory
		}
	}()
	if len(p) == 0 {
		return 0, nil
	}
	if d.n > 0 {
		return d.stages[d.n-1].Read(p)
	}
	n, err = d.src.Read(p)
	d.out += int64(n)
	if lim := d.within(d.out, "body"); lim != nil {
		return 0, lim
	}
	return n, err
}

// codings returns the names of the codings, for an error.
func (d *decoder) codings() string {
	names := make([]string, 0, maxCodings)
	for i := range d.n {
		names = append(names, d.stages[i].coder.name())
	}
	return strings.Join(names, " in ")
}

// Close implements io.Closer.
func (d *decoder) Close() error {
	if !d.closed {
		d.closed = true
		d.err = &Error{Kind: Undecodable, What: "body", Err: io.ErrClosedPipe}
		d.release()
	}
	return nil
}

// admit takes n bytes of memory for a coder, or gives them back. What several codings need is taken by the first, all of it: none
// of them waits while another has some.
func (d *decoder) admit(n int64) error {
	if d.needed += n; n <= 0 {
		if d.n == 1 {
			d.taken += n
			d.claim.give(-n)
		}
		return nil
	}
	if d.needed > objectMemory {
		return errorf(TooLarge, d.codings(), "decoding the body takes %d bytes of memory, and may take %d", d.needed, objectMemory)
	}
	if d.needed <= d.taken {
		return nil
	}
	take := n
	if d.n > 1 {
		take = d.most()
	}
	share, patience := shareOf(take, d.room.Share), d.room.Patience
	if share == Inner && take > d.claim.b.sure() {
		patience = Patience{} // others may wait for the room that this object has
	}
	if err := d.claim.take(take, share, patience, d.codings()); err != nil {
		return err
	}
	d.taken += take
	return nil
}

// most returns the most that the codings together may take.
func (d *decoder) most() int64 {
	n := int64(0)
	for i := range d.n {
		n += mostMemory(d.stages[i].coder)
	}
	return min(n, objectMemory)
}

// shareOf returns the share that n bytes are taken of.
func shareOf(n int64, s Share) Share {
	if n <= littleMemory {
		return max(s, Brief)
	}
	return s
}

// mostMemory returns the most that a coder asks for.
func mostMemory(c coder) int64 {
	switch c.(type) {
	case *brotliCoder:
		return brotliMost
	case *zstdCoder:
		return zstdMemory(zstdWindow)
	case *snappyCoder:
		return snappyMost
	}
	return inflateMemory
}

func (d *decoder) release() {
	for i := range d.n {
		d.stages[i].coder.release()
		d.stages[i] = stage{}
	}
	d.n = 0
	d.claim.give(d.taken)
	d.taken = 0
}

// Ready returns nil where a decoder of these codings, which NewDecoderIn would take, could have its memory now, however much its content
// declares: an *Error of kind SpoolFull or TooLarge says why not. Whoever has to answer before there is any content asks it; another may
// take the memory first all the same.
func Ready(encodings []string, s Share) error {
	r, err := NewDecoderIn(nothing{}, encodings, Limits{}, Room{})
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it never fails
	d := r.(*decoder)
	n := d.most()
	if n == 0 {
		return nil
	}
	if err := d.claim.take(n, shareOf(n, s), Patience{}, d.codings()); err != nil {
		return err
	}
	d.claim.give(n)
	return nil
}

// NeedsWindow says whether undoing these codings may take more than a little memory.
func NeedsWindow(encodings []string) bool {
	return slices.ContainsFunc(encodings, func(name string) bool {
		return strings.EqualFold(name, "br") || strings.EqualFold(name, "zstd") || strings.EqualFold(name, "snappy")
	})
}
