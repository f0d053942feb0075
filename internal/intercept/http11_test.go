package intercept

import (
	"crypto/tls"
	"errors"
	"slices"
	"testing"
)

// h2Session opens a session by HTTP/2, or by HTTP/1.1 where the origin wants that.
func h2Session(t *testing.T, i *Interceptor, d *door, protos ...string) *Session {
	t.Helper()
	c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: "site.example", NextProtos: protos})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return d.session(t)
}

func TestFallBackHoldsForWhatWasOpenBefore(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", newOrigin(t, root.leaf([]string{"site.example"}, nil))))
	one, two, alone := h2Session(t, i, d, "h2", "http/1.1"), h2Session(t, i, d, "h2", "http/1.1"), h2Session(t, i, d, "h2")
	for n, s := range []*Session{one, one, two} {
		if s.Proto != "h2" || !s.FallBack() {
			t.Errorf("request %d: by %s, and it does not fall back", n, s.Proto)
		}
	}
	if alone.FallBack() {
		t.Error("a client of HTTP/2 alone is to come by HTTP/1.1")
	}
	if s := h2Session(t, i, d, "h2", "http/1.1"); s.Proto != "http/1.1" || s.FallBack() {
		t.Errorf("a connection made later is by %s, or falls back", s.Proto)
	}
	if (*Session)(nil).FallBack() {
		t.Error("no session falls back")
	}
}

func TestOriginThatHasHTTP2OnlyIsReachedAgain(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root)
	only := rawOrigin(t, &tls.Config{
		Certificates: []tls.Certificate{root.leaf([]string{"site.example"}, nil)}, NextProtos: []string{"h2"},
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if !slices.Contains(h.SupportedProtos, "h2") { // crypto/tls itself goes on without a protocol
				return nil, errors.New("HTTP/2 alone")
			}
			return nil, nil
		},
	})
	target := to("site.example", only)
	i.http11.put(learnedKey("site.example", target), struct{}{}, i.now().Add(http11Life)) // as it was before
	d := openDoor(t, i, target)
	if s := h2Session(t, i, d, "h2", "http/1.1"); s.Fault == nil {
		t.Fatalf("by %s, without a fault", s.Proto)
	}
	if s := h2Session(t, i, d, "h2", "http/1.1"); s.Fault != nil || s.Proto != "h2" {
		t.Errorf("by %s, fault %v", s.Proto, s.Fault)
	}
}
