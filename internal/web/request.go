package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"lazaret/internal/egress"
	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// forward serves the request from its origin: its content is judged, then it is sent, then the answer is judged and
// delivered.
func (x *exchange) forward() {
	if err := settle(x.r.Header); err != nil {
		x.refuse(notice.BadRequest, err.Error(), "")
		return
	}
	if x.ofProgress() {
		return
	}
	if n, ok := x.s.stopped.recall(x); ok {
		x.s.opt.Gate.Refuse(x.facts, n.Kind, "", "aborted a while ago, see reference "+n.Reference)
		x.page(n)
		return
	}
	if !x.takeTurn() {
		return
	}
	defer x.leaveTurn()
	ctx, cancel := x.context()
	defer func() {
		if !x.detached {
			cancel(nil)
		}
	}()
	call := &call{exchange: x, cancel: cancel, upgrade: upgradeWanted(x.r)}
	if call.upgrade == webSocket {
		var err error
		if call.extensions, err = offerWebSocket(x.r, x.r.Header); err != nil {
			x.refuse(notice.NotSupported, err.Error(), "")
			return
		}
	}
	if p, ok := calling(x.r); ok {
		stop := x.callUp(ctx, call, p)
		if stop == nil {
			return
		}
		defer stop()
	} else {
		body, more, ok := x.takeUpload()
		if !ok {
			return
		}
		if body != nil {
			defer body.Body.Close() //nolint:errcheck // room is given back; nothing is lost with it
		}
		if more != nil {
			defer more.close()
			x.sendBeyond(ctx, call, body, more)
			return
		}
		if call.upload = body; body != nil {
			call.goes = x.s.pressure.hold(x.facts.Client, body.Body.Size, cancel)
			defer call.goes.end()
		}
	}
	x.fromStore(ctx, call)
}

// takeTurn waits until fewer requests of the client are under way than may be, and says false where it has answered the
// request instead.
func (x *exchange) takeTurn() bool {
	ctx, cancel := context.WithTimeout(x.r.Context(), x.set.ReplyTimeout.Std())
	defer cancel()
	var err error
	if x.leaveTurn, err = x.s.turns.take(ctx, x.facts.Client, x.set.MaxRequestsClient); err == nil {
		return true
	}
	if x.r.Context().Err() != nil {
		x.abort() // nobody is there to be told
	}
	x.refuse(notice.Overload, "too many requests of this client at a time", "max_requests_per_client is reached, and nothing ended in time")
	return false
}

// call is the origin's side of an exchange.
type call struct {
	*exchange
	cancel  context.CancelCauseFunc
	upload  *scan.Object // nil: none, or streamed
	goes    *holding     // upload, on its way
	stream  bool         // the request's content goes on as it comes
	upgrade string       // the protocol that the client wants to switch to
	// extensions are what it is offered of a WebSocket's.
	extensions string
	asked      time.Time // when the request was sent
	marked     bool      // a condition of the request named a validator that we had marked

	known     *stored           // what is kept of the object, which the origin is asked about
	unknow    func()            // gives known's reference back; nil: there is none
	lead      *flight           // what others wait for; nil: nobody may
	brought   func(worked bool) // tells those who wait for this request's object; nil as lead
	originTag string            // the answer's ETag as the origin wrote it
}

