package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// answer judges the origin's answer and delivers it, or says why not.
func (c *call) answer(ctx context.Context, resp *http.Response) {
	c.facts.Status = resp.StatusCode
	if resp.StatusCode == http.StatusSwitchingProtocols {
		c.switched(resp)
		return
	}
	protocol := upgradeOf(resp.Header) // 426 names what it wants
	dropHopByHop(resp.Header)
	if resp.StatusCode == http.StatusUpgradeRequired && c.r.ProtoMajor == 1 && protocol != "" {
		resp.Header["Connection"], resp.Header["Upgrade"] = []string{"Upgrade"}, []string{protocol}
	}
	if err := c.sound(resp); err != nil {
		c.refuse(notice.OriginProtocol, err.Error(), "")
		return
	}
	c.facts.Type = mediaType(resp.Header)
	codings, err := contentCodings(resp.Header)
	if err != nil {
		c.refuse(notice.OriginProtocol, "the site's Content-Encoding is malformed", err.Error())
		return
	}
	if c.mirrorClose(resp) {
		c.w.Header().Set("Connection", "close")
	}
	if c.known != nil && (resp.StatusCode == http.StatusNotModified || c.known.sentAgain(resp, codings)) {
		c.unchanged(ctx, resp)
		return
	}
	c.releaseKnown()
	c.originTag = resp.Header.Get("Etag")
	if !bodied(c.r.Method, resp) {
		c.bodiless(resp, codings)
		return
	}
	if p, ok := answering(c.r, resp); ok && mayBeEndless(resp) {
		c.callDown(ctx, resp, codings, p)
		return
	}
	if why := endless(resp); why != "" {
		c.streamed(ctx, resp, codings, why)
		return
	}
	if m := playable(c.r, resp, codings); m != nil && c.played(ctx, resp, m) {
		return
	}
	c.held(ctx, resp, codings)
}

// sound says what of an answer's head cannot be understood in one way.
func (c *call) sound(resp *http.Response) error {
	if err := settle(resp.Header); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 999 {
		return fmt.Errorf("%d is not a status that a request can be answered with", resp.StatusCode)
	}
	switch resp.StatusCode {
	case http.StatusProxyAuthRequired:
		// An origin that asks for the proxy's password would get users to type it.
		return errors.New("the site asked for the proxy's password")
	case http.StatusPartialContent:
		// No range was asked for. Where the part is the whole, it is as good as 200.
		if !wholeRange(resp) {
			return errors.New("the site sent a part of the object where the whole was asked for")
		}
		resp.StatusCode = http.StatusOK
		c.facts.Status = http.StatusOK
		delete(resp.Header, "Content-Range")
	}
	if mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); strings.EqualFold(strings.TrimSpace(mediaType), "multipart/byteranges") {
		// No ranges were asked for. Whoever puts such parts together has what nobody has looked at (RFC 9110, 14.6).
		return errors.New("the site sent parts of the object where the whole was asked for")
	}
	return nil
}

// mirrorClose says whether the client's connection is to end with this answer, because the origin's does: inside an opened
// connection the two belong together.
func (c *call) mirrorClose(resp *http.Response) bool {
	return c.c.session != nil && c.r.ProtoMajor == 1 && resp.Close
}

// bodied says whether an answer has content (RFC 9110, 6.4.1).
func bodied(method string, resp *http.Response) bool {
	switch {
	case method == http.MethodHead, resp.StatusCode == http.StatusNoContent, resp.StatusCode == http.StatusResetContent,
		resp.StatusCode == http.StatusNotModified:
		return false
	}
	return resp.Body != nil && resp.Body != http.NoBody && resp.ContentLength != 0
}

// bodiless delivers an answer that has no content. Its header describes what a GET would get, from us.
func (c *call) bodiless(resp *http.Response, codings []string) {
	h := resp.Header
	length := h["Content-Length"]
	delete(h, "Content-Length")
	switch {
	case c.r.Method == http.MethodHead && len(codings) == 0:
		// Without a coding the length is what it will be.
		if len(length) > 0 && !slices.ContainsFunc(length, func(v string) bool { return v != length[0] }) {
			if n, err := strconv.ParseInt(length[0], 10, 64); err == nil && n >= 0 {
				h["Content-Length"] = []string{strconv.FormatInt(n, 10)}
			}
		}
	case c.r.Method == http.MethodHead:
		decodedHeader(h)
	case resp.StatusCode == http.StatusNotModified:
		if c.marked {
			markDecoded(h)
		}
	case resp.StatusCode != http.StatusNoContent:
		h["Content-Length"] = []string{"0"}
		delete(h, "Content-Encoding")
	}
	c.deliverHead(resp, h)
}

