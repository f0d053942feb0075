package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"lazaret/internal/egress"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
)

// originFailed answers a request that its origin did not answer.
func (x *exchange) originFailed(err error) {
	var fault *intercept.Fault
	var dial *egress.Error
	switch {
	case x.r.Context().Err() != nil:
		x.abort() // the client has gone
	case x.callRefused(err):
	case errors.Is(err, errAbort):
		x.s.opt.Gate.Refuse(x.facts, notice.OriginProtocol, "the site closed the connection", err.Error())
		x.abort()
	case errors.As(err, &fault):
		x.faulty(fault)
	case intercept.Renegotiates(err):
		x.w.Header().Set("Connection", "close") // the next connection may be passed through
		x.faulty(x.c.session.Failed(err, meant(x.r)))
	case x.r.ProtoMajor == 2 && intercept.WantsHTTP11(err):
		x.fallBack(err)
	case errors.As(err, &dial):
		x.dialFailed(err)
	case errors.Is(err, errHoldsUp):
		x.refuse(notice.Overload, "the site took the request's content too slowly while others waited for room", err.Error())
	case errors.Is(err, errTooManyOrigins):
		x.refuse(notice.Overload, "too many connections", err.Error())
	case errors.Is(err, errNoReply):
		x.refuse(notice.OriginTimeout, "the site did not answer in time", fmt.Sprintf("no answer within %v", x.set.ReplyTimeout))
	default:
		x.refuse(notice.OriginProtocol, "the site's answer is malformed, or there was none", err.Error())
	}
}

// meant says whether a request is made by the will of whoever sits at the client, as far as it tells: by a browser that was sent
// there, and not by a page for one of its parts (Fetch Metadata); or by no browser, which does not tell.
func meant(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return mode == "" && dest == "" && r.Header.Get("Sec-Fetch-Site") == "" || mode == "navigate" && dest == "document"
}

// fallBack has the client ask again, by HTTP/1.1: this request's origin does not want HTTP/2 for it. A browser without a gateway would
// be told so by the connection itself, in a way that net/http does not have.
func (x *exchange) fallBack(err error) {
	x.w.Header().Set("Connection", "close") // and for HTTP/2, a GOAWAY
	const fault = "the site wants HTTP/1.1 for this"
	path := x.r.URL.RequestURI()
	if !strings.HasPrefix(path, "/") || !x.c.session.FallBack() {
		x.refuse(notice.OriginProtocol, fault, err.Error())
		return
	}
	x.s.opt.Gate.Refuse(x.facts, notice.OriginProtocol, fault, "the client is sent to ask again by a new connection: "+err.Error())
	// The address is whole, as a path may begin like another host's.
	h := http.Header{"Location": {"https://" + x.r.Host + path}, "Cache-Control": {"no-store"}, "Content-Length": {"0"}}
	x.respond(notice.Response{Status: http.StatusTemporaryRedirect, Header: h})
}
