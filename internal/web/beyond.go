package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"lazaret/internal/gate"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/web/http1"
)

// beyond is what follows of a body that is larger than what is taken, where policy lets such bodies pass.
type beyond struct {
	rest    io.ReadCloser
	watched *watchedReader // below rest
}

// tooLarge is the fixed word that such bodies are recorded under.
const tooLarge = "too-large"

// takeBeyond is Gate.TakeBeyond where policy could let a larger body pass, else Gate.Take. more is nil where there is no more
// than the object.
func (x *exchange) takeBeyond(f policy.Facts, r *watchedReader, in gate.Intake) (o *scan.Object, more *beyond, err error) {
	if !x.passesBeyond(f, in) {
		o, err = x.s.opt.Gate.Take(r, in)
		return o, nil, err
	}
	o, rest, err := x.s.opt.Gate.TakeBeyond(r, in)
	if rest != nil {
		more = &beyond{rest: rest, watched: r}
	}
	return o, more, err
}

// passesBeyond says whether policy lets a body pass that is larger than what is taken.
func (x *exchange) passesBeyond(f policy.Facts, in gate.Intake) bool {
	return x.s.opt.Gate.Passes(f, scan.TooLarge, max(in.Limit, in.Size)+1)
}

// close ends the reading.
func (b *beyond) close() {
	if b != nil {
		_ = b.rest.Close() // a decoder's memory is given back
	}
}

// limit is how many bytes of a body are taken.
func (x *exchange) limit() int64 {
	most := x.s.opt.Gate.MaxObject()
	if l := x.set.bodyLimit(); l > 0 && l < most {
		return l
	}
	return most
}

// noteBeyond records that what follows of a body passes without being looked at.
func (x *exchange) noteBeyond(f policy.Facts, o *scan.Object) {
	x.s.opt.Gate.Exempt(f, tooLarge, fmt.Sprintf("larger than what is taken: the first %d bytes were scanned, what follows was not", o.Body.Size()))
}

// deliverBeyond sends the part of an answer that was judged, and then what follows.
func (c *call) deliverBeyond(resp *http.Response, h http.Header, o *scan.Object, more *beyond, encoded bool) {
	c.noteBeyond(c.facts, o)
	delete(h, "Trailer")
	if !encoded && resp.ContentLength >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(resp.ContentLength, 10)}
	}
	part := c.goOn(o.Body.NewReader())
	if !c.head {
		c.deliverHead(resp, h)
	}
	dog := newWatchdog(c.set.pacing, func(err error) { c.cancel(err) })
	defer dog.stop() //nolint:errcheck // whatever ended it, the client sees the end
	more.watched.dog = dog
	out, stop := pacedWriter(c.w, c.set.pacing)
	buf := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(buf)
	// What the client takes is progress, too: the site waits meanwhile.
	_, err := io.CopyBuffer(onlyWriter{watchedWriter{out, dog}}, io.MultiReader(part, more.rest), *buf)
	if slow := stop(); slow != nil {
		err = slow
	}
	if err != nil {
		c.s.opt.Log.Debug("an answer beyond the limit ended early", "client", c.c.addr, "url", c.facts.URL, "error", err)
		c.abort()
	}
}

// sendBeyond has the request's content go on as what was judged of it, and then what follows. It goes once.
func (x *exchange) sendBeyond(ctx context.Context, c *call, o *scan.Object, more *beyond) {
	f := x.facts
	f.Direction, f.Type = policy.Upload, mediaType(x.r.Header)
	x.noteBeyond(f, o)
	dog := newWatchdog(x.set.pacing, func(err error) { c.cancel(err) })
	defer dog.stop() //nolint:errcheck // whatever ended it, the request failed by it
	more.watched.dog = dog
	c.stream = true
	http1.Passes(x.r.Body)
	x.r.Body = readCloser{io.MultiReader(watchedReader{o.Body.NewReader(), dog}, more.rest), x.r.Body}
	x.roundTrip(ctx, c)
}
