package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol, https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt.
const (
	maxV1     = 107  // bytes of a header of version 1, its end included
	maxV2     = 4096 // of addresses and extensions; the protocol would allow 65535
	v2Local   = 0x20
	v2Proxy   = 0x21
	v2TCP4    = 0x11
	v2TCP6    = 0x21
	addrsTCP4 = 12
	addrsTCP6 = 36
)

var v2Signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var errHeader = errors.New("PROXY protocol header")

// header is what a PROXY protocol header says; the addresses are not valid where it speaks for the sender itself (LOCAL,
// UNKNOWN).
type header struct {
	source, destination netip.AddrPort
}

// readHeader reads the header in front of a load balancer's connection and takes the client's address from it. Not a byte
// behind it is read.
func (l *Listener) readHeader(c *Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(l.cfg.HeaderTimeout.Std())); err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	l.wg.Go(func() {
		select {
		case <-l.done:
			_ = c.SetReadDeadline(time.Unix(1, 0)) // the listener ends, and does not wait for this
		case <-stop:
		}
	})
	h, err := parseHeader(c.Conn)
	if err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return fmt.Errorf("%w did not come within %v", errHeader, l.cfg.HeaderTimeout)
		}
		return err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if !h.source.IsValid() {
		return nil // the balancer's own connection, to see whether we live
	}
	leave, reason := l.opt.Limits.enter(h.source.Addr())
	if reason != "" {
		l.refused.Add(1)
		return errors.New(reason)
	}
	c.leave() // the balancer is not the one that is counted
	c.leave, c.peer, c.local = leave, h.source, h.destination
	return nil
}

// parseHeader reads a header of version 1 or 2, and no byte more.
func parseHeader(r io.Reader) (header, error) {
	// The shortest header of version 1 is "PROXY UNKNOWN\r\n", 15 bytes, and of version 2 16.
	buf := make([]byte, 15, maxV1)
	if _, err := io.ReadFull(r, buf); err != nil {
		return header{}, headerErr(err)
	}
	if bytes.Equal(buf[:len(v2Signature)], v2Signature) {
		return parseV2(r, buf)
	}
	if !bytes.HasPrefix(buf, []byte("PROXY ")) {
		return header{}, fmt.Errorf("%w: it is missing (the connection begins with %q)", errHeader, buf)
	}
	for !bytes.HasSuffix(buf, []byte("\r\n")) {
		if len(buf) == maxV1 {
			return header{}, fmt.Errorf("%w: longer than %d bytes", errHeader, maxV1)
		}
		buf = buf[:len(buf)+1]
		if _, err := io.ReadFull(r, buf[len(buf)-1:]); err != nil {
			return header{}, headerErr(err)
		}
	}
	return parseV1(string(buf[:len(buf)-2]))
}

// headerErr says that a connection ended in the middle.
func headerErr(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the connection ended within it", errHeader)
	}
	return err
}

// parseV1 reads a line "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443".
func parseV1(line string) (header, error) {
	fields := strings.Split(line, " ")
	if len(fields) >= 2 && fields[1] == "UNKNOWN" {
		return header{}, nil // whatever follows is to be ignored
	}
	if len(fields) != 6 || (fields[1] != "TCP4" && fields[1] != "TCP6") {
		return header{}, fmt.Errorf("%w: %q is not of version 1", errHeader, line)
	}
	var (
		h   header
		err error
	)
	if h.source, err = v1Addr(fields[1], fields[2], fields[4]); err != nil {
		return header{}, err
	}
	if h.destination, err = v1Addr(fields[1], fields[3], fields[5]); err != nil {
		return header{}, err
	}
	return h, nil
}

func v1Addr(family, addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != (family == "TCP4") || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%w: %q is not an address of %s", errHeader, addr, family)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || (len(port) > 1 && port[0] == '0') || strings.HasPrefix(port, "+") {
		return netip.AddrPort{}, fmt.Errorf("%w: %q is not a port", errHeader, port)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// parseV2 reads the rest of a header of version 2, of which 15 bytes are there. Extensions (TLVs) are walked over: nothing
// here depends on them.
func parseV2(r io.Reader, buf []byte) (header, error) {
	last := make([]byte, 1)
	if _, err := io.ReadFull(r, last); err != nil {
		return header{}, headerErr(err)
	}
	buf = append(buf, last...)
	command, family, n := buf[12], buf[13], int(binary.BigEndian.Uint16(buf[14:]))
	if command != v2Local && command != v2Proxy {
		return header{}, fmt.Errorf("%w: version and command %#x are not known", errHeader, command)
	}
	if n > maxV2 {
		return header{}, fmt.Errorf("%w: %d bytes of addresses and extensions, more than %d", errHeader, n, maxV2)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return header{}, headerErr(err)
	}
	switch {
	case command == v2Local:
		return header{}, nil
	case family == v2TCP4 && n >= addrsTCP4:
		return header{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[0:4])), binary.BigEndian.Uint16(body[8:])),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:8])), binary.BigEndian.Uint16(body[10:])),
		}, nil
	case family == v2TCP6 && n >= addrsTCP6:
		return header{
			netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[0:16])).Unmap(), binary.BigEndian.Uint16(body[32:])),
			netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:32])).Unmap(), binary.BigEndian.Uint16(body[34:])),
		}, nil
	}
	return header{}, fmt.Errorf("%w: protocol %#x with %d bytes is not TCP over IPv4 or IPv6", errHeader, family, n)
}
