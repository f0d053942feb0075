package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"lazaret/internal/envelope"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// calling returns the protocol of a call whose two sides talk at the same time. Requests by gRPC-Web, and by HTTP/1.1, come before
// their answers: they are held.
func calling(r *http.Request) (envelope.Protocol, bool) {
	p, ok := envelope.Of(mediaType(r.Header))
	return p, ok && p.Name != "gRPC-Web" && r.ProtoMajor >= 2 && r.Method == http.MethodPost
}

// answering returns the protocol of an answer that is in messages, as its request was.
func answering(r *http.Request, resp *http.Response) (envelope.Protocol, bool) {
	p, ok := envelope.Of(mediaType(resp.Header))
	asked, too := envelope.Of(mediaType(r.Header))
	return p, ok && too && p.Name == asked.Name
}

// callUp has the request's messages judged as they come, and returns what stops that when the request has been served; nil where
// it has been answered already.
func (x *exchange) callUp(ctx context.Context, c *call, p envelope.Protocol) (stop func()) {
	x.leaveTurn() // it is not held
	c.stream = true
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return func() {}
	}
	codings, err := contentCodings(x.r.Header)
	if err != nil {
		x.refuse(notice.BadRequest, "the request's Content-Encoding is malformed", err.Error())
		return nil
	}
	body, err := x.uncoded(x.r.Body, codings)
	if err != nil {
		x.notUndone(notice.BadRequest, "the request's content is in a coding that cannot be undone", err)
		return nil
	}
	if len(codings) > 0 {
		decodedHeader(x.r.Header)
	}
	f := x.newFlow(ctx, c.cancel, p, x.r.Header, body, policy.Upload)
	x.r.Body, x.r.ContentLength = f, -1
	return f.stop
}

// uncoded returns body without its content codings.
func (x *exchange) uncoded(body io.ReadCloser, codings []string) (io.ReadCloser, error) {
	if len(codings) == 0 {
		return body, nil
	}
	d, err := x.undo(body, codings)
	if err != nil {
		return nil, err
	}
	return &decodedCall{d: d, body: body}, nil
}

// decodedCall is the body of a call without its content codings. It may be closed while it is read: the decoder's memory is given back
// when that is over.
type decodedCall struct {
	d    io.ReadCloser
	body io.Closer

	mu              sync.Mutex
	reading, closed bool
}

// Read implements io.Reader.
func (c *decodedCall) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	c.reading = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.reading = false; c.closed {
			_ = c.d.Close() // it never fails
		}
	}()
	return c.d.Read(p)
}

// Close implements io.Closer.
func (c *decodedCall) Close() error {
	err := c.body.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed = true; !c.reading {
		_ = c.d.Close() // as above
	}
	return err
}

// callDown passes an answer's messages on, each when it has been judged.
func (c *call) callDown(ctx context.Context, resp *http.Response, codings []string, p envelope.Protocol) {
	h := resp.Header
	body, err := c.uncoded(resp.Body, codings)
	if err != nil {
		c.notUndone(notice.OriginProtocol, "the site's stream is in a coding that cannot be undone", err)
		return
	}
	if len(codings) > 0 {
		decodedHeader(h)
	}
	f := c.newFlow(ctx, c.cancel, p, h, body, policy.Download)
	defer f.stop()
	c.relayed(ctx, resp, f, func(n notice.Notice, out io.Writer) bool { return c.endCall(p, n, out) })
}

// acceptableMessages reduces what is said of the encodings that messages may be in to those that can be undone.
func acceptableMessages(h http.Header) {
	for _, name := range []string{"Grpc-Accept-Encoding", "Connect-Accept-Encoding"} {
		values, ok := h[name]
		if !ok {
			continue
		}
		var kept []string
		for coding := range strings.SplitSeq(strings.Join(values, ","), ",") {
			if coding = strings.TrimSpace(coding); coding == "identity" || slices.Contains(messageCodings, coding) {
				kept = append(kept, coding)
			}
		}
		if len(kept) == 0 {
			kept = []string{"identity"}
		}
		h[name] = []string{strings.Join(kept, ",")}
	}
}

// callStatus is what is said of a call that is ended.
type callStatus struct {
	number int // gRPC's
	name   string
}

// statusOf returns the status of a call that is ended because of n.
func statusOf(n notice.Notice) callStatus {
	switch {
	case n.Verdict.Outcome == scan.Infected:
	case n.Verdict.Reason == scan.TooLarge:
		return callStatus{8, "resource_exhausted"}
	case n.Decision.Action == policy.Defer || n.Kind == notice.Internal || n.Kind == notice.Overload:
		return callStatus{14, "unavailable"}
	}
	return callStatus{7, "permission_denied"}
}

// endCall ends an answer, whose head has been sent, with a status that says why, and says whether it could. Out takes what belongs
// to its body.
func (c *call) endCall(p envelope.Protocol, n notice.Notice, out io.Writer) bool {
	st := statusOf(n)
	if p.End == 0 {
		if c.r.ProtoMajor < 2 {
			return false // trailers would not be seen
		}
		h := c.w.Header()
		h.Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(st.number))
		h.Set(http.TrailerPrefix+"Grpc-Message", whyBlocked(n))
		return true
	}
	if err := writeEnd(out, p, n); err != nil {
		return false
	}
	return http.NewResponseController(c.w).Flush() == nil
}

// writeEnd writes the message that ends a call because of n.
func writeEnd(w io.Writer, p envelope.Protocol, n notice.Notice) error {
	st := statusOf(n)
	var b []byte
	if p.Name == "Connect" {
		type fault struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		}
		var err error
		if b, err = json.Marshal(map[string]fault{"error": {st.name, whyBlocked(n)}}); err != nil {
			return err
		}
	} else {
		b = []byte("grpc-status: " + strconv.Itoa(st.number) + "\r\ngrpc-message: " + whyBlocked(n) + "\r\n")
	}
	var whole bytes.Buffer
	h := envelope.Head{Flags: p.End}.Plain(uint32(len(b))) //nolint:gosec // it is short
	if err := writeMessage(&whole, p, h, bytes.NewReader(b)); err != nil {
		return err
	}
	_, err := w.Write(whole.Bytes())
	return err
}

// callRefused answers a call that was ended before its answer began, in its own words: clients of gRPC and Connect do not look at
// pages. It says false where err is no such end.
func (x *exchange) callRefused(err error) bool {
	var why *refusal
	p, ok := calling(x.r)
	if !errors.As(err, &why) || !ok || x.head {
		return false
	}
	h := x.w.Header()
	clear(h)
	h["Content-Type"] = x.r.Header["Content-Type"]
	page := x.s.opt.Pages.Respond("application/json", "", why.notice)
	for _, name := range []string{"X-Lazaret-Reference", "X-Lazaret-Kind", "X-Lazaret-Verdict", "X-Lazaret-Reason"} {
		if v, ok := page.Header[name]; ok {
			h[name] = v
		}
	}
	addVia(h, x.r.ProtoMajor, x.r.ProtoMinor, x.s.pseudonym)
	if p.End == 0 {
		// "Trailers-Only" of gRPC over HTTP/2.
		h.Set("Grpc-Status", strconv.Itoa(statusOf(why.notice).number))
		h.Set("Grpc-Message", whyBlocked(why.notice))
		x.sendHead(http.StatusOK)
		return true
	}
	x.sendHead(http.StatusOK)
	out, stop := pacedWriter(x.w, x.set.pacing)
	defer stop() //nolint:errcheck // an end that a client does not take has no further consequence
	_ = writeEnd(out, p, why.notice)
	return true
}