// takeUpload takes the request's content in and has it judged; ok is false where the request has been answered because of
// it. More is what follows where it is larger than what is taken and passes all the same. Content goes to the origin byte for byte, as signatures and checksums may cover it.
func (x *exchange) takeUpload() (o *scan.Object, more *beyond, ok bool) {
	if x.r.Body == nil || x.r.Body == http.NoBody || x.r.ContentLength == 0 {
		return nil, nil, true
	}
	facts := x.facts
	facts.Direction, facts.Type = policy.Upload, mediaType(x.r.Header)
	codings, err := contentCodings(x.r.Header)
	if err != nil {
		x.refuse(notice.BadRequest, "the request's Content-Encoding is malformed", err.Error())
		return nil, nil, false
	}
	in := gate.Intake{Name: path.Base(x.r.URL.Path), Type: x.r.Header.Get("Content-Type"), Limit: x.limit(), Size: x.r.ContentLength, Transfer: x.r.Header.Get("Content-Transfer-Encoding")}
	if x.r.ContentLength > in.Limit && !x.passesBeyond(facts, in) {
		x.judgeTooLarge(facts, in, x.r.ContentLength) // before a client that waits for 100 sends it
		return nil, nil, false
	}
	if o, more, err = x.readUpload(facts, in); err != nil {
		x.uploadBroke(err)
		return nil, nil, false
	}
	if o.Body != nil && o.Body.Size() == 0 && len(x.r.Trailer) == 0 {
		_ = o.Body.Close() // empty: there is no room to give back
		return nil, nil, true
	}
	if more != nil {
		codings = nil // the end is missing
	}
	if !x.judgedBothWays(facts, o, in, codings) {
		more.close()
		if o.Body != nil {
			_ = o.Body.Close() // the room is given back; what was refused is not needed any more
		}
		return nil, nil, false
	}
	return o, more, true
}

// judgeTooLarge has policy decide about content that says itself that it is larger than what is taken, and answers the
// request. Nothing of it is delivered.
func (x *exchange) judgeTooLarge(facts policy.Facts, in gate.Intake, length int64) {
	o := &scan.Object{Name: in.Name, Type: in.Type, Known: scan.IncompleteVerdict(scan.TooLarge, "%d bytes where %d are taken at most (web.max_body, spool.max_object)", length, in.Limit)}
	if x.judged(facts, o) {
		x.notHeld()
	}
}

// notHeld answers a request whose object policy lets pass, although it could not be held and so is not there.
func (x *exchange) notHeld() {
	x.refuse(notice.NotScanned, "the object could not be held", "policy lets it pass, but it is not there to be delivered")
}

// readUpload takes the request's content in, as long as it comes along.
func (x *exchange) readUpload(f policy.Facts, in gate.Intake) (*scan.Object, *beyond, error) {
	rc := http.NewResponseController(x.w)
	dog := newWatchdog(x.set.pacing, func(error) {
		// Without deadlines the read goes on until the connection ends.
		_ = rc.SetReadDeadline(longAgo)
	})
	in.Wait = x.noted(x.r.Context().Done(), dog)
	o, more, err := x.takeBeyond(f, &watchedReader{x.r.Body, dog}, in)
	if slow := dog.stop(); slow != nil {
		err = slow
		more.close()
		if o != nil && o.Body != nil {
			_ = o.Body.Close() // the end came too late to count
		}
	}
	return o, more, err
}

// judgedBothWays has content judged as it came, and decoded where it is encoded, because it goes on encoded. It answers
// the request where it is not to go on.
func (x *exchange) judgedBothWays(facts policy.Facts, o *scan.Object, in gate.Intake, codings []string) bool {
	n, ok := x.judgeBothWays(x.r.Context(), facts, o, in, codings)
	if ok {
		return true
	}
	if x.r.Context().Err() != nil {
		x.abort() // nobody is there to be told
	}
	x.page(n)
	return false
}

// judgeBothWays says whether content may go on that is judged as it came, and decoded where it is encoded, and if not, why.
func (x *exchange) judgeBothWays(ctx context.Context, facts policy.Facts, o *scan.Object, in gate.Intake, codings []string) (n notice.Notice, ok bool) {
	g := x.s.opt.Gate
	d, n := g.Judge(ctx, facts, o)
	switch {
	case d.Action != policy.Pass:
		return n, false
	case o.Body == nil:
		return g.Refuse(facts, notice.NotScanned, "the object could not be held", "policy lets it pass, but it is not there to be delivered"), false
	case len(codings) == 0:
		return n, true
	}
	decoded := x.decode(o, in, codings)
	if decoded.Body != nil {
		defer decoded.Body.Close() //nolint:errcheck // room is given back; nothing is lost with it
	}
	d, n = g.Judge(ctx, facts, decoded)
	return n, d.Action == policy.Pass
}

