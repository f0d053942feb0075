package web

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/scan"

	"golang.org/x/net/http/httpguts"
)

// fromStore serves a request by what is kept of its object, where there is something and the origin says that it is still
// the same; else as any other.
func (x *exchange) fromStore(ctx context.Context, c *call) {
	if !c.partWanted() || !x.s.store.on() {
		x.roundTrip(ctx, c)
		return
	}
	keys := []storeKey{c.storeKey(false), c.storeKey(true)}
	for {
		e, lead, wait := x.s.store.find(keys, x.r.Header)
		if wait == nil {
			x.useStored(ctx, c, e, lead)
			return
		}
		if x.s.store.await(ctx, wait) != nil {
			x.abort() // the client has gone
		}
		if !wait.worked && !wait.gone {
			break // there is nothing to keep: this one waits for nobody any more
		}
	}
	x.roundTrip(ctx, c)
}

// useStored makes the request with e, nil for nothing, and on behalf of those who wait for lead, nil for nobody.
func (x *exchange) useStored(ctx context.Context, c *call, e *stored, lead *flight) {
	if e != nil {
		c.known = e
		c.unknow = sync.OnceFunc(func() { _ = e.object.Body.Close() }) // room is given back; nothing is lost with it
		defer c.unknow()
	}
	if lead != nil {
		key := c.storeKey(false)
		c.lead, c.brought = lead, func(worked bool) { x.s.store.end(key, lead, worked, false) }
		defer func() {
			if !x.detached {
				x.s.store.end(key, lead, false, x.r.Context().Err() != nil)
			}
		}()
	}
	x.roundTrip(ctx, c)
}

// releaseKnown gives up what is kept of the object: the answer was another one, and what is held now must not wait for room
// with that.
func (c *call) releaseKnown() {
	if c.known != nil {
		c.unknow()
		c.known = nil
	}
}

// partWanted says whether the request is for a part of an object, without conditions that the origin alone can judge.
func (c *call) partWanted() bool {
	h := c.r.Header
	if c.r.Method != http.MethodGet || c.upload != nil || c.stream || c.upgrade != "" || len(h["Range"]) != 1 {
		return false
	}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if len(h[name]) > 0 {
			return false
		}
	}
	return !hasDirective(h, "no-store")
}

func (c *call) storeKey(public bool) storeKey {
	k := storeKey{url: c.scheme + "://" + c.to.String() + c.path}
	if !public {
		k.owner = c.facts.Client.String() + " " + c.facts.User
	}
	return k
}

// keepForRanges puts the object that is about to be delivered into the store, where it may be kept.
func (c *call) keepForRanges(resp *http.Response, o *scan.Object, in gate.Intake, codings []string) {
	worked := false
	if c.brought != nil {
		defer func() { c.brought(worked) }()
	}
	if _, inMemory := o.Body.Bytes(); inMemory {
		return // small ones come again as fast
	}
	e := c.keepable(resp, in, codings)
	if e == nil {
		return
	}
	e.object = &scan.Object{Body: o.Body, Name: o.Name, Path: o.Path, Type: o.Type, TransferEncoding: o.TransferEncoding, Known: o.Known}
	worked = c.s.store.put(e)
}

// keepable returns what the store needs to know of an answer, but for its object; nil where it may not be kept.
func (c *call) keepable(resp *http.Response, in gate.Intake, codings []string) *stored {
	if c.r.Method != http.MethodGet || resp.StatusCode != http.StatusOK || len(passTrailers(resp.Trailer)) > 0 || c.upload != nil {
		return nil
	}
	conditions := c.conditions(resp)
	request, ok := chosenBy(c.r.Header, resp.Header, len(in.Encodings)+len(codings) > 0)
	if conditions == nil || !ok || hasDirective(c.r.Header, "no-store") || hasDirective(resp.Header, "no-store") {
		return nil
	}
	h := resp.Header.Clone()
	delete(h, "Content-Length")
	return &stored{key: c.storeKey(public(c.r.Header, resp.Header)), in: in, codings: codings, request: request, header: h, origin: conditions}
}

