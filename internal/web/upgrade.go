package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"lazaret/internal/notice"
	"lazaret/internal/relay"
	"lazaret/internal/web/websocket"
)

// webSocket is the name of the one protocol that is understood after a switch.
const webSocket = "websocket"

// upgradeWanted returns the protocol that a client wants to switch to, "" for none that is carried: HTTP/2 and TLS have
// their own ways in, and would be a way around the gateway here. Of several only the WebSocket is asked for, whose messages
// can be inspected.
func upgradeWanted(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return ""
	}
	protocol := upgradeOf(r.Header)
	var names []string
	for name := range strings.SplitSeq(protocol, ",") {
		name = strings.TrimSpace(name)
		if name == "" || name == "h2c" || strings.HasPrefix(name, "http/") || strings.HasPrefix(name, "tls/") {
			return ""
		}
		names = append(names, name)
	}
	for _, name := range names {
		if bare, _, _ := strings.Cut(name, "/"); bare == webSocket {
			return webSocket
		}
	}
	return protocol
}

// offerWebSocket prepares the header of a request that asks for a WebSocket, so that only what can be inspected is offered.
// It returns the extensions that are. The error says why the request cannot be sent: older drafts of the protocol have
// other frames, which nobody here could read (RFC 6455, 4.4).
func offerWebSocket(r *http.Request, h http.Header) (extensions string, err error) {
	if v := h["Sec-Websocket-Version"]; len(v) != 1 || v[0] != "13" {
		return "", fmt.Errorf("version %q of the WebSocket protocol cannot be inspected: 13 can (RFC 6455)", strings.Join(v, ", "))
	}
	if r.Method != http.MethodGet || len(h["Sec-Websocket-Key"]) != 1 {
		return "", errors.New("the request for a WebSocket is malformed (RFC 6455, 4.1)")
	}
	extensions = websocket.Offer(h["Sec-Websocket-Extensions"])
	delete(h, "Sec-Websocket-Extensions")
	if extensions != "" {
		h["Sec-Websocket-Extensions"] = []string{extensions}
	}
	return extensions, nil
}

// switched carries an upgraded connection until either end has enough: a WebSocket message by message. Other protocols are
// recorded as an exception.
func (c *call) switched(resp *http.Response) {
	protocol := upgradeOf(resp.Header)
	origin, ok := resp.Body.(io.ReadWriteCloser)
	if c.upgrade == "" || protocol == "" || !ok || !strings.EqualFold(protocol, c.upgrade) {
		c.refuse(notice.OriginProtocol, "the site switched to a protocol that nobody asked for", fmt.Sprintf("%q, asked for %q", protocol, c.upgrade))
		return
	}
	head := resp.Header
	dropHopByHop(head)
	if err := settle(head); err != nil {
		c.refuse(notice.OriginProtocol, err.Error(), "")
		return
	}
	var agreed websocket.Agreement
	if protocol == webSocket {
		var err error
		if agreed, err = websocket.Agreed(head["Sec-Websocket-Extensions"], c.extensions); err != nil {
			c.refuse(notice.OriginProtocol, "the site's answer to the request for a WebSocket is not one", err.Error())
			return
		}
	}
	raw := c.origin.below()
	if raw == nil {
		c.refuse(notice.Internal, "", "an upgraded connection was not there")
		return
	}
	delete(head, "Alt-Svc")
	delete(head, "Content-Length")
	addVia(head, resp.ProtoMajor, resp.ProtoMinor, c.s.pseudonym)
	head["Connection"], head["Upgrade"] = []string{"Upgrade"}, []string{protocol}

	c.leaveTurn() // it may last for hours
	nc, buffered := c.hijack()
	if nc == nil {
		return
	}
	defer c.c.close()
	if len(buffered) > 0 {
		nc = relay.NewPrefixed(nc, buffered)
	}
	err := errors.Join(nc.SetWriteDeadline(time.Now().Add(c.set.StallTimeout.Std())),
		writeString(nc, "HTTP/1.1 101 Switching Protocols\r\n"), head.Write(nc), writeString(nc, "\r\n"), nc.SetWriteDeadline(time.Time{}))
	if err != nil {
		_ = nc.Close() // the client has gone
		return
	}
	if up := (&upgraded{Conn: raw, body: origin}); protocol == webSocket {
		c.s.relayWebSocket(nc, up, agreed, c.facts)
	} else {
		c.s.carry(nc, up, c.facts, "upgrade", "upgrade to "+protocol)
	}
}

// upgraded is an origin's connection after a switch of protocols: what was read ahead comes first.
type upgraded struct {
	net.Conn
	body io.ReadWriteCloser
}

// Read implements net.Conn.
func (u *upgraded) Read(p []byte) (int, error) { return u.body.Read(p) }

// CloseWrite ends the sending side.
func (u *upgraded) CloseWrite() error { return closeWrite(u.Conn) }

// Close implements net.Conn.
func (u *upgraded) Close() error { return errors.Join(u.body.Close(), ignoreClosed(u.Conn.Close())) }

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