// decode returns the decoded reading of content that is held as it came.
func (x *exchange) decode(o *scan.Object, in gate.Intake, codings []string) *scan.Object {
	r := io.Reader(o.Body.NewReader())
	if i := slices.Index(codings, awsChunked); i >= 0 {
		codings = slices.Delete(slices.Clone(codings), i, i+1)
		r = httputil.NewChunkedReader(r)
	}
	in.Encodings, in.Held = codings, true
	decoded, err := x.s.opt.Gate.Take(r, in)
	if err != nil {
		known := scan.IncompleteVerdict(scan.Undecodable, "%s: %v", awsChunked, err)
		return &scan.Object{Name: in.Name, Type: in.Type, Known: known}
	}
	return decoded
}

// awsChunked is what clients of Amazon S3 say where they sign content in pieces: the framing of HTTP's chunks, with
// signatures as extensions, outside all other codings.
const awsChunked = "aws-chunked"

// judged has the gate judge o, and answers the request where it is not to go on.
func (x *exchange) judged(f policy.Facts, o *scan.Object) bool {
	d, n := x.s.opt.Gate.Judge(x.r.Context(), f, o)
	if d.Action == policy.Pass {
		return true
	}
	if x.r.Context().Err() != nil {
		x.abort() // nobody is there to be told
	}
	x.page(n)
	return false
}

// uploadBroke answers a request whose content did not come whole.
func (x *exchange) uploadBroke(err error) {
	x.w.Header().Set("Connection", "close")
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errStalled), errors.Is(err, errTooSlow):
		x.refuse(notice.BadRequest, "the request's content did not come in time", err.Error())
	case errors.As(err, &tooLarge), x.r.Context().Err() == nil:
		x.refuse(notice.BadRequest, "the request's content is malformed or was cut off", err.Error())
	default:
		x.s.opt.Gate.Refuse(x.facts, notice.BadRequest, "the request's content was cut off", err.Error())
		x.abort()
	}
}

// roundTrip sends the request and serves the answer.
func (x *exchange) roundTrip(ctx context.Context, c *call) {
	hints := &hints{w: x.w, ok: x.r.ProtoAtLeast(1, 1), stall: x.set.StallTimeout.Std()}
	if x.r.ProtoMajor >= 2 {
		hints.stall = 0 // its frames are not held by a stream's window, and the connection has WriteByteTimeout
	}
	defer hints.end()
	reply := c.awaitReply()
	defer reply.end()
	if c.stream {
		reply.end() // both sides talk as they please
	}
	c.asked = time.Now()
	out := c.outgoing(ctx, reply)
	resp, err := x.origin.roundTrip(out, hints.relay)
	hints.end()
	reply.end()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		x.originFailed(err)
		return
	}
	defer func() {
		if !c.detached {
			_ = resp.Body.Close() // what was left of it is of no interest
		}
	}()
	c.answer(ctx, resp)
}

// awaited bounds the time in which the head of the answer must come, counted from when something of the request was last taken.
type awaited struct {
	wait  time.Duration
	mu    sync.Mutex
	timer *time.Timer // nil: it has come, or need not
}

// awaitReply cancels the call when its answer does not come in time.
func (c *call) awaitReply() *awaited {
	a := &awaited{wait: c.set.ReplyTimeout.Std()}
	a.timer = time.AfterFunc(a.wait, func() { c.cancel(errNoReply) })
	return a
}

// moved begins the time anew. What is still being sent of the request when the answer is there has no part in it.
func (a *awaited) moved() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Reset(a.wait)
	}
}

// end ends the waiting. It may be called more than once.
func (a *awaited) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}

