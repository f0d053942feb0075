package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"

	peer "github.com/coder/websocket"
)

// wsHead asks for a WebSocket without extensions.
const wsHead = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// socketOrigin echoes messages; "give EICAR" is answered with the test virus.
func socketOrigin(w http.ResponseWriter, r *http.Request) {
	mode := peer.CompressionContextTakeover
	if r.URL.Query().Get("takeover") == "no" {
		mode = peer.CompressionNoContextTakeover
	}
	c, err := peer.Accept(w, r, &peer.AcceptOptions{InsecureSkipVerify: true, CompressionMode: mode, CompressionThreshold: 1, Subprotocols: []string{"echo"}})
	if err != nil {
		return
	}
	c.SetReadLimit(64 << 20)
	defer c.CloseNow() //nolint:errcheck // the test has seen what matters
	for {
		kind, b, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if string(b) == "give EICAR" {
			b = scan.EICAR()
		}
		if c.Write(context.Background(), kind, b) != nil {
			return
		}
	}
}

// socket opens a WebSocket through the gateway.
func (r *rig) socket(url string, mode peer.CompressionMode) *peer.Conn {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	c, resp, err := peer.Dial(ctx, "ws"+strings.TrimPrefix(url, "http"), &peer.DialOptions{
		HTTPClient: r.client(noHTTP2), CompressionMode: mode, CompressionThreshold: 1, Subprotocols: []string{"echo"},
	})
	if err != nil {
		r.t.Fatalf("%s: %v", url, err)
	}
	if offered := mode != peer.CompressionDisabled; offered != (resp.Header.Get("Sec-Websocket-Extensions") != "") || c.Subprotocol() != "echo" {
		r.t.Fatalf("%s: agreed on %v", url, resp.Header)
	}
	c.SetReadLimit(64 << 20)
	r.t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func TestWebSocketMessagesAreCarried(t *testing.T) {
	r := newRig(t)
	plain, secure := r.origin(socketOrigin), r.tlsOrigin(socketOrigin)
	ctx, cancel := patient()
	defer cancel()
	big := strings.Repeat("large \u20ac ", 100_000)
	for name, c := range map[string]*peer.Conn{
		"plain":               r.socket(plain.URL+"/ws", peer.CompressionDisabled),
		"TLS, deflate":        r.socket(secure.URL+"/ws", peer.CompressionContextTakeover),
		"deflate":             r.socket(plain.URL+"/ws", peer.CompressionContextTakeover),
		"deflate, no sharing": r.socket(plain.URL+"/ws?takeover=no", peer.CompressionNoContextTakeover),
	} {
		ponged := make(chan error, 1)
		for i, text := range []string{"hello", "", big, "hello again", big} {
			if err := c.Write(ctx, peer.MessageText, []byte(text)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if i == 3 {
				go func() { ponged <- c.Ping(ctx) }()
			}
			if kind, b, err := c.Read(ctx); err != nil || kind != peer.MessageText || string(b) != text {
				t.Fatalf("%s: message %d: %v, %d bytes, %v", name, i, kind, len(b), err)
			}
		}
		if err := c.Write(ctx, peer.MessageBinary, []byte{0, 0xFF}); err != nil {
			t.Fatal(err)
		}
		if kind, b, err := c.Read(ctx); err != nil || kind != peer.MessageBinary || !bytes.Equal(b, []byte{0, 0xFF}) {
			t.Errorf("%s: %v, %q, %v", name, kind, b, err)
		}
		if err := c.Close(4321, "enough"); err != nil {
			t.Errorf("%s: closing: %v", name, err)
		}
		select {
		case err := <-ponged:
			if err != nil {
				t.Errorf("%s: ping: %v", name, err)
			}
		case <-ctx.Done():
			t.Errorf("%s: no pong", name)
		}
	}
	for _, proto := range []string{"http", "https"} {
		r.audit.wait(t, "the upgrade", func(x audit.Record) bool { return exempted("upgrade to websocket")(x) && x.Facts.Protocol == proto })
	}
	for _, x := range r.audit.list() {
		if x.Event == audit.Object && x.Kind == wsKind {
			t.Errorf("a clean message was recorded: %+v", x)
		}
	}
}

// TestInfectedMessageClosesBothWays: neither direction delivers a virus, whatever its compression; both peers hear why.
func TestInfectedMessageClosesBothWays(t *testing.T) {
	r := newRig(t)
	got := make(chan error, 1)
	var leaked bool
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		c, err := peer.Accept(w, req, &peer.AcceptOptions{CompressionMode: peer.CompressionContextTakeover, CompressionThreshold: 1})
		if err != nil {
			return
		}
		defer c.CloseNow() //nolint:errcheck // the test has seen what matters
		if req.URL.Path == "/down" {
			_ = c.Write(context.Background(), peer.MessageText, scan.EICAR())
		}
		for {
			_, b, err := c.Read(context.Background())
			leaked = leaked || eicarIn(string(b))
			if err != nil {
				got <- err
				return
			}
		}
	})
	ctx, cancel := patient()
	defer cancel()
	for _, mode := range []peer.CompressionMode{peer.CompressionDisabled, peer.CompressionContextTakeover} {
		for _, way := range []policy.Direction{policy.Upload, policy.Download} {
			c, _, err := peer.Dial(ctx, "ws"+strings.TrimPrefix(o.URL, "http")+map[policy.Direction]string{policy.Upload: "/up", policy.Download: "/down"}[way],
				&peer.DialOptions{HTTPClient: r.client(noHTTP2), CompressionMode: mode, CompressionThreshold: 1})
			if err != nil {
				t.Fatal(err)
			}
			if way == policy.Upload {
				if err := c.Write(ctx, peer.MessageBinary, scan.EICAR()); err != nil {
					t.Fatal(err)
				}
			}
			_, b, err := c.Read(ctx)
			record := r.audit.wait(t, "the virus", func(x audit.Record) bool {
				return x.Event == audit.Object && x.Kind == wsKind && x.Facts.Direction == way && x.Verdict.Outcome == scan.Infected &&
					strings.Contains(fmt.Sprint(err), x.Reference)
			})
			for who, err := range map[string]error{"client": err, "origin": <-got} {
				var e peer.CloseError
				if !errors.As(err, &e) || e.Code != peer.StatusPolicyViolation || !strings.Contains(e.Reason, record.Reference) {
					t.Errorf("%s, %v: the %s got %v", way, mode, who, err)
				}
			}
			if eicarIn(string(b)) || leaked {
				t.Errorf("%s: the virus got through", way)
			}
			_ = c.CloseNow()
		}
	}
}

