package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"lazaret/internal/notice"
	"lazaret/internal/relay"
)

// upgradeWanted returns the protocol that a client wants to switch to, "" for none that is carried: HTTP/2 and TLS have
// their own ways in, and would be a way around the gateway here.
func upgradeWanted(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return ""
	}
	protocol := upgradeOf(r.Header)
	for name := range strings.SplitSeq(protocol, ",") {
		name = strings.TrimSpace(name)
		if name == "" || name == "h2c" || strings.HasPrefix(name, "http/") || strings.HasPrefix(name, "tls/") {
			return ""
		}
	}
	return protocol
}

// switched carries an upgraded connection, a WebSocket's most often, until either end has enough. It is recorded as an
// exception.
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
	raw := c.origin.below()
	if raw == nil {
		c.refuse(notice.Internal, "", "an upgraded connection was not there")
		return
	}
	delete(head, "Alt-Svc")
	delete(head, "Content-Length")
	addVia(head, resp.ProtoMajor, resp.ProtoMinor, c.s.pseudonym)
	head["Connection"], head["Upgrade"] = []string{"Upgrade"}, []string{protocol}

	nc, buffered := c.hijack()
	if nc == nil {
		return
	}
	defer c.c.close()
	if len(buffered) > 0 {
		nc = relay.NewPrefixed(nc, buffered)
	}
	err := errors.Join(writeString(nc, "HTTP/1.1 101 Switching Protocols\r\n"), head.Write(nc), writeString(nc, "\r\n"))
	if err != nil {
		_ = nc.Close() // the client has gone
		return
	}
	c.s.carry(nc, &upgraded{Conn: raw, body: origin}, c.facts, "upgrade", "upgrade to "+protocol)
}

// upgraded is an origin's connection after a switch of protocols: what net/http had read ahead comes first.
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