// outgoing returns the request as it goes to the origin.
func (c *call) outgoing(ctx context.Context, reply *awaited) *http.Request {
	h := c.r.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	trailers := c.r.ProtoMajor >= 2 && slices.ContainsFunc(h["Te"], func(v string) bool {
		return strings.EqualFold(textproto.TrimString(v), "trailers")
	})
	dropHopByHop(h)
	// Expect was answered by us, as the content was held. Ranges are cut from the whole, which is fetched.
	for _, name := range []string{"Expect", "Range", "If-Range", "Host", "Content-Length"} {
		delete(h, name)
	}
	if trailers {
		h["Te"] = []string{"trailers"} // gRPC insists on it
	}
	if c.upgrade != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{c.upgrade}
	}
	c.marked = originTags(h)
	if c.known != nil {
		maps.Copy(h, c.known.origin)
	}
	acceptable(h)
	acceptableMessages(h)
	addVia(h, c.r.ProtoMajor, c.r.ProtoMinor, c.s.pseudonym)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // otherwise net/http puts its own there
	}
	out := (&http.Request{
		Method: c.r.Method, Host: c.r.Host, Header: h, URL: c.target(h),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}).WithContext(ctx)
	switch {
	case c.stream:
		out.Body, out.ContentLength, out.Trailer = c.r.Body, c.r.ContentLength, c.r.Trailer
	case c.upload != nil:
		c.attach(out, reply)
	}
	return out
}

// attach gives out the content that was held.
func (c *call) attach(out *http.Request, reply *awaited) {
	out.GetBody = func() (io.ReadCloser, error) {
		return io.NopCloser(&progress{&movingReader{c.upload.Body.NewReader(), c.goes}, reply.moved}), nil
	}
	out.Body, _ = out.GetBody() // never fails, see above
	out.ContentLength = c.upload.Body.Size()
	if len(c.r.Trailer) > 0 {
		out.Trailer, out.ContentLength = c.r.Trailer.Clone(), -1
	}
}

// progress calls moved whenever something was read.
type progress struct {
	io.Reader
	moved func()
}

func (p *progress) Read(b []byte) (int, error) {
	p.moved()
	return p.Reader.Read(b)
}

// target returns the URL to send the request to, written as the client wrote it. A parent proxy gets the absolute form,
// and its credentials in h.
func (c *call) target(h http.Header) *url.URL {
	u := &url.URL{Scheme: c.scheme, Host: c.r.Host}
	if c.c.session == nil && c.scheme == "http" {
		if parent := c.s.opt.Dialer.ParentURL(); parent != nil {
			if auth := egress.ProxyAuthorization(parent); auth != "" {
				h.Set("Proxy-Authorization", auth)
			}
			u.Opaque = "//" + c.r.Host
			if c.path != "*" {
				u.Opaque += c.path
			}
			return u
		}
	}
	if strings.HasPrefix(c.path, "//") {
		// url.URL would take it for a host.
		u.Path, u.RawPath, u.RawQuery, u.ForceQuery = c.r.URL.Path, c.r.URL.RawPath, c.r.URL.RawQuery, c.r.URL.ForceQuery
		return u
	}
	u.Opaque = c.path
	return u
}

// hints relays informational responses, 103 Early Hints above all (RFC 8297), while the request is under way.
type hints struct {
	w     http.ResponseWriter
	ok    bool          // the client's protocol has them
	stall time.Duration // in which the client must take one; 0: another bound holds
	mu    sync.Mutex
	ended bool
	count int
}

// maxHints is how many informational responses one request may have.
const maxHints = 16

// relay takes an informational answer. It may be called by another goroutine than the exchange's, which waits meanwhile, or has given
// up.
func (h *hints) relay(code int, header textproto.MIMEHeader) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count++; h.count > maxHints {
		return fmt.Errorf("more than %d informational responses", maxHints)
	}
	if h.ended || !h.ok || code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return nil // 100 was answered when the content was taken in
	}
	out := http.Header(header).Clone()
	dropHopByHop(out)
	for _, name := range []string{"Alt-Svc", "Content-Length", "Content-Type", "Content-Encoding"} {
		delete(out, name)
	}
	if settle(out) != nil {
		return nil
	}
	dst := h.w.Header()
	for name, values := range out {
		dst[name] = values
	}
	if h.stall > 0 {
		rc := http.NewResponseController(h.w)
		_ = rc.SetWriteDeadline(time.Now().Add(h.stall)) // it fails where the client has gone
		defer rc.SetWriteDeadline(time.Time{})           //nolint:errcheck // as above
	}
	h.w.WriteHeader(code)
	clear(dst)
	return nil
}

// end has later informational responses dropped.
func (h *hints) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
}