// rawFrame returns a client's frame with a mask of zeros.
func rawFrame(first byte, payload string) string {
	b := []byte{first, 0x80 | 126}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	if len(payload) < 126 {
		b = []byte{first, 0x80 | byte(len(payload))}
	}
	return string(append(b, 0, 0, 0, 0)) + payload
}

// rawSocket opens a WebSocket and speaks it by hand.
func (r *rig) rawSocket(url string) *rawConn {
	r.t.Helper()
	c := r.dial().send("GET " + url + " HTTP/1.1\r\nHost: x\r\n" + wsHead)
	resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodGet})
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		r.t.Fatalf("%+v, %v", resp, err)
	}
	return c
}

// closeCode reads a Close frame and returns its code, after what other frames came.
func (c *rawConn) closeCode() (code int, before string) {
	c.t.Helper()
	b, err := io.ReadAll(c.br)
	if err != nil {
		c.t.Fatalf("%q, %v", b, err)
	}
	at := bytes.IndexByte(b, 0x88)
	if at < 0 || len(b) < at+4 {
		c.t.Fatalf("no Close frame: %q", b)
	}
	return int(binary.BigEndian.Uint16(b[at+2:])), string(b[:at])
}

// TestVirusInFragmentsIsFound: each frame alone is harmless, and a Ping between them passes at once.
func TestVirusInFragmentsIsFound(t *testing.T) {
	r := newRig(t)
	o := r.origin(socketOrigin)
	c := r.rawSocket(o.URL + "/ws")
	virus := eicarText()
	c.send(rawFrame(0x02, virus[:20]) + rawFrame(0x89, "alive?"))
	pong := make([]byte, 8)
	if _, err := io.ReadFull(c.br, pong); err != nil || string(pong) != "\x8a\x06alive?" {
		t.Fatalf("%q, %v", pong, err)
	}
	c.send(rawFrame(0x00, virus[20:21]) + rawFrame(0x80, virus[21:]))
	if code, before := c.closeCode(); code != 1008 || before != "" {
		t.Errorf("%d after %q", code, before)
	}
}

