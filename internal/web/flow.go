package web

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"lazaret/internal/envelope"
	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// messageCodings are the encodings of messages that can be undone: those of gRPC, and others in use with it.
var messageCodings = []string{"gzip", "deflate", "zstd", "snappy", "br"}

// refusal is why a call ends: a message of it was not to pass, or it broke its protocol.
type refusal struct{ notice notice.Notice }

// Error implements error.
func (r *refusal) Error() string { return whyBlocked(r.notice) }

// flow is one direction of a call by gRPC, gRPC-Web or Connect. Each message is put together and judged, and goes on by itself,
// uncompressed, while the next ones are taken in. What is read from it is the body that goes on; its end is io.EOF, or a *refusal.
type flow struct {
	*io.PipeReader
	s      *Server
	set    *settings
	ctx    context.Context
	cancel context.CancelFunc
	end    context.CancelCauseFunc // ends the call
	facts  policy.Facts
	fault  notice.Kind // what a breach of the protocol is, from this side
	kind   string

	p      envelope.Protocol
	coding string // what compressed messages are in, "" for nothing
	known  bool   // it can be undone
	body   io.ReadCloser
	in     *envelope.Reader
	out    *io.PipeWriter
	queue  chan *flowItem
	work   sync.WaitGroup
}

// flowItem is a message that waits for its verdict, or the end of the direction.
type flowItem struct {
	*message
	head envelope.Head
	err  error // what the reading ended with; io.EOF: properly
}

// newFlow returns a flow of body, whose header h is: what it says of compression is taken out, where that is undone. end is called
// with a *refusal where the call is to end. stop is to be called when nothing is read any more.
func (x *exchange) newFlow(ctx context.Context, end context.CancelCauseFunc, p envelope.Protocol, h http.Header, body io.ReadCloser, d policy.Direction) *flow {
	f := &flow{
		s: x.s, set: x.set, end: end, facts: x.facts, fault: notice.OriginProtocol, kind: streamKinds[p.Name], p: p, body: body,
		in: envelope.NewReader(body, p), queue: make(chan *flowItem, x.set.GRPC.Concurrent-1),
	}
	f.facts.Direction, f.facts.Type = d, mediaType(h)
	if d == policy.Upload {
		f.fault = notice.BadRequest
	}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.coding = strings.ToLower(strings.TrimSpace(strings.Join(h[p.Encoding], ", ")))
	if f.coding == "identity" {
		f.coding = ""
	}
	if f.known = slices.Contains(messageCodings, f.coding); f.known || f.coding == "" {
		delete(h, p.Encoding)
	}
	f.PipeReader, f.out = io.Pipe()
	x.s.opt.Gate.Exempt(f.facts, f.kind, p.Name+", scanned by message")
	f.work.Go(f.deliver)
	f.work.Go(f.read)
	return f
}

// Close ends the flow. It is safe to call while something is being read.
func (f *flow) Close() error {
	f.cancel()
	return errors.Join(f.PipeReader.Close(), f.body.Close())
}

// stop ends the flow, and returns when nothing of it is at work or held any more.
func (f *flow) stop() {
	_ = f.Close() // what is still on its way is of no interest
	f.work.Wait()
}

// caught ends the call where one of the flow's goroutines panics.
func (f *flow) caught() {
	if p := recover(); p != nil {
		n := f.s.opt.Gate.Refuse(f.facts, notice.Internal, "", fmt.Sprintf("panic: %v", p))
		f.s.opt.Log.Error("a call made the proxy panic", "reference", n.Reference, "panic", p, "stack", string(debug.Stack()))
		_ = f.out.CloseWithError(f.refused(n)) // never fails
	}
}

// refused ends the call, and returns why.
func (f *flow) refused(n notice.Notice) error {
	err := &refusal{n}
	f.end(err)
	return err
}

// read takes messages in until the direction ends. The deliverer takes every item, also when the flow has ended.
func (f *flow) read() {
	defer close(f.queue)
	defer f.caught()
	for {
		h, err := f.in.Next()
		var o *scan.Object
		if err == nil {
			h, o, err = f.take(h)
		}
		var broken *envelope.Error
		if errors.As(err, &broken) {
			o, err = f.without(scan.Undecodable, broken.What), nil
		}
		if err != nil {
			f.queue <- &flowItem{err: err}
			return
		}
		whole := o.Body != nil
		f.queue <- &flowItem{head: h, message: f.s.judgeMessage(f.ctx, f.facts, f.kind, o, f.caught)}
		if !whole {
			return // whatever the verdict is, the call ends
		}
	}
}