// decodedHeaders has header and trailers describe content whose codings were undone.
func decodedHeaders(resp *http.Response, codings []string) {
	if len(codings) > 0 {
		decodedHeader(resp.Header)
		decodedHeader(resp.Trailer)
	}
	delete(resp.Header, "Content-Encoding")
}

// decodedHeader removes what was said about the encoded form.
func decodedHeader(h http.Header) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		delete(h, name)
	}
	markDecoded(h)
}

// deliverHead sends the head of an answer, with resp's status.
func (c *call) deliverHead(resp *http.Response, h http.Header) {
	c.prepareHead(resp, h)
	c.sendHead(resp.StatusCode)
}

// prepareHead puts an answer's header into place.
func (c *call) prepareHead(resp *http.Response, h http.Header) {
	delete(h, "Alt-Svc") // it would lead around the gateway
	acceptableMessages(h)
	addVia(h, resp.ProtoMajor, resp.ProtoMinor, c.s.pseudonym)
	dst := c.w.Header()
	for name, values := range h {
		dst[name] = values
	}
	if _, ok := h["Content-Type"]; !ok {
		dst["Content-Type"] = nil // otherwise net/http guesses one, for HTTP/2
	}
}

// held takes the content in, has it judged and delivers it: decoded, or, where the client did not ask for the coding that
// the origin chose, as it came. Such a client stores what it gets, and compares it with a checksum.
func (c *call) held(ctx context.Context, resp *http.Response, codings []string) {
	in := gate.Intake{Name: objectName(c.r, resp), Type: resp.Header.Get("Content-Type"), Limit: c.limit(), Size: resp.ContentLength, Transfer: resp.Header.Get("Content-Transfer-Encoding")}
	if len(codings) == 0 && resp.ContentLength > in.Limit && !c.passesBeyond(c.facts, in) {
		c.judgeTooLarge(c.facts, in, resp.ContentLength)
		return
	}
	decode := accepted(c.r.Header, codings)
	if decode {
		in.Encodings = codings
	}
	if j := c.startJob(ctx, resp, in, codings, decode); j != nil {
		c.await(ctx, j)
		return
	}
	if c.outlasts(resp, in, codings) {
		c.takeForOthers(ctx, resp, in, decode)
		return
	}
	c.startHold(ctx, resp, &in, codings, decode)
	o, more, err := c.take(ctx, resp.Body, in)
	defer more.close()
	if o != nil && o.Body != nil {
		defer o.Body.Close() //nolint:errcheck // room is given back; nothing is lost with it
	}
	if err != nil {
		c.brokeOff(ctx, err)
		return
	}
	h := resp.Header
	if decode {
		decodedHeaders(resp, codings)
		codings = nil
	}
	if more != nil {
		if delete(h, "Content-Length"); c.judged(c.facts, o) {
			c.deliverBeyond(resp, h, o, more, len(in.Encodings) > 0)
		}
		return
	}
	if !c.judgedBothWays(c.facts, o, in, codings) {
		return
	}
	delete(h, "Content-Length")
	c.keepForRanges(resp, o, in, codings)
	c.deliver(resp, h, o)
}

// take takes the answer's content in, as long as it comes along. It waits for room until ctx ends, which is the work's own context: the
// request may have been answered.
func (c *call) take(ctx context.Context, body io.Reader, in gate.Intake) (*scan.Object, *beyond, error) {
	dog := newWatchdog(c.set.pacing, func(err error) { c.cancel(err) })
	r := &watchedReader{body, dog}
	if !c.holdsRoom() { // else it would wait with room that others may wait for
		in.Wait = c.noted(ctx.Done(), dog)
	}
	h := c.growing(&in)
	defer h.end()
	r.Reader = comingReader{body, h}
	o, more, err := c.takeBeyond(c.facts, r, in)
	if err == nil && o.Body != nil && more == nil {
		err = rest(r)
	}
	if slow := dog.stop(); slow != nil {
		err = slow
	}
	return o, more, err
}

// holdsRoom says whether the request's content, which is kept until it is answered, has room on disk.
func (c *call) holdsRoom() bool {
	if c.upload == nil {
		return false
	}
	_, inMemory := c.upload.Body.Bytes()
	return !inMemory
}

