package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"lazaret/internal/gate"
	"lazaret/internal/media"
	"lazaret/internal/mixed"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/unpack"
)

// mayBeEndless says whether an answer may go on for ever: one that says how long it is, or that it is to be saved, has an end.
func mayBeEndless(resp *http.Response) bool {
	return resp.ContentLength < 0 && !strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Disposition")), "attachment")
}

// endless says why an answer cannot be held until its end, "" where it can: a stream of events or of pictures. Those of messages
// are answering's.
func endless(resp *http.Response) string {
	if !mayBeEndless(resp) {
		return ""
	}
	switch mediaType(resp.Header) {
	case "text/event-stream":
		return eventStream
	case replacing:
		if mixed.Boundary(resp.Header.Get("Content-Type")) != "" { // else nobody could find anything in it
			return replacing
		}
	}
	return ""
}

const (
	eventStream = "event stream"
	replacing   = "multipart/x-mixed-replace"
)

// streamKinds are the words that metrics count streams by.
var streamKinds = map[string]string{eventStream: "event-stream", replacing: "mixed-replace", "gRPC": "grpc", "gRPC-Web": "grpc-web", "Connect": "connect"}

const (
	// listening is why audio and video pass without being held, and playing the word that metrics count them by.
	listening = "audio or video without an end"
	playing   = "media"
	// mediaHead is how much may come before it is known whether audio is audio: what is not by then is held.
	mediaHead = 64 << 10
)

// playable returns what follows an answer that may be audio or video without an end (radio), nil where it is a file: those have
// a length, or something to ask for them again by.
func playable(r *http.Request, resp *http.Response, codings []string) *media.Stream {
	h := resp.Header
	if r.Method != http.MethodGet || resp.StatusCode != http.StatusOK || resp.ContentLength >= 0 || len(codings) > 0 ||
		len(h["Etag"])+len(h["Last-Modified"])+len(h["Content-Disposition"]) > 0 || strings.EqualFold(h.Get("Accept-Ranges"), "bytes") {
		return nil
	}
	metaint, err := strconv.Atoi(h.Get("Icy-Metaint"))
	if err != nil || metaint < 0 {
		metaint = 0
	}
	return media.New(mediaType(h), metaint)
}

