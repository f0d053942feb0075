package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// A client that asks for a part of something large gets nothing until the whole has come and is judged, and one that has less
// patience asks again, and again. So that it gets there, what was begun for it goes on without it, and whoever asks for a part of
// the same object waits for that.

const (
	// outlasting is how long a download goes on whose client has gone and that nobody else waits for.
	outlasting = 2 * time.Minute
	// mostOutlasting is how many such downloads there are at a time, and ownOutlasting how many of one client.
	mostOutlasting, ownOutlasting = 32, 4
)

// errNobodyWaits is why such a download was ended.
var errNobodyWaits = errors.New("the client has gone, and nobody has asked for the object for a while")

// outlasts says whether the fetching of this answer may go on when its client has gone: it is large, and can be kept.
func (c *call) outlasts(resp *http.Response, in gate.Intake, codings []string) bool {
	return c.unbind != nil && c.lead != nil && len(codings) == 0 && resp.ContentLength > int64(c.set.HoldSize) &&
		resp.ContentLength <= in.Limit && c.s.store.holds(resp.ContentLength) && c.keepable(resp, in, codings) != nil
}

// outcome is what came of fetching an object.
type outcome struct {
	object *scan.Object // nil: notice says why not
	notice notice.Notice
}

// takeForOthers takes the content in, has it judged and delivers it, as held does; when the client leaves, it goes on without.
func (c *call) takeForOthers(ctx context.Context, resp *http.Response, in gate.Intake, decode bool) {
	c.unbind() // the client is watched here from now on
	done, left := make(chan outcome), make(chan struct{})
	c.s.wg.Go(func() {
		got := c.bring(ctx, resp, in, decode)
		select {
		case done <- got:
		case <-left:
			c.giveAway(resp, got)
		}
	})
	select {
	case got := <-done:
		if got.object == nil {
			c.page(got.notice)
			return
		}
		defer got.object.Body.Close() //nolint:errcheck // room is given back; nothing is lost with it
		c.deliver(resp, resp.Header, got.object)
	case <-c.r.Context().Done():
		if !c.s.store.outlast(c.storeKey(false), c.lead, func() { c.cancel(errNobodyWaits) }) {
			c.cancel(context.Cause(c.r.Context()))
		}
		c.detach(ctx)
		close(left)
		c.abort()
	}
}

// bring fetches the object for takeForOthers. A panic costs this object alone.
func (c *call) bring(ctx context.Context, resp *http.Response, in gate.Intake, decode bool) (got outcome) {
	defer func() {
		if p := recover(); p != nil {
			n := c.s.opt.Gate.Refuse(c.facts, notice.Internal, "", fmt.Sprintf("panic: %v", p))
			c.s.opt.Log.Error("a download made the proxy panic", "reference", n.Reference, "panic", p, "stack", string(debug.Stack()))
			got = outcome{notice: n}
		}
	}()
	o, n, ok := c.fetch(ctx, resp.Body, resp, in, nil, decode, func() {})
	if !ok {
		return outcome{notice: n}
	}
	return outcome{object: o}
}

// giveAway ends a download whose client has gone. What is clean is in the store now.
func (c *call) giveAway(resp *http.Response, got outcome) {
	_ = resp.Body.Close() // what was left of it is of no interest
	if got.object != nil {
		_ = got.object.Body.Close() // the store has its own reference
	} else if got.notice.Verdict.Outcome == scan.Infected {
		c.s.stopped.remember(c.exchange, got.notice)
	}
	c.s.store.end(c.storeKey(false), c.lead, false, false)
	c.cancel(nil)
}

// holds says whether the store has room for an object of that many bytes, when it gives up all others.
func (s *store) holds(size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return size <= s.max
}

// outlast keeps f, whose client has gone, for those who wait for it, and those who come in the time of outlasting; then, or when
// the last of them has gone for that long, giveUp is called. It says false where there are too many such flights.
func (s *store) outlast(k storeKey, f *flight, giveUp func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, own := 0, 0
	for other, g := range s.flights {
		if g.idle == nil {
			continue
		}
		if all++; other.owner == k.owner {
			own++
		}
	}
	if all >= mostOutlasting || own >= ownOutlasting || s.max == 0 {
		return false
	}
	f.giveUp, f.idle = giveUp, time.AfterFunc(min(outlasting, s.keep), giveUp)
	if f.waiting > 0 {
		f.idle.Stop()
	}
	return true
}

// await waits for a flight that find returned. It returns ctx's error when that ends first.
func (s *store) await(ctx context.Context, f *flight) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.waiting--; f.waiting == 0 && f.idle != nil {
			f.idle.Reset(min(outlasting, s.keep))
		}
	}()
	return f.wait(ctx)
}