// rest reads what a decoder has left of the content: the end of the last chunk and the trailers come after it.
func rest(r io.Reader) error {
	var b [512]byte
	for range 8 {
		if _, err := r.Read(b[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil // more than a decoder wanted: closing the body ends the connection
}

// objectName returns what a body is called: by Content-Disposition, else by the URL's path.
func objectName(r *http.Request, resp *http.Response) string {
	if _, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil && params["filename"] != "" {
		return params["filename"]
	}
	return path.Base(r.URL.Path)
}

// brokeOff answers a request whose answer did not come whole.
func (c *call) brokeOff(ctx context.Context, err error) {
	if c.r.Context().Err() != nil {
		c.abort() // the client has gone
	}
	if c.callRefused(context.Cause(ctx)) {
		return
	}
	kind, fault := brokenOff(ctx, &err)
	c.refuse(kind, fault, err.Error())
}

// brokenOff returns what is said of an answer that did not come whole because of err, which becomes the reason.
func brokenOff(ctx context.Context, err *error) (kind notice.Kind, fault string) {
	switch {
	case errors.Is(context.Cause(ctx), errHoldsUp):
		*err = errHoldsUp
		return notice.Overload, "the site sent too slowly while others waited for room"
	case errors.Is(*err, errStalled), errors.Is(*err, errTooSlow):
		return notice.OriginTimeout, "the site stopped sending"
	case errors.Is(*err, io.ErrUnexpectedEOF):
		return notice.OriginProtocol, "the site broke off"
	}
	if cause := context.Cause(ctx); cause != nil {
		*err = cause
	}
	return notice.OriginProtocol, "the site's answer is malformed or was cut off"
}

// deliver sends what was judged.
func (c *call) deliver(resp *http.Response, h http.Header, o *scan.Object) {
	trailer := passTrailers(resp.Trailer)
	if c.hold.end(); c.head {
		c.deliverRest(o, trailer)
		return
	}
	if c.r.ProtoAtLeast(1, 1) && len(trailer) > 0 {
		announce(h, trailer)
	} else {
		trailer = nil
		h["Content-Length"] = []string{strconv.FormatInt(o.Body.Size(), 10)}
	}
	if c.rangeWanted(resp, trailer) {
		c.prepareHead(resp, h)
		c.slice(resp, o)
		return
	}
	c.deliverHead(resp, h)
	if _, inMemory := o.Body.Bytes(); inMemory {
		c.c.below.hold()
	}
	r, end := c.taken(o.Body)
	defer end()
	if err := c.send(r); err != nil {
		c.notTaken(err)
		c.abort()
	}
	c.sendTrailer(trailer)
}

// notTaken logs that the client did not take its answer.
func (c *call) notTaken(err error) {
	c.s.opt.Log.Debug("a client did not take its answer", "client", c.c.addr, "url", c.facts.URL, "error", err)
}

// send copies a body to the client, and gives up on one that does not take it.
func (c *call) send(body io.Reader) error {
	out, stop := pacedWriter(c.w, c.set.pacing)
	buf := sendBuffers.Get().(*[]byte)
	_, err := io.CopyBuffer(onlyWriter{out}, onlyReader{body}, *buf)
	sendBuffers.Put(buf)
	err = errors.Join(err, c.c.below.release())
	if slow := stop(); slow != nil {
		return slow
	}
	return err
}

// passTrailers returns the trailers that may go on: none that would change what was understood from the head (RFC 9110,
// 6.5.1).
func passTrailers(trailer http.Header) http.Header {
	kept := http.Header{}
	for name, values := range trailer {
		field := http.Header{name: slices.Clone(values)}
		dropHopByHop(field)
		if len(field) == 1 && !controls(name) && settle(field) == nil {
			kept[name] = values
		}
	}
	return kept
}

// controls says whether a field must be in the head to mean anything: about framing, content, caching, or who asks.
func controls(name string) bool {
	switch name {
	case "Content-Digest", "Content-Md5":
		return false
	case "Set-Cookie", "Cache-Control", "Expires", "Age", "Date", "Location", "Vary", "Authorization", "Cookie", "Host", "Expect",
		"Range", "Accept-Ranges", "Alt-Svc", "Strict-Transport-Security", "Retry-After", "Max-Forwards", "Via", "Www-Authenticate":
		return true
	}
	return strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "If-") || strings.HasPrefix(name, "Access-Control-")
}

// announce declares trailers in h (RFC 9110, 6.6.2).
func announce(h http.Header, trailer http.Header) {
	names := slices.Sorted(maps.Keys(trailer))
	h["Trailer"] = []string{strings.Join(names, ", ")}
}

// sendTrailer sends the trailers after the content.
func (c *call) sendTrailer(trailer http.Header) {
	maps.Copy(c.w.Header(), trailer)
}
