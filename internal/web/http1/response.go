package http1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// response is the answer to a request. It implements http.ResponseWriter, Taker, and what http.ResponseController asks for. Its head goes
// out with the first of its content that does not fit into smallContent, or when it is flushed.
type response struct {
	c       *serving
	req     *http.Request
	content *incoming // nil: the request has none
	header  http.Header
	closes  bool // the connection ends with this answer
	taken   bool

	mu       sync.Mutex
	over     error // why nothing can be answered any more; nil: it can
	status   int   // 0: not decided yet
	length   int64 // of the content; -1: not known
	framed   bool  // the head is complete
	chunked  bool
	written  int64
	small    []byte // content that waits for its length to be known
	trailers []string
}

// smallContent is how much content without a length waits for its end, so that it gets one.
const smallContent = 2 << 10

var (
	errTaken = errors.New("the connection was taken over")
	errOver  = errors.New("the answer has come to its end")
)

func newResponse(c *serving, req *http.Request) *response {
	w := &response{c: c, req: req, header: http.Header{}, length: -1}
	w.closes = req.Close || c.twoLengths(req) || c.s.Last()
	if req.Body != nil && req.Body != http.NoBody {
		w.content = &incoming{c: c, w: w, length: req.ContentLength, original: req, expects: req.ProtoAtLeast(1, 1) && expectsContinue(req)}
	}
	return w
}

// request returns the request for the Handler.
func (w *response) request(ctx context.Context) *http.Request {
	r := w.req.WithContext(ctx)
	if w.content != nil {
		r.Body, w.content.request = w.content, r
	}
	return r
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Informational answers go out at once.
func (w *response) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.settle()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over != nil || w.status != 0:
	case status < 100 || status > 999:
		panic(fmt.Sprintf("status %d is none", status))
	case status < http.StatusOK && status != http.StatusSwitchingProtocols:
		w.statusLine(status)
		_ = w.header.WriteSubset(w.c.bw, map[string]bool{"Content-Length": true, "Transfer-Encoding": true}) // its error comes with Flush
		_, _ = w.c.bw.WriteString("\r\n")                                                                    // as above
		_ = w.c.bw.Flush()                                                                                   // the final answer fails, too
	default:
		w.begin(status)
	}
}

// settle decides whether the connection can go on after the answer, whose head is about to be sent.
func (w *response) settle() {
	w.mu.Lock()
	decided := w.status != 0 || w.over != nil
	w.mu.Unlock()
	if decided || w.content == nil {
		return
	}
	if !w.content.arrives(w.closes || asksToClose(w.header)) {
		w.closes = true
	}
}

func asksToClose(h http.Header) bool {
	return httpguts.HeaderValuesContainsToken(h["Connection"], "close")
}

func (w *response) statusLine(status int) {
	version, text := "HTTP/1.0 ", http.StatusText(status)
	if w.req.ProtoAtLeast(1, 1) {
		version = "HTTP/1.1 "
	}
	if text == "" {
		text = "status code " + strconv.Itoa(status)
	}
	for _, s := range []string{version, strconv.Itoa(status), " ", text, "\r\n"} {
		_, _ = w.c.bw.WriteString(s) // its error comes again
	}
}

// framing are the fields that frame writes, not those of the Handler.
var framing = map[string]bool{"Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// begin writes what of the head does not depend on how long the content is. The lock is held.
func (w *response) begin(status int) {
	w.status = status
	w.closes = w.closes || asksToClose(w.header)
	if v := w.header["Content-Length"]; len(v) > 0 {
		if n, err := strconv.ParseUint(v[0], 10, 63); err == nil {
			w.length = int64(n)
		}
	}
	for _, v := range w.header["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); httpguts.ValidTrailerHeader(name) {
				w.trailers = append(w.trailers, name)
			}
		}
	}
	exclude := framing
	if !w.bodyAllowed() && status == http.StatusNotModified {
		exclude = map[string]bool{"Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Content-Type": true}
	}
	w.statusLine(status)
	if _, ok := w.header["Date"]; !ok {
		var b [64]byte
		date := time.Now().UTC().AppendFormat(append(b[:0], "Date: "...), http.TimeFormat)
		_, _ = w.c.bw.Write(append(date, "\r\n"...)) // its error comes again
	}
	_ = w.header.WriteSubset(w.c.bw, exclude) // as above
}

// bodyAllowed says whether a final answer may have content (RFC 9110, 6.4.1).
func (w *response) bodyAllowed() bool {
	return w.status >= http.StatusOK && w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// frame completes the head. ended says that no more content comes than there is. The lock is held.
func (w *response) frame(ended bool) {
	w.framed = true
	head, keeps := w.req.Method == http.MethodHead, true
	switch {
	case !w.bodyAllowed():
	case w.length >= 0:
	case ended && !w.hasTrailers() && !head:
		w.length = int64(len(w.small))
	case ended && !w.hasTrailers() && w.written > 0 && w.written <= smallContent: // as a GET would have it
		w.length = w.written
	case head:
	case w.req.ProtoAtLeast(1, 1):
		w.chunked = true
	default: // the end of the connection is that of the content
		w.closes, keeps = true, false
	}
	var line [128]byte
	b := line[:0]
	if w.length >= 0 && w.bodyAllowed() {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), w.length, 10), "\r\n"...)
	}
	if w.chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if len(w.trailers) > 0 {
			b = append(append(append(b, "Trailer: "...), strings.Join(w.trailers, ", ")...), "\r\n"...)
		}
	}
	if options := w.connection(keeps); len(options) > 0 {
		b = append(append(append(b, "Connection: "...), strings.Join(options, ", ")...), "\r\n"...)
	}
	_, _ = w.c.bw.Write(append(b, "\r\n"...)) // its error comes again
}