// conditions returns what asks the origin whether an answer is still the same (RFC 9110, 13.1), nil where it has no strong
// validator (8.8.1).
func (c *call) conditions(resp *http.Response) http.Header {
	if tag := c.originTag; strings.HasPrefix(tag, `"`) && len(tag) > 2 && strings.HasSuffix(tag, `"`) {
		return http.Header{"If-None-Match": {tag}}
	}
	if c.originTag != "" {
		return nil // a weak one: the origin says that the bytes may differ
	}
	modified, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		return nil
	}
	// It could have changed twice in one second (8.8.2.2).
	if date, err := http.ParseTime(resp.Header.Get("Date")); err != nil || date.Sub(modified) < time.Minute {
		return nil
	}
	return http.Header{"If-Modified-Since": {resp.Header.Get("Last-Modified")}}
}

// chosenBy returns the fields of a request that its answer depends on, and says whether another request's answer can be
// known by them (RFC 9111, 4.1). Who asks counts always, although not every origin says so.
func chosenBy(request, answer http.Header, coded bool) (http.Header, bool) {
	names := []string{"Authorization", "Cookie"}
	if coded {
		names = append(names, "Accept-Encoding") // what is delivered depends on it, whatever the origin says
	}
	for _, v := range answer["Vary"] {
		for name := range strings.SplitSeq(v, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name {
			case "*":
				return nil, false
			case "", "Range", "If-Range": // those are served here
			default:
				names = append(names, name)
			}
		}
	}
	h := http.Header{}
	for _, name := range names {
		h[name] = slices.Clone(request[name])
	}
	return h, true
}

// public says whether an answer is for everybody: it says so itself, and neither the request nor the answer is anybody's
// (RFC 9111, 3 and 3.5).
func public(request, answer http.Header) bool {
	if len(request["Authorization"])+len(request["Cookie"])+len(answer["Set-Cookie"]) > 0 || hasDirective(answer, "private") {
		return false
	}
	return hasDirective(answer, "public") || hasDirective(answer, "s-maxage")
}

// hasDirective says whether Cache-Control has a directive (RFC 9111, 5.2).
func hasDirective(h http.Header, name string) bool {
	for _, v := range h["Cache-Control"] {
		for d := range strings.SplitSeq(v, ",") {
			d, _, _ = strings.Cut(d, "=")
			if strings.EqualFold(strings.TrimSpace(d), name) {
				return true
			}
		}
	}
	return false
}

// sentAgain says whether an answer is the object once more, by its strong validator (RFC 9110, 8.8.1), of an origin that answers
// conditions by sending everything: nothing of that needs to be read.
func (e *stored) sentAgain(resp *http.Response, codings []string) bool {
	tag := e.origin.Get("If-None-Match")
	return resp.StatusCode == http.StatusOK && tag != "" && resp.Header.Get("Etag") == tag && len(codings)+len(e.codings)+len(e.in.Encodings) == 0 &&
		resp.ContentLength == e.object.Body.Size()
}

// unchanged serves the part that the client asked for from what is kept, because the origin has said that it is the same: by 304,
// or by beginning to send it again.
func (c *call) unchanged(ctx context.Context, resp *http.Response) {
	e := c.known
	if !e.confirmedBy(resp.Header) {
		// It speaks of another object than the one it was asked about. It is asked without a condition.
		c.s.store.drop(e)
		c.releaseKnown()
		_ = resp.Body.Close() // a 304 has no content
		c.roundTrip(ctx, c)
		return
	}
	c.s.store.confirm(e)
	if c.brought != nil {
		c.brought(true)
	}
	c.facts.Status, c.facts.Type = http.StatusOK, mediaType(e.header)
	if !c.judgedBothWays(c.facts, e.object, e.in, e.codings) {
		return
	}
	whole := *resp
	whole.StatusCode, whole.Header = http.StatusOK, e.freshened(resp.Header)
	c.prepareHead(&whole, whole.Header)
	c.slice(&whole, e.object)
}

// confirmedBy says whether the header of a 304 is about this object.
func (e *stored) confirmedBy(h http.Header) bool {
	if tag := h.Get("Etag"); tag != "" && len(e.origin["If-None-Match"]) > 0 {
		return strings.TrimPrefix(tag, "W/") == e.origin.Get("If-None-Match")
	}
	if modified := h.Get("Last-Modified"); modified != "" {
		return modified == e.header.Get("Last-Modified")
	}
	return true
}

// freshened returns the header of e with what a 304 says anew (RFC 9111, 3.2 and 4.3.4), but for what is said about the content:
// that was judged.
func (e *stored) freshened(h http.Header) http.Header {
	merged := e.header.Clone()
	delete(merged, "Age")
	for name, values := range h {
		if strings.HasPrefix(name, "Content-") || name == "Etag" || name == "Last-Modified" || !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		merged[name] = values
	}
	return merged
}