// without returns a message that is not there, and why.
func (f *flow) without(why scan.Reason, detail string) *scan.Object {
	return &scan.Object{Name: path.Base(f.facts.URL), Type: f.p.Type(), Known: scan.IncompleteVerdict(why, "%s: %s", f.p.Name, detail)}
}

// take takes in the message that h has announced, and returns the head that it goes on with. The error is an *envelope.Error, or
// what the body's reading ended with.
func (f *flow) take(h envelope.Head) (envelope.Head, *scan.Object, error) {
	limit := min(int64(f.set.GRPC.MaxMessage), math.MaxUint32) // no length is larger
	if int64(h.Length) > limit {
		return h, f.without(scan.TooLarge, fmt.Sprintf("a message of %d bytes where %d are taken at most (web.grpc.max_message)", h.Length, limit)), nil
	}
	in := gate.Intake{Name: path.Base(f.facts.URL), Type: f.p.Type(), Limit: limit, Size: int64(h.Length), Piece: true}
	if h.Compressed() {
		switch {
		case f.coding == "":
			return h, f.without(scan.Undecodable, "a message is compressed, and "+f.p.Encoding+" does not say how"), nil
		case f.known:
			in.Size, in.Encodings = 0, []string{f.coding}
		}
	}
	o, err := f.s.takeMessage(f.in, in, f.set.GRPC.MessageTime.Std(), func() {
		_ = f.refused(f.s.opt.Gate.Refuse(f.facts, f.fault, "a message did not come in time", f.p.Name+": a message did not come within web.grpc.message_time"))
		_ = f.body.Close() // whoever reads from it finds out
	})
	switch {
	case err != nil:
		return h, nil, err
	case o.Body == nil:
		return h, o, nil
	case h.Compressed() && !f.known:
		// It goes on as it is, if policy says so.
		o.Known = scan.IncompleteVerdict(scan.Undecodable, "%s: a message in the encoding %.40q, which cannot be undone", f.p.Name, f.coding)
		return h, o, nil
	}
	if f.in.Left() > 0 {
		_ = o.Body.Close() // the room is given back
		return h, f.without(scan.Undecodable, "something follows the end of a compressed message"), nil
	}
	return h.Plain(uint32(o.Body.Size())), o, nil //nolint:gosec // limit is no larger
}

// deliver hands messages on in their order, as their verdicts come.
func (f *flow) deliver() {
	defer func() {
		for item := range f.queue { // only after a panic there are any
			item.drop()
		}
	}()
	defer f.caught()
	var ended error
	for item := range f.queue {
		if ended == nil {
			if ended = f.handOver(item); ended != nil {
				_ = f.out.CloseWithError(ended) // never fails
			}
		}
		item.drop()
	}
}

// handOver hands one item on. The error is why nothing more goes on.
func (f *flow) handOver(item *flowItem) error {
	if item.message != nil {
		<-item.judged
	}
	var why *refusal
	switch {
	case errors.As(context.Cause(f.ctx), &why): // of the other direction, or of this one
		return why
	case item.err != nil:
		return item.err
	case f.ctx.Err() != nil:
		return context.Cause(f.ctx)
	case item.action != policy.Pass:
		return f.refused(item.notice)
	case item.object.Body == nil:
		return f.refused(f.s.opt.Gate.Refuse(f.facts, notice.NotScanned, "a message could not be held", "policy lets it pass, but it is not there to be delivered"))
	}
	return f.write(item.head, item.object)
}

// flowWriters put a message's head and its content together. They are as large as what is sent at a time.
var flowWriters = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, chunk) }}

// write sends a message on.
func (f *flow) write(h envelope.Head, o *scan.Object) error {
	w := flowWriters.Get().(*bufio.Writer)
	w.Reset(f.out)
	defer func() {
		w.Reset(nil)
		flowWriters.Put(w)
	}()
	if err := writeMessage(w, f.p, h, o.Body.NewReader()); err != nil {
		return err
	}
	return w.Flush()
}

// writeMessage writes a message as p has it. Its errors are w's, and content's.
func writeMessage(w io.Writer, p envelope.Protocol, h envelope.Head, content io.Reader) error {
	if p.Text {
		encoder := base64.NewEncoder(base64.StdEncoding, w)
		p.Text = false
		return errors.Join(writeMessage(encoder, p, h, content), encoder.Close())
	}
	if _, err := w.Write(h.Append(nil)); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}