func TestBreachOfTheWebSocketProtocol(t *testing.T) {
	r := newRig(t)
	o := r.origin(socketOrigin)
	for name, c := range map[string]struct {
		frames string
		code   int
	}{
		"unmasked":       {"\x81\x02hi", 1002},
		"RSV1":           {rawFrame(0xC1, "hi"), 1002},
		"not UTF-8":      {rawFrame(0x81, "\xff"), 1007},
		"fragment alone": {rawFrame(0x80, "x"), 1002},
	} {
		raw := r.rawSocket(o.URL + "/ws").send(rawFrame(0x81, "good") + c.frames + strings.Repeat("unread", 1000))
		code, before := raw.closeCode()
		if code != c.code || before != "" && before != "\x81\x04good" {
			t.Errorf("%s: code %d after %q", name, code, before)
		}
	}
	n := 0
	for _, x := range r.audit.list() {
		if x.Event == audit.Refuse && x.Kind == string(notice.BadRequest) && strings.Contains(x.Detail, "WebSocket") {
			n++
		}
	}
	if n != 4 {
		t.Errorf("%d of 4 breaches recorded", n)
	}
}

func TestMessagesThatCannotBeJudgedFollowPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*plan)
		send   string
		code   int
		reason scan.Reason
	}{
		"too large": {func(p *plan) { p.web.WebSocket.MaxMessage = units.KiB }, rawFrame(0x82, strings.Repeat("x", 1025)), 1009, scan.TooLarge},
		"too large, which passes": {func(p *plan) {
			p.web.WebSocket.MaxMessage, p.policy.TooLarge = units.KiB, policy.Pass
		}, rawFrame(0x82, strings.Repeat("x", 1025)), 1009, scan.TooLarge},
		"scanner down":    {func(p *plan) { p.engine = failing{scan.Unavailable} }, rawFrame(0x81, "hi"), 1013, scan.Unavailable},
		"scanner's error": {func(p *plan) { p.engine, p.policy.EngineError = failing{scan.EngineError}, policy.Block }, rawFrame(0x81, "hi"), 1008, scan.EngineError},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.change)
			o := r.origin(socketOrigin)
			if code, before := r.rawSocket(o.URL + "/ws").send(c.send).closeCode(); code != c.code || before != "" {
				t.Errorf("code %d after %q", code, before)
			}
			r.audit.wait(t, "the message", func(x audit.Record) bool { return x.Kind == wsKind && x.Verdict.Reason == c.reason })
		})
	}
	t.Run("scanner down, which passes", func(t *testing.T) {
		r := newRig(t, func(p *plan) { p.engine, p.policy.ScannerDown = failing{scan.Unavailable}, policy.Pass })
		o := r.origin(socketOrigin)
		raw := r.rawSocket(o.URL + "/ws").send(rawFrame(0x81, "hi"))
		b := make([]byte, 4)
		if _, err := io.ReadFull(raw.br, b); err != nil || string(b) != "\x81\x02hi" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// failing is an engine that never judges.
type failing struct{ reason scan.Reason }

func (failing) Name() string { return "failing" }

func (f failing) Scan(context.Context, *scan.Object) (scan.Verdict, error) {
	return scan.IncompleteVerdict(f.reason, "as the test wants it"), nil
}

// TestMessageThatDoesNotEndIsCutOff: frames that trickle in hold nothing for ever.
func TestMessageThatDoesNotEndIsCutOff(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.WebSocket.MessageTime = short })
	o := r.origin(socketOrigin)
	if code, _ := r.rawSocket(o.URL + "/ws").send(rawFrame(0x01, "begun")).closeCode(); code != 1008 {
		t.Errorf("code %d", code)
	}
}