// played passes audio and video on as it comes, where m finds that it is, and says whether it was. Otherwise the answer is as it
// was.
func (c *call) played(ctx context.Context, resp *http.Response, m *media.Stream) bool {
	dog := newWatchdog(c.set.pacing, func(err error) { c.cancel(err) })
	r := &watchedReader{resp.Body, dog}
	var head []byte
	var err error
	buf := make([]byte, 4<<10)
	for err == nil && !m.Sure() && len(head) < mediaHead {
		var n int
		n, err = r.Read(buf)
		head = append(head, buf[:n]...)
		if m.Next(buf[:n]) != nil {
			break
		}
	}
	if slow := dog.stop(); slow != nil {
		err = slow
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.brokeOff(ctx, err)
		return true
	}
	resp.Body = readCloser{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	if !m.Sure() || err != nil {
		return false // when all of it is here already, it is no stream either
	}
	if c.mayStream(playing, listening+", scanned by window") {
		c.relayed(ctx, resp, c.s.opt.Gate.Play(ctx, c.facts, playing, playable(c.r, resp, nil), resp.Body), nil)
	}
	return true
}

// readCloser reads by one and closes by the other.
type readCloser struct {
	io.Reader
	io.Closer
}

// mayStream says whether policy has an answer flow on before it is whole, which is recorded. Else the client has been told.
func (c *call) mayStream(kind, why string) bool {
	d, n := c.s.opt.Gate.Streams(c.facts, kind, why)
	if d.Action != policy.Pass {
		c.page(n)
	}
	return d.Action == policy.Pass
}

// streamed passes an answer on as it comes. Its codings are undone: what is judged must be what the client reads. A coding that
// breaks on the way ends the stream.
func (c *call) streamed(ctx context.Context, resp *http.Response, codings []string, why string) {
	h := resp.Header
	by := ", scanned by window"
	if why == replacing {
		by = ", scanned by part"
	}
	if !c.mayStream(streamKinds[why], why+by) {
		return
	}
	src := io.Reader(resp.Body)
	if len(codings) > 0 {
		d, err := c.undo(resp.Body, codings)
		if err != nil {
			c.notUndone(notice.OriginProtocol, "the site's stream is in a coding that cannot be undone", err)
			return
		}
		defer d.Close() //nolint:errcheck // it never fails
		src = d
		decodedHeader(h)
	}
	if why == replacing {
		p := c.newPictures(ctx, h, src)
		defer p.drop()
		c.relayed(ctx, resp, p, nil)
		return
	}
	c.relayed(ctx, resp, c.s.opt.Gate.Events(ctx, c.facts, streamKinds[why], src), nil)
}

// undo returns a reader of content without an end without its codings. Decoders of such have a share of their memory that is bounded
// by itself: a stream for which there is none is refused before its head has been sent.
func (x *exchange) undo(r io.Reader, codings []string) (io.ReadCloser, error) {
	if err := unpack.Ready(codings, unpack.Endless); err != nil {
		return nil, err
	}
	d, err := unpack.NewDecoderIn(r, codings, unpack.Limits{}, unpack.Room{Share: unpack.Endless})
	if err != nil {
		return nil, err
	}
	return &undone{ReadCloser: d, x: x}, nil
}

// undone is a stream without its codings. That there was no memory when it came to it is a *refusal.
type undone struct {
	io.ReadCloser
	x   *exchange
	err error // what reading has ended with
}

// Read implements io.Reader.
func (u *undone) Read(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	n, err := u.ReadCloser.Read(p)
	if u.err = err; lacksMemory(err) {
		u.err = &refusal{u.x.s.opt.Gate.Refuse(u.x.facts, notice.Overload, noStreamMemory, err.Error())}
	}
	return n, u.err
}

// noStreamMemory is what a client is told whose stream cannot be decoded for lack of memory.
const noStreamMemory = "there is no memory for decoding another stream"

// lacksMemory says whether a decoder had to end for lack of memory at present.
func lacksMemory(err error) bool {
	var u *unpack.Error
	return errors.As(err, &u) && u.Kind == unpack.SpoolFull
}

// notUndone answers where undo has failed: by what the other side has done wrong, unless there was no memory.
func (x *exchange) notUndone(kind notice.Kind, fault string, err error) {
	if lacksMemory(err) {
		kind, fault = notice.Overload, noStreamMemory
	}
	x.refuse(kind, fault, err.Error())
}

// relayed sends what is judged as it comes. Where it ends with a refusal, end says so to the client in the answer's own protocol, if
// it can; nil: it cannot.
func (c *call) relayed(ctx context.Context, resp *http.Response, judged io.Reader, end func(n notice.Notice, out io.Writer) bool) {
	c.leaveTurn() // it may last for hours, and holds nothing
	h := resp.Header
	delete(h, "Content-Encoding")
	delete(h, "Content-Length")
	h.Set("X-Content-Type-Options", "nosniff") // it is what it says, or nothing
	c.deliverHead(resp, h)
	quiet := pacing{stall: c.set.StreamTimeout.Std()}
	dog := newWatchdog(quiet, func(err error) { c.cancel(err) })
	defer dog.stop() //nolint:errcheck // whatever ended it, the client sees the end
	out, stop := pacedWriter(c.w, quiet)
	defer stop() //nolint:errcheck // as above
	if err := pump(c.w, out, watchedReader{judged, dog}); err != nil {
		c.s.opt.Log.Debug("a stream ended", "url", c.facts.URL, "client", c.c.addr, "error", err, "cause", context.Cause(ctx))
		if n, judged := whyEnded(err); judged {
			if end != nil && end(n, out) {
				return
			}
			if c.r.Context().Err() == nil { // else that may be all that is wrong
				c.s.stopped.remember(c.exchange, n)
			}
		}
		if !c.r.ProtoAtLeast(1, 1) {
			reset(c.c.conn) // the end of the connection is all that HTTP/1.0 goes by
		}
		c.abort()
	}
	for name, values := range passTrailers(resp.Trailer) {
		c.w.Header()[http.TrailerPrefix+name] = values
	}
}

// whyEnded returns what is told of a stream that was ended because of what is in it, and whether it was.
func whyEnded(err error) (notice.Notice, bool) {
	var message *refusal
	var window *gate.Stopped
	switch {
	case errors.As(err, &message):
		return message.notice, true
	case errors.As(err, &window):
		return window.Notice, true
	}
	return notice.Notice{}, false
}

// pump copies src to dst, and flushes after each piece.
func pump(w http.ResponseWriter, dst io.Writer, src io.Reader) error {
	rc := http.NewResponseController(w)
	buf := sendBuffers.Get().(*[]byte)
	defer sendBuffers.Put(buf)
	if err := rc.Flush(); err != nil {
		return err
	}
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			if _, err := dst.Write((*buf)[:n]); err != nil {
				return err
			}
			if err := rc.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
