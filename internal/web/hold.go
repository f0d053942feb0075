package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/filetype"
	"lazaret/internal/gate"
	"lazaret/internal/scan"
)

// A client that waits for the verdict about a large body hears nothing for as long as the body is fetched and scanned, and many
// give up. After hold_time it gets the head of the answer and then a trickle of the beginning. See
// docs/decisions/0010-holding-without-waiting.md for what may pass, and why.

const (
	// trickleEvery is how often a piece is sent.
	trickleEvery = 250 * time.Millisecond
	// trickleShare is which part of what has come may have been trickled: one sixteenth.
	trickleShare = 16
	// tricklePiece is how much must be there to be judged as a piece.
	tricklePiece = 4 << 10
	// sniffed is how much must have come for the kind of content to be known.
	sniffed = 4 << 10
	// examined is how much of what has come is judged before the head is sent, at most: until then a page is possible. It is what
	// the gate judges at a time: further windows begin anywhere, and chance may make something of those that cannot be judged.
	examined = 32 << 10
)

// manner is how much of an object may pass before the verdict.
type manner uint8

const (
	nothing  manner = iota // its beginning is acted upon as it comes: pages, scripts, styles
	headOnly               // text: what a shell or an interpreter might read line by line
	trickled               // all else
)

// hold is what a client gets while its object is being held. The goroutine that writes is joined by end before anybody else
// writes to the client.
type hold struct {
	c      *call
	ctx    context.Context
	cancel context.CancelFunc
	resp   *http.Response // status and version are read
	header http.Header    // of the answer, if it begins before the verdict
	length int64          // -1: not known before the object has come whole
	manner manner         // at most
	part   atomic.Pointer[gate.Partial]

	timer *time.Timer
	done  chan struct{}
	ended sync.Once

	// These are the writing goroutine's until end has returned.
	began  time.Time // zero: the head has not been sent
	sent   int64
	judged []byte // clean by itself, and not sent yet
	pieces io.Reader
	broken bool // the client takes nothing any more
}

// startHold arranges for what the client gets if the verdict takes longer than hold_time. It does so for answers alone that may
// be larger than hold_size.
func (c *call) startHold(ctx context.Context, resp *http.Response, in *gate.Intake, codings []string, decode bool) {
	m := mannerOf(c.facts.Type)
	if c.set.Trickle <= 0 || m == nothing || resp.StatusCode < 200 || resp.StatusCode > 299 || len(c.r.Header["Range"]) > 0 {
		return
	}
	length := int64(-1)
	if len(codings) == 0 || !decode {
		length = resp.ContentLength
	}
	if length >= 0 && length <= int64(c.set.HoldSize) || length < 0 && !c.r.ProtoAtLeast(1, 1) {
		return // HTTP/1.0 has no way to say that content without a length is not whole
	}
	if len(codings) > 0 && !decode {
		m = headOnly // the pieces would be judged as they are encoded
	}
	h := resp.Header.Clone()
	delete(h, "Content-Length")
	if decode {
		if len(codings) > 0 {
			decodedHeader(h)
		}
		delete(h, "Content-Encoding")
	}
	if length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	held := &hold{c: c, resp: resp, header: h, length: length, manner: m, done: make(chan struct{})}
	held.ctx, held.cancel = context.WithCancel(ctx)
	in.Growing = func(p gate.Partial) { held.part.Store(&p) }
	patience := c.set.HoldTime.Std()
	held.timer = time.AfterFunc(max(patience-time.Since(c.asked), patience/4), held.run)
	c.hold = held
}

// end stops what the client gets while it waits, and returns when nothing is being written any more. It may be called more than
// once, and on nil.
func (h *hold) end() {
	if h == nil {
		return
	}
	h.ended.Do(func() {
		h.cancel()
		if !h.timer.Stop() {
			<-h.done
		}
	})
}