// connection returns what the field Connection says (RFC 9110, 7.6.1): what the Handler wants it to, and whether the connection goes on.
func (w *response) connection(keeps bool) (options []string) {
	switch is11 := w.req.ProtoAtLeast(1, 1); {
	case w.closes && (is11 || asksToClose(w.header)):
		options = append(options, "close")
	case !w.closes && !is11 && keeps:
		options = append(options, "keep-alive")
	}
	for _, v := range w.header["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			if option = strings.TrimSpace(option); httpguts.ValidHeaderFieldName(option) && !strings.EqualFold(option, "close") && !strings.EqualFold(option, "keep-alive") {
				options = append(options, option)
			}
		}
	}
	return options
}

// hasTrailers says whether the Handler has announced trailers, or has set some, that can be sent.
func (w *response) hasTrailers() bool {
	if !w.req.ProtoAtLeast(1, 1) {
		return false
	}
	if len(w.trailers) > 0 {
		return true
	}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK) // unless there is another one
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over != nil:
		return 0, w.over
	case !w.bodyAllowed():
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.written+int64(len(p)) > w.length:
		w.closes = w.closes || w.req.Method != http.MethodHead
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	switch {
	case w.req.Method == http.MethodHead:
		return len(p), nil
	case !w.framed && w.length < 0 && len(w.small)+len(p) <= smallContent:
		w.small = append(w.small, p...)
		return len(p), nil
	}
	if err := w.putSmall(false); err != nil {
		return 0, err
	}
	return w.put(p)
}

// putSmall completes the head, if it is not, and writes the content that has waited for it. The lock is held.
func (w *response) putSmall(ended bool) error {
	if w.framed {
		return nil
	}
	w.frame(ended)
	_, err := w.put(w.small)
	w.small = nil
	return err
}

// put writes content. The lock is held.
func (w *response) put(p []byte) (int, error) {
	if len(p) == 0 || !w.chunked {
		return w.c.bw.Write(p)
	}
	var size [24]byte
	if _, err := w.c.bw.Write(append(strconv.AppendInt(size[:0], int64(len(p)), 16), "\r\n"...)); err != nil {
		return 0, err
	}
	n, err := w.c.bw.Write(p)
	if err == nil {
		_, err = w.c.bw.WriteString("\r\n")
	}
	return n, err
}

// FlushError sends what there is.
func (w *response) FlushError() error {
	w.WriteHeader(http.StatusOK) // unless there is another one
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over != nil {
		return w.over
	}
	return errors.Join(w.putSmall(false), w.c.bw.Flush())
}

// finish sends what there is when the Handler has returned.
func (w *response) finish() error {
	w.WriteHeader(http.StatusOK) // unless there is another one
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.putSmall(true); err != nil {
		return err
	}
	if w.chunked {
		_, _ = w.c.bw.WriteString("0\r\n") // its error comes with Flush
		_ = w.trailer().Write(w.c.bw)      // as above
		_, _ = w.c.bw.WriteString("\r\n")  // as above
	}
	if w.bodyAllowed() && w.req.Method != http.MethodHead && w.length >= 0 && w.written != w.length {
		w.closes = true // what was announced is missing
	}
	return w.c.bw.Flush()
}

// trailer returns the trailers that the Handler has set (RFC 9110, 6.5).
func (w *response) trailer() http.Header {
	t := http.Header{}
	for _, name := range w.trailers {
		if v, ok := w.header[name]; ok {
			t[name] = v
		}
	}
	for name, values := range w.header {
		if bare, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			t[bare] = append(t[bare], values...)
		}
	}
	return t
}

// goAhead tells a client that waits for it that it may send its content.
func (w *response) goAhead() {
	w.mu.Lock()
	defer w.mu.Unlock()
	nc := w.c.v.Conn
	if w.status != 0 || w.over != nil || nc.SetWriteDeadline(time.Now().Add(w.c.s.Stall())) != nil {
		return
	}
	_, _ = w.c.bw.WriteString("HTTP/1.1 100 Continue\r\n\r\n") // its error comes with Flush
	if w.c.bw.Flush() == nil {
		_ = nc.SetWriteDeadline(time.Time{}) // it fails where the connection has ended
	}
}

// SetReadDeadline is for http.ResponseController.
func (w *response) SetReadDeadline(t time.Time) error { return w.c.v.Conn.SetReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (w *response) SetWriteDeadline(t time.Time) error { return w.c.v.Conn.SetWriteDeadline(t) }

// Take implements Taker.
func (w *response) Take() (nc net.Conn, ahead []byte, err error) {
	w.c.s.lookouts.leave(w.c)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over != nil:
		return nil, nil, w.over
	case w.status != 0:
		return nil, nil, errors.New("the connection cannot be taken: it is being answered")
	case w.content != nil && !w.content.whole():
		return nil, nil, errors.New("the connection cannot be taken: there is more of the request's content")
	}
	if err := w.c.v.Conn.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	w.taken, w.over = true, errTaken
	return w.c.v.Conn, w.c.giveUp(), nil
}

// end has whoever still has the answer or the request's content find that they have come to their end. It says false where the content is
// being read at this moment, and with it the connection's buffer.
func (w *response) end() bool {
	w.mu.Lock()
	if w.over == nil {
		w.over = errOver
	}
	w.mu.Unlock()
	return w.content == nil || w.content.retire()
}
