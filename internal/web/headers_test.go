package web

import (
	"maps"
	"net/http"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// head makes a header of "Name: value" lines.
func head(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

func TestHopByHopHeadersGo(t *testing.T) {
	h := head("Connection: keep-alive, X-Mine, , close", "X-Mine: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x", "TE: trailers",
		"Trailer: X", "Transfer-Encoding: chunked", "Upgrade: websocket", "Proxy-Authorization: Basic eDp5", "Proxy-Authenticate: x",
		"HTTP2-Settings: x", "Accept: */*", "X-Other: 2")
	dropHopByHop(h)
	if want := head("Accept: */*", "X-Other: 2"); !reflect.DeepEqual(h, want) {
		t.Errorf("left: %v, want %v", h, want)
	}
}

func TestViaAndLoops(t *testing.T) {
	h := head("Via: 1.0 fred, 1.1 p.example.net (Apache/1.1)")
	if looped(h, "lazaret-1") {
		t.Error("a loop where there is none")
	}
	addVia(h, 2, 0, "lazaret-1")
	if got := h.Get("Via"); got != "1.0 fred, 1.1 p.example.net (Apache/1.1), 2 lazaret-1" || len(h["Via"]) != 1 {
		t.Errorf("Via: %q", h["Via"])
	}
	if !looped(h, "lazaret-1") || looped(h, "lazaret-") {
		t.Error("the loop was not recognised, or another one's name was")
	}
	if !looped(head("Via: 1.1 other", "Via: 1.1 lazaret-1 (comment)"), "lazaret-1") {
		t.Error("the loop in a second line was not recognised")
	}
}

func TestAcceptEncodingOffersOnlyWhatIsDecoded(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"gzip, deflate, br, zstd", "gzip, deflate, br, zstd"},
		{"gzip;q=1.0, compress, *;q=0.5", "gzip;q=1.0"},
		{"dcb, dcz, compress", "identity"},
		{"identity", "identity"},
		{"", "identity"},
		{"GZIP", "GZIP"},
		{"*", "identity"},
	} {
		h := head("Accept-Encoding: " + c.in)
		acceptable(h)
		if got := h["Accept-Encoding"]; len(got) != 1 || got[0] != c.want {
			t.Errorf("%q became %q, want %q", c.in, got, c.want)
		}
	}
	h := head("Accept: x")
	acceptable(h)
	if _, ok := h["Accept-Encoding"]; ok {
		t.Error("something was said for a client that said nothing")
	}
}

func TestAccepted(t *testing.T) {
	for _, c := range []struct {
		header, codings string
		want            bool
	}{
		{"gzip, br", "gzip", true},
		{"gzip, br", "gzip br", true},
		{"gzip", "gzip br", false},
		{"gzip;q=0", "gzip", false},
		{"gzip;q=0.000, *", "gzip", false},
		{"gzip; q=0.5", "gzip", true},
		{"*", "br", true},
		{"*;q=0", "br", false},
		{"*;q=0, br", "br", true},
		{"gzip", "x-gzip", true},
		{"x-gzip", "gzip", true},
		{"", "gzip", false},
		{"identity", "", true},
	} {
		if got := accepted(head("Accept-Encoding: "+c.header), strings.Fields(c.codings)); got != c.want {
			t.Errorf("%q accepts %q: %v", c.header, c.codings, got)
		}
	}
	if accepted(http.Header{}, []string{"gzip"}) {
		t.Error("a client that said nothing is taken to have asked")
	}
}

