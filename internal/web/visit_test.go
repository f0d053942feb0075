package web

import (
	"net/http"
	"sync/atomic"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
)

// breaking is a Renderer that panics the first time.
type breaking struct {
	Renderer
	done atomic.Bool
}

func (b *breaking) Respond(accept, language string, n notice.Notice) notice.Response {
	if b.done.CompareAndSwap(false, true) {
		panic("at work")
	}
	return b.Renderer.Respond(accept, language, n)
}

// A fault outside of every exchange costs one connection, and leaves nothing behind.
func TestPanicOutsideOfARequestEndsItsConnectionAlone(t *testing.T) {
	r := newRig(t)
	r.server.opt.Pages = &breaking{Renderer: r.server.opt.Pages}
	c := r.dial().send("mistake\r\n\r\n")
	if said := c.ends("a connection whose visit panicked"); said != "" {
		t.Errorf("it was answered by %q", said)
	}
	eventually(t, "nothing is left of it", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return len(r.server.visits) == 0 && r.server.limits.count() == 0 && r.server.idle.count() == 0
	})
	u := r.origin(virusOrigin).URL
	if resp, body := r.dial().send("GET " + u + "/clean HTTP/1.1\r\nHost: x\r\n\r\n").response("GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s, %s", resp.Status, body)
	}
	r.audit.wait(t, "a record of it", func(x audit.Record) bool { return x.Kind == string(notice.Internal) })
}