// run sends what may be sent, until the object is judged.
func (h *hold) run() {
	defer close(h.done)
	defer func() {
		if p := recover(); p != nil {
			h.c.s.opt.Log.Error("a trickle panicked", "url", h.c.facts.URL, "panic", p)
			h.broken = true
		}
	}()
	tick := time.NewTicker(trickleEvery)
	defer tick.Stop()
	for h.step() {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// step sends what may be sent now, and says whether to go on.
func (h *hold) step() bool {
	p := h.part.Load()
	if p == nil {
		return true
	}
	size := (*p).Size()
	if h.began.IsZero() {
		if size < sniffed || h.length < 0 && size <= int64(h.c.set.HoldSize) {
			return true
		}
		if h.manner = min(h.manner, contentManner(*p, size)); h.manner == nothing {
			return false
		}
		if h.manner == trickled && !h.examine(*p, size) {
			return false
		}
		h.pieces = h.c.s.opt.Gate.Beginning(h.ctx, h.c.facts, &beginning{p: *p, h: h})
		if !h.judge(size) || h.ctx.Err() != nil {
			return false // the client can still be given a page
		}
		return h.begin() && h.drip()
	}
	return h.judge(size) && h.drip()
}

// examine has what has come judged before any of it may pass, also where that is too little for a piece of it to pass yet, and
// says whether it is clean.
func (h *hold) examine(p gate.Partial, size int64) bool {
	seen := h.c.s.opt.Gate.Beginning(h.ctx, h.c.facts, io.NewSectionReader(p, 0, min(size, examined)))
	n, err := seen.Read(make([]byte, examined))
	return n > 0 && (err == nil || errors.Is(err, io.EOF))
}

// judge has the next piece judged when there is nothing left to send, and says false where it is not clean.
func (h *hold) judge(size int64) bool {
	if h.manner != trickled || len(h.judged) > 0 || h.allowed(size)-h.sent < tricklePiece {
		return true
	}
	buf := make([]byte, chunk)
	n, err := h.pieces.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	h.judged = buf[:n]
	return true
}

// allowed returns how much of what has come may pass before the verdict.
func (h *hold) allowed(size int64) int64 {
	return max(min(size-int64(h.c.set.Keepback), size/trickleShare), 0)
}

// begin sends the head.
func (h *hold) begin() bool {
	h.began = time.Now()
	h.c.deliverHead(h.resp, h.header)
	_, stop := pacedWriter(h.c.w, h.c.set.pacing)
	err := http.NewResponseController(h.c.w).Flush()
	if err = errors.Join(err, stop()); err != nil {
		h.broken = true
		return false
	}
	f := h.c.facts
	h.c.s.opt.Gate.Exempt(f, "trickle", "not judged within hold_time: the head is sent, and a trickle of the beginning, judged piece by piece")
	return true
}

// drip sends as much as the rate allows.
func (h *hold) drip() bool {
	rate := int64(h.c.set.Trickle)
	due := rate*int64((time.Since(h.began)+trickleEvery)/time.Millisecond)/1000 - h.sent
	n := min(due, int64(len(h.judged)))
	if n <= 0 {
		return true
	}
	out, stop := pacedWriter(h.c.w, h.c.set.pacing)
	written, err := out.Write(h.judged[:n])
	h.sent += int64(written)
	h.judged = h.judged[written:]
	if err == nil {
		err = http.NewResponseController(h.c.w).Flush()
	}
	err = errors.Join(err, stop())
	h.broken = err != nil
	return err == nil
}

// beginning reads what of a partial object may pass.
type beginning struct {
	p   gate.Partial
	h   *hold
	off int64
}

// Read implements io.Reader.
func (b *beginning) Read(p []byte) (int, error) {
	left := b.h.allowed(b.p.Size()) - b.off
	if left <= 0 {
		return 0, nil
	}
	n, err := b.p.ReadAt(p[:min(int64(len(p)), left)], b.off)
	b.off += int64(n)
	return n, err
}

// goOn ends the trickle, where there is one, and returns what the client does not have yet of the object that was judged.
func (c *call) goOn(r io.ReadSeeker) io.Reader {
	if c.hold.end(); !c.head {
		return r
	}
	if _, err := r.Seek(c.hold.sent, io.SeekStart); err != nil || c.hold.broken {
		c.abort()
	}
	return r
}

// deliverRest sends what the client does not have yet of an object that was judged whole.
func (c *call) deliverRest(o *scan.Object, trailer http.Header) {
	r, end := c.taken(o.Body)
	defer end()
	rest := c.goOn(r)
	if c.hold.length >= 0 && c.hold.length != o.Body.Size() {
		c.abort() // the head has promised another size
	}
	if err := c.send(rest); err != nil {
		c.notTaken(err)
		c.abort()
	}
	if c.hold.length < 0 {
		for name, values := range trailer {
			c.w.Header()[http.TrailerPrefix+name] = values
		}
	}
}

// mannerOf returns how much of content of a declared media type may pass before the verdict. Browsers and other programs act
// upon pages, styles, scripts and what feeds them as they come.
func mannerOf(mediaType string) manner {
	main, sub, _ := strings.Cut(mediaType, "/")
	switch {
	case strings.HasSuffix(sub, "html") || strings.HasSuffix(sub, "xml") || strings.HasSuffix(sub, "json") || strings.Contains(sub, "script"),
		sub == "css", sub == "x-sh", sub == "x-csh", sub == "x-shellscript", main == "multipart", main == "message":
		return nothing
	case main == "text":
		return headOnly
	}
	return trickled
}

// contentManner returns the same by what the content is.
func contentManner(p gate.Partial, size int64) manner {
	head := make([]byte, min(size, sniffed))
	n, _ := p.ReadAt(head, 0) // what cannot be read is not trickled
	head = head[:n]
	info := filetype.Of("", bytes.NewReader(head), int64(n))
	if n == 0 || info.Is(filetype.Script) {
		return nothing
	}
	if m := mannerOf(info.MIME); m != trickled {
		return m
	}
	if !slices.ContainsFunc(head, func(b byte) bool { return b < ' ' && b != '\t' && b != '\n' && b != '\r' && b != '\f' && b != 0x1b }) {
		return headOnly // it reads like text, in whatever encoding
	}
	return trickled
}
