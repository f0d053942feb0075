package web

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// countdown returns Max-Forwards less one (RFC 9110, 7.6.2), -1 where this is the end of the way; ok is false where the
// request has no usable one.
func countdown(h http.Header) (n int, ok bool) {
	v := h["Max-Forwards"]
	if len(v) != 1 {
		return 0, false
	}
	u, err := strconv.ParseUint(strings.TrimSpace(v[0]), 10, 16)
	if err != nil {
		return 0, false
	}
	return int(u) - 1, true
}

// toSelfOptions answers an OPTIONS request whose way ends here.
func (x *exchange) toSelfOptions() {
	h := x.w.Header()
	h.Set("Allow", "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE")
	h.Set("Content-Length", "0")
	addVia(h, x.r.ProtoMajor, x.r.ProtoMinor, x.s.pseudonym)
	x.sendHead(http.StatusOK)
}

// echo answers a TRACE request whose way ends here with what arrived, but for what is secret (RFC 9110, 9.3.8).
func (x *exchange) echo() {
	var b bytes.Buffer
	b.WriteString(x.r.Method + " " + x.r.RequestURI + " " + x.r.Proto + "\r\nHost: " + x.r.Host + "\r\n")
	shown := x.r.Header.Clone()
	for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
		delete(shown, name)
	}
	_ = shown.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	h := x.w.Header()
	h.Set("Content-Type", "message/http")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	addVia(h, x.r.ProtoMajor, x.r.ProtoMinor, x.s.pseudonym)
	x.sendHead(http.StatusOK)
	x.soon()
	_, _ = x.w.Write(b.Bytes()) // a client that does not take it has no further consequence
}