func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want http.Header // want nil: an error
	}{
		{"single", head("Content-Type: text/html", "Etag: \"a\""), head("Content-Type: text/html", "Etag: \"a\"")},
		{"same twice", head("Location: /a", "Location: /a"), head("Location: /a")},
		{"two locations", head("Location: /a", "Location: /b"), nil},
		{"two dispositions", head("Content-Disposition: inline", "Content-Disposition: attachment"), nil},
		{"two ranges", head("Content-Range: bytes 0-1/2", "Content-Range: bytes 0-2/3"), nil},
		{"two types", head("Content-Type: text/plain", "Content-Type: text/html"), head("Content-Type: text/html")},
		{"two types, the last broken", head("Content-Type: text/plain", "Content-Type: ;;"), head("Content-Type: text/plain")},
		{"two validators", head("Etag: \"a\"", "Etag: \"b\"", "X: y"), head("X: y")},
		{"control character", head("X: a\x01b"), nil},
		{"newline", head("X: a\nSet-Cookie: b"), nil},
		{"cookies may be many", head("Set-Cookie: a", "Set-Cookie: b"), head("Set-Cookie: a", "Set-Cookie: b")},
		{"bytes above ASCII", head("X: \xe9t\xe9"), head("X: \xe9t\xe9")},
	} {
		h := c.in.Clone()
		err := settle(h)
		if (err != nil) != (c.want == nil) || err == nil && !reflect.DeepEqual(h, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, h, err, c.want)
		}
	}
}

func TestTags(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{`"abc"`, `"abc.lazaret-identity"`},
		{`W/"abc"`, `W/"abc"`},
		{`"abc.lazaret-identity"`, `"abc.lazaret-identity"`},
		{`abc`, `abc`},
		{`"`, `"`},
		{``, ``},
	} {
		h := head("Etag: " + c.in)
		markDecoded(h)
		if got := h.Get("Etag"); got != c.out {
			t.Errorf("%s became %s, want %s", c.in, got, c.out)
		}
	}
	h := head(`If-None-Match: "a.lazaret-identity", W/"b"`, `If-Match: "c"`)
	if !originTags(h) || h.Get("If-None-Match") != `"a", W/"b"` || h.Get("If-Match") != `"c"` {
		t.Errorf("on the way to the origin: %v", h)
	}
	if originTags(head(`If-Match: "c"`)) {
		t.Error("a mark was seen where there is none")
	}
}

func TestTrailersThatWouldChangeTheHeadStay(t *testing.T) {
	in := head("Grpc-Status: 0", "X-Checksum: 1", "Content-Digest: x", "Content-Type: text/html", "Content-Encoding: gzip",
		"Set-Cookie: a=b", "Transfer-Encoding: chunked", "Connection: close", "Content-Length: 5", "X-Bad: a\x00")
	got := slices.Sorted(maps.Keys(passTrailers(in)))
	if want := []string{"Content-Digest", "Grpc-Status", "X-Checksum"}; !slices.Equal(got, want) {
		t.Errorf("passed: %v, want %v", got, want)
	}
}

func TestUpgradeOf(t *testing.T) {
	for _, c := range []struct{ connection, upgrade, want string }{
		{"Upgrade", "WebSocket", "websocket"},
		{"keep-alive, upgrade", "websocket", "websocket"},
		{"keep-alive", "websocket", ""},
		{"upgrade", "", ""},
	} {
		h := head("Connection: " + c.connection)
		if c.upgrade != "" {
			h.Set("Upgrade", c.upgrade)
		}
		if got := upgradeOf(h); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func FuzzHeaderLists(f *testing.F) {
	f.Add("gzip;q=0.5, *;q=0", "close, x-y", "1.1 a, 2 b (c)")
	f.Add(",,;=,\"", ",", " ")
	f.Fuzz(func(t *testing.T, encoding, connection, via string) {
		h := http.Header{"Accept-Encoding": {encoding}, "Connection": {connection}, "Via": {via}, "Content-Encoding": {encoding}}
		acceptable(h)
		for element := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
			name, _, _ := strings.Cut(element, ";")
			if name = strings.ToLower(textproto.TrimString(name)); name != "identity" && !slices.Contains(supported, name) {
				t.Fatalf("%q offers %q", encoding, name)
			}
		}
		dropHopByHop(h)
		if h.Get("Connection") != "" {
			t.Fatal("Connection is still there")
		}
		addVia(h, 1, 1, "lazaret-x")
		if !looped(h, "lazaret-x") {
			t.Fatalf("Via %q hides a loop", h["Via"])
		}
	})
}