// TestBrokenCompressionIsUndecodable: it goes by policy, and never on.
func TestBrokenCompressionIsUndecodable(t *testing.T) {
	r := newRig(t)
	o := r.origin(socketOrigin)
	head := strings.Replace(wsHead, "Sec-WebSocket-Key", "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key", 1)
	c := r.dial().send("GET " + o.URL + "/ws HTTP/1.1\r\nHost: x\r\n" + head)
	if resp, err := http.ReadResponse(c.br, nil); err != nil || !strings.HasPrefix(resp.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate") {
		t.Fatal(resp, err)
	}
	if code, before := c.send(rawFrame(0xC2, "\xff\xff\xff")).closeCode(); code != 1008 || before != "" {
		t.Errorf("code %d after %q", code, before)
	}
	r.audit.wait(t, "the message", func(x audit.Record) bool { return x.Kind == wsKind && x.Verdict.Reason == scan.Undecodable })
}

// TestExtensionsThatCannotBeReadAreNotOffered, nor accepted.
func TestExtensionsThatCannotBeReadAreNotOffered(t *testing.T) {
	r := newRig(t)
	offered := make(chan string, 4)
	addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		offered <- req.Header.Get("Sec-Websocket-Extensions")
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: x-secret\r\n\r\n")
	})
	for in, want := range map[string]string{
		"x-secret, permessage-deflate; client_max_window_bits": "permessage-deflate; client_max_window_bits",
		"x-secret": "",
	} {
		head := strings.Replace(wsHead, "Sec-WebSocket-Key", "Sec-WebSocket-Extensions: "+in+"\r\nSec-WebSocket-Key", 1)
		resp, body := r.dial().send("GET http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n" + head).response("GET")
		wantPage(t, resp, body, 502, notice.OriginProtocol)
		if got := <-offered; got != want {
			t.Errorf("%s: offered %q", in, got)
		}
	}
}

// TestOldDraftsOfTheWebSocketAreNotSpoken: their frames are different ones.
func TestOldDraftsOfTheWebSocketAreNotSpoken(t *testing.T) {
	r := newRig(t)
	asked := false
	o := r.origin(func(http.ResponseWriter, *http.Request) { asked = true })
	for _, head := range []string{
		strings.Replace(wsHead, "Version: 13", "Version: 8", 1),
		strings.Replace(wsHead, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5", 1),
	} {
		resp, body := r.dial().send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\n" + head).response("GET")
		wantPage(t, resp, body, 501, notice.NotSupported)
	}
	if asked {
		t.Error("the origin was asked")
	}
}

// TestManyMessagesKeepTheirOrder, although several are judged at a time.
func TestManyMessagesKeepTheirOrder(t *testing.T) {
	r := newRig(t)
	o := r.origin(socketOrigin)
	c := r.socket(o.URL+"/ws", peer.CompressionContextTakeover)
	ctx, cancel := patient()
	defer cancel()
	const n = 300
	go func() {
		for i := range n {
			if c.Write(ctx, peer.MessageText, fmt.Appendf(nil, "message %d", i)) != nil {
				return
			}
		}
	}()
	for i := range n {
		if _, b, err := c.Read(ctx); err != nil || string(b) != fmt.Sprintf("message %d", i) {
			t.Fatalf("%d: %q, %v", i, b, err)
		}
	}
}

// TestServiceEndsItsWebSockets: both peers are told before the connections are closed.
func TestServiceEndsItsWebSockets(t *testing.T) {
	r := newRig(t)
	o := r.origin(socketOrigin)
	c := r.rawSocket(o.URL + "/ws")
	eventually(t, "the WebSocket is carried", func() bool { return r.server.Stats().Carried == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := make(chan error, 1)
	r.stopped = true
	go func() { ended <- r.server.Shutdown(ctx) }()
	if code, _ := c.closeCode(); code != 1001 {
		t.Errorf("code %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
