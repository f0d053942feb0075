package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Malformed is what is wrong with a request that cannot be answered by the Handler.
type Malformed struct {
	Status int    // of the answer
	Why    string // what the client may be told; "": nothing in particular
	Err    error  // what net/http says; nil: nothing
}

// Error implements error.
func (m *Malformed) Error() string {
	switch {
	case m.Err != nil && m.Why != "":
		return fmt.Sprintf("%s: %v", m.Why, m.Err)
	case m.Err != nil:
		return m.Err.Error()
	}
	return m.Why
}

// Unwrap is for errors.Is and errors.As.
func (m *Malformed) Unwrap() error { return m.Err }

var errTooLarge = errors.New("the head of the request is too large")

// beyondHead is how much more than MaxHead may be read of a head: net/http's own server has the same allowance for its buffer.
const beyondHead = 4 << 10

// read reads the head of a request. The error is a *Malformed where there is somebody to be told.
func (c *serving) read() (*http.Request, error) {
	b, _ := c.br.Peek(c.br.Buffered()) // they are there
	c.head = append(c.head[:0], b...)
	if !bytes.Contains(b, []byte("\r\n\r\n")) { // else all of it is here
		if err := c.v.Conn.SetReadDeadline(time.Now().Add(c.s.HeadTime)); err != nil {
			return nil, err
		}
	}
	c.recording, c.left = true, c.s.MaxHead+beyondHead-int64(len(b))
	req, err := http.ReadRequest(c.br)
	c.recording = false
	if err != nil && c.left <= 0 {
		err = errTooLarge // else it may be about the line that was cut off
	}
	if err != nil {
		return nil, unreadable(err)
	}
	if m := c.check(req); m != nil {
		return nil, m
	}
	req.RemoteAddr = c.peer
	return req, c.v.Conn.SetReadDeadline(time.Time{})
}

// unreadable returns what a client is told whose request net/http cannot read, or err itself where nobody is left to be told.
func unreadable(err error) error {
	var timeout net.Error
	var read *net.OpError
	switch {
	case errors.Is(err, errTooLarge):
		return &Malformed{Status: http.StatusRequestHeaderFieldsTooLarge, Err: err}
	case errors.Is(err, io.EOF), errors.As(err, &timeout) && timeout.Timeout(), errors.As(err, &read) && read.Op == "read":
		return err
	case strings.Contains(err.Error(), "transfer encoding"): // unsupported, or too many: its type is net/http's own
		return &Malformed{Status: http.StatusNotImplemented, Err: err}
	}
	return &Malformed{Status: http.StatusBadRequest, Err: err}
}

// check says what is wrong with a request that net/http has read, nil for nothing.
func (c *serving) check(req *http.Request) *Malformed {
	bad := func(why string) *Malformed { return &Malformed{Status: http.StatusBadRequest, Why: why} }
	if req.ProtoMajor != 1 {
		return &Malformed{Status: http.StatusHTTPVersionNotSupported, Err: fmt.Errorf("version %q", req.Proto)}
	}
	hosts := fields(c.head, "host")
	switch {
	case len(hosts) == 0 && req.ProtoAtLeast(1, 1) && req.Method != http.MethodConnect:
		return bad("missing required Host header")
	case len(hosts) > 1: // net/http does not see all that differ in case alone
		return bad("too many Host headers")
	case len(hosts) == 1 && !httpguts.ValidHostHeader(hosts[0]), req.URL.Host == "" && !httpguts.ValidHostHeader(req.Host): // a folded line is one value
		return bad("malformed Host header")
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return bad("invalid header name")
		}
		if slices.ContainsFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }) {
			return bad("invalid header value")
		}
	}
	if e := strings.Join(req.Header["Expect"], ","); e != "" && !strings.EqualFold(e, "100-continue") {
		return &Malformed{Status: http.StatusExpectationFailed, Err: fmt.Errorf("expectation %q", e)}
	}
	return nil
}

// expectsContinue says whether a client asks to be told before it sends content (RFC 9110, 10.1.1).
func expectsContinue(req *http.Request) bool {
	return req.Header.Get("Expect") != "" // it was checked
}

// twoLengths says whether the request that was read last had a Content-Length beside its Transfer-Encoding, of which nothing can be
// seen any more: it is read as RFC 9112 (6.3) says.
func (c *serving) twoLengths(req *http.Request) bool {
	return len(req.TransferEncoding) > 0 && len(fields(c.head, "content-length")) > 0
}

// fields returns the values of a field, whose name is in lower case, in the head at the beginning of raw. A value goes to the end of its
// line.
func fields(raw []byte, name string) (values []string) {
	for first := true; ; first = false {
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			return values
		}
		line := bytes.TrimSuffix(raw[:i], []byte("\r"))
		raw = raw[i+1:]
		switch {
		case first:
		case len(line) == 0:
			return values
		case len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name):
			values = append(values, string(bytes.TrimSpace(line[len(name)+1:])))
		}
	}
}
