package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// The bounds of connections that are turned away: they have no place among those of clients, and a small one of their own.
const (
	maxLeaving  = 128         // at a time; others are answered and closed at once
	leavingMost = 256 << 10   // bytes, that are read of each
	leavingTime = time.Second // for a request, which nobody reads, to come, and once more for its end
)

// turnAway answers the first request of a connection that is not to be served, whatever it is, and closes it. It returns at
// once. Detail is for the log.
func (s *Server) turnAway(nc net.Conn, c *client, kind notice.Kind, fault, detail string) {
	f := policy.Facts{Protocol: "http", Direction: policy.Download, Client: c.addr.Addr()}
	page := ownPage(s.opt.Pages.Respond("", "", s.opt.Gate.Refuse(f, kind, fault, detail)))
	s.mu.Lock()
	patient := s.leaving < maxLeaving && !s.draining
	if patient {
		s.leaving++
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if !patient {
		_ = nc.SetDeadline(time.Now().Add(leavingTime)) // without it the write still goes into an empty socket buffer
		_, _ = nc.Write(page)                           // a client that does not take it is turned away all the same
		_ = nc.Close()                                  // as above
		return
	}
	go func() {
		defer s.wg.Done()
		defer context.AfterFunc(s.ctx, func() { _ = nc.Close() })() // its work ends by it
		sendOff(nc, page)
		s.mu.Lock()
		s.leaving--
		s.mu.Unlock()
	}()
}

// sendOff has the answer come after the request, as some clients take one that is there before for a mistake, and the end of
// the connection after the answer: unread bytes would make a reset of it that takes the answer along (RFC 9112, 9.6).
func sendOff(nc net.Conn, page []byte) {
	defer nc.Close() //nolint:errcheck // the client has been told
	var b [1 << 10]byte
	if nc.SetDeadline(time.Now().Add(leavingTime)) != nil {
		return
	}
	_, _ = nc.Read(b[:]) // who says nothing is told all the same
	if nc.SetDeadline(time.Now().Add(leavingTime)) != nil {
		return
	}
	if _, err := nc.Write(page); err != nil {
		return
	}
	if closeWrite(nc) == nil {
		_, _ = io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(nc, leavingMost)}, b[:]) // until the deadline
	}
}

// ownPage writes an answer that is the last one of its connection.
func ownPage(resp notice.Response) []byte {
	h := resp.Header.Clone()
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Content-Length", strconv.Itoa(len(resp.Body)))
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", resp.Status, http.StatusText(resp.Status))
	_ = h.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	b.Write(resp.Body)
	return b.Bytes()
}
