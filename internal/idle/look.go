package idle

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TCPBelow returns the TCP connection that c is made of, through what tells it by a method NetConn or TCPConn, nil where there is none.
func TCPBelow(c net.Conn) *net.TCPConn {
	for range 8 {
		switch v := c.(type) {
		case *net.TCPConn:
			return v
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		case interface{ TCPConn() *net.TCPConn }:
			return v.TCPConn()
		default:
			return nil
		}
	}
	return nil
}

// looks is how often what is there is tried to be read, before it is taken for something unasked.
const looks = 3

// Silent says, without waiting for long, whether there is nothing to read from c, neither something nor its end. tcp is the TCP connection
// below c, or c itself; nil: what is in it is not seen. Where there is something, it may be lost. Nobody else may read meanwhile,
// and there is no read deadline afterwards. Half a TLS record is not seen: nobody knows yet what it will say.
func Silent(c net.Conn, tcp *net.TCPConn) bool {
	layered := c != net.Conn(tcp)
	for range looks {
		there, err := Readable(tcp)
		switch {
		case err != nil:
			return false
		case !there:
			// TLS may have read more from the socket than it has given away: that is asked for without reading any further.
			return !layered || StillSilent(c, longAgo)
		case !layered || !StillSilent(c, time.Now().Add(time.Millisecond)):
			return false
		}
		// Either it was something of TLS's own, or the time was up before anything was read.
	}
	return false
}

// longAgo is a deadline that ends a read at once.
var longAgo = time.Unix(1, 0)

// StillSilent says whether what comes over c until then is nothing for its reader: TLS may have something to say to itself, such as a
// session ticket. There is no read deadline afterwards, where it says true.
func StillSilent(c net.Conn, until time.Time) bool {
	var b [1]byte
	if c.SetReadDeadline(until) != nil {
		return false
	}
	n, err := c.Read(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.SetReadDeadline(time.Time{}) == nil
}

// errEnded is that of a connection whose other side has ended it.
var errEnded = errors.New("the other side has ended the connection")

// Readable says whether there is something to read, or an error, on a TCP connection; nil: there is nothing. The error is that of a
// closed connection, or one whose other side has ended it.
func Readable(t *net.TCPConn) (there bool, err error) {
	if t == nil {
		return false, nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false, err
	}
	ended := false
	err = raw.Control(func(fd uintptr) { there, ended = peek(fd) })
	if err == nil && ended {
		err = errEnded
	}
	return there, err
}

// peek looks for what there is to read. The end is something, too.
func peek(fd uintptr) (there, ended bool) {
	var b [1]byte
	n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return false, false
	}
	return true, err != nil || n == 0
}
