package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"lazaret/internal/idle"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// exchange is one request and its answer.
type exchange struct {
	s      *Server
	set    *settings
	c      *client
	w      http.ResponseWriter
	r      *http.Request
	scheme string
	to     authority // the origin
	path   string    // path and query as the client wrote them, or "*"
	facts  policy.Facts
	origin *origin
	head   bool // the answer's head has been sent

	leaveTurn func() // gives back the place among the client's requests
	hold      *hold  // what the client gets while it waits; nil: nothing
	unbind    func() // keeps the exchange's work from ending with the request; nil: it cannot
	detached  bool   // it goes on without the request
}

// newExchange returns an exchange whose facts name the client, so that a refusal can be recorded.
func (s *Server) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	c := clientOf(r.Context())
	return &exchange{
		s: s, set: s.settings.Load(), c: c, w: w, r: r, scheme: c.scheme, leaveTurn: func() {},
		facts: policy.Facts{Protocol: c.scheme, Direction: policy.Download, Client: c.addr.Addr(), Method: r.Method},
	}
}

// begin marks the connection as busy. The function that it returns is deferred: it ends the exchange, and turns a panic
// into one failed request.
func (x *exchange) begin() (end func()) {
	x.c.reading.Store(false)
	x.c.active.Add(1)
	return func() {
		defer x.c.active.Add(-1)
		p := recover()
		x.hold.end()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(http.ErrAbortHandler)
		}
		n := x.s.opt.Gate.Refuse(x.facts, notice.Internal, "", fmt.Sprintf("panic: %v", p))
		x.s.opt.Log.Error("a request made the proxy panic", "reference", n.Reference, "panic", p, "stack", string(debug.Stack()))
		if x.head {
			x.abort()
		}
		x.w.Header().Set("Connection", "close")
		x.page(n)
	}
}

// aim sets the origin and the path that the exchange is about.
func (x *exchange) aim(scheme string, to authority, path string) {
	x.scheme, x.to, x.path = scheme, to, path
	x.facts.Protocol, x.facts.Host = scheme, to.host
	x.facts.URL = scheme + "://" + to.short(scheme)
	if path != "*" {
		x.facts.URL += path
	}
}

// refuse records that the request is not served, and answers it.
func (x *exchange) refuse(kind notice.Kind, fault, detail string) {
	x.page(x.s.opt.Gate.Refuse(x.facts, kind, fault, detail))
}

// page answers with a notice. What had been put into the header for another answer must not be there any more, but for
// Connection and Proxy-Authenticate.
func (x *exchange) page(n notice.Notice) {
	if x.hold.end(); x.head {
		x.s.stopped.remember(x, n)
		x.abort()
	}
	x.respond(x.s.opt.Pages.Respond(x.r.Header.Get("Accept"), x.r.Header.Get("Accept-Language"), n))
}

// respond answers with a page.
func (x *exchange) respond(resp notice.Response) {
	h := x.w.Header()
	for name := range h {
		if name != "Connection" && name != "Proxy-Authenticate" {
			delete(h, name)
		}
	}
	for name, values := range resp.Header {
		h[name] = values
	}
	addVia(h, x.r.ProtoMajor, x.r.ProtoMinor, x.s.pseudonym)
	x.sendHead(resp.Status)
	if x.r.Method == http.MethodHead {
		return
	}
	out, stop := pacedWriter(x.w, x.set.pacing)
	defer stop() //nolint:errcheck // a page that a client does not take has no further consequence
	_, _ = out.Write(resp.Body)
}

// soon bounds the time in which the client must take what is sent from here on: a short answer.
func (x *exchange) soon() {
	_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.set.StallTimeout.Std())) // it fails where the client has gone
}

// sendHead sends the head of the final answer.
func (x *exchange) sendHead(status int) {
	x.head = true
	x.w.WriteHeader(status)
}

// abort ends the client's connection (HTTP/1.1) or stream (HTTP/2) without a proper end, so that nobody takes what came
// for the whole.
func (x *exchange) abort() {
	if x.hold.end(); x.hold != nil && x.head && x.r.ProtoMajor == 1 {
		reset(x.c.conn)
	}
	panic(http.ErrAbortHandler)
}

// reset ends the TCP connection below c by RST: a client that takes the end of the connection for the end of the content (RFC
// 9112, 6.3) sees an error.
func reset(c net.Conn) {
	if t := idle.TCPBelow(c); t != nil {
		_ = t.SetLinger(0) // it fails where the connection has ended already
		_ = t.Close()      // as above
	}
}

// context returns the context of the exchange's work, which ends with the client's request, unless that is a navigation, or asks
// for a part, whose work is unbound from it.
func (x *exchange) context() (context.Context, context.CancelCauseFunc) {
	part := len(x.r.Header["Range"]) == 1 && x.s.store.on()
	if !part && (!x.set.Progress.Enabled || !navigates(x.r)) {
		return context.WithCancelCause(x.r.Context())
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(x.r.Context()))
	stop := context.AfterFunc(x.r.Context(), func() { cancel(context.Cause(x.r.Context())) })
	x.unbind = func() { stop() }
	return ctx, cancel
}

// detach has the exchange's work, which was unbound from the request, go on when that has been answered. Ctx is the work's: it
// ends with it.
func (x *exchange) detach(ctx context.Context) {
	x.detached = true
	context.AfterFunc(ctx, x.origin.detach())
}

// rawTarget returns path and query of a request as the client wrote them: what a URL parser makes of a path is not
// always written the same way again.
func rawTarget(r *http.Request) string {
	target := r.RequestURI
	if target == "" {
		return r.URL.RequestURI()
	}
	if target[0] == '/' || target == "*" {
		return target
	}
	if _, rest, ok := strings.Cut(target, "://"); ok {
		if i := strings.IndexAny(rest, "/?#"); i < 0 {
			target = ""
		} else {
			target = rest[i:]
		}
	}
	switch {
	case target == "" && r.Method == http.MethodOptions:
		return "*" // RFC 9112, 3.2.4
	case target == "" || target[0] != '/':
		return "/" + target
	}
	return target
}
