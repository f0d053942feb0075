package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/web/websocket"
)

const (
	// wsGoodbye is how long peers have to answer a Close frame, and to read what was sent before it.
	wsGoodbye = 5 * time.Second
	// wsHasty is the same when the service ends.
	wsHasty = 200 * time.Millisecond
)

// wsKind is the word that metrics count WebSockets by.
const wsKind = "websocket"

// wsRelay is an open WebSocket: two directions, each with a goroutine that reads messages and one that delivers them when
// their verdicts are there.
type wsRelay struct {
	s      *Server
	set    *settings
	ctx    context.Context
	cancel context.CancelFunc
	facts  policy.Facts

	ends  [2]*wsEnd // client, origin
	sides [2]*wsSide
	idle  *time.Timer

	ending   atomic.Bool // Close frames of the gateway's own have been sent: what still comes is dropped
	stopping sync.Once
	goodbye  *time.Timer
	last     sync.Once // guards goodbye
}

// wsEnd is one peer.
type wsEnd struct {
	conn net.Conn
	out  *websocket.Writer
}

// wsSide is one direction.
type wsSide struct {
	r        *wsRelay
	from, to *wsEnd
	in       *websocket.Reader
	facts    policy.Facts
	fault    notice.Kind // what a breach of the protocol is, from this side
	queue    chan *wsItem
	count    int
}

// wsItem is a message that waits for its verdict, or the end of the direction.
type wsItem struct {
	*message
	op      websocket.Op
	closing *websocket.CloseFrame // the peer's Close frame
	err     error                 // what the reading ended with, where it was no Close frame
}

// relayWebSocket carries a WebSocket message by message until it is closed, and closes both connections.
func (s *Server) relayWebSocket(client, origin net.Conn, agreed websocket.Agreement, f policy.Facts) {
	defer s.guard(client, f)
	ctx, done, ok := s.hold(client, false)
	if !ok {
		_ = origin.Close() // nothing was sent
		return
	}
	defer done()
	r := &wsRelay{s: s, set: s.settings.Load(), facts: f}
	// The service's end is told to the peers first.
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer r.cancel()
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(wsHasty, r.cancel)
		r.stop(websocket.CloseFrame{Code: websocket.GoingAway, Reason: "the gateway is being stopped"})
	})()
	s.opt.Gate.Exempt(f, wsKind, "upgrade to websocket, scanned by message")
	stall := r.set.StallTimeout.Std()
	r.ends[0] = &wsEnd{client, websocket.NewWriter(stallWriter{client, stall}, false)}
	r.ends[1] = &wsEnd{origin, websocket.NewWriter(stallWriter{origin, stall}, true)}
	r.sides[0] = r.side(r.ends[0], r.ends[1], websocket.Options{Masked: true, Deflate: agreed.Client}, policy.Upload, notice.BadRequest)
	r.sides[1] = r.side(r.ends[1], r.ends[0], websocket.Options{Deflate: agreed.Server}, policy.Download, notice.OriginProtocol)
	r.run()
	s.opt.Log.Debug("a WebSocket has ended", "url", f.URL, "client", f.Client, "up", r.sides[0].count, "down", r.sides[1].count)
}

func (r *wsRelay) side(from, to *wsEnd, opt websocket.Options, d policy.Direction, fault notice.Kind) *wsSide {
	side := &wsSide{r: r, from: from, to: to, facts: r.facts, fault: fault, queue: make(chan *wsItem, r.set.WebSocket.Concurrent-1)}
	side.facts.Direction = d
	opt.Control = func(op websocket.Op, payload []byte) error {
		if r.ending.Load() {
			return nil
		}
		return to.out.Control(op, payload)
	}
	side.in = websocket.NewReader(&aliveReader{Reader: from.conn, r: r}, opt)
	return side
}

// run carries both directions to their ends.
func (r *wsRelay) run() {
	silent := r.set.StreamTimeout.Std()
	r.idle = time.AfterFunc(silent, func() {
		r.stop(websocket.CloseFrame{Code: websocket.GoingAway, Reason: "silent for too long"})
	})
	defer r.idle.Stop()
	unwatch := context.AfterFunc(r.ctx, r.closeBoth)
	defer unwatch()
	var wg sync.WaitGroup
	for _, side := range r.sides {
		wg.Go(func() { defer r.caught(); side.deliver() })
	}
	wg.Go(func() { defer r.caught(); r.sides[1].read() })
	func() { defer r.caught(); r.sides[0].read() }()
	wg.Wait()
	r.closeBoth()
	r.last.Do(func() {}) // no goodbye begins from here on
	if r.goodbye != nil {
		r.goodbye.Stop()
	}
}

// caught ends the WebSocket where one of its goroutines panics.
func (r *wsRelay) caught() {
	if p := recover(); p != nil {
		n := r.s.opt.Gate.Refuse(r.facts, notice.Internal, "", fmt.Sprintf("panic: %v", p))
		r.s.opt.Log.Error("a WebSocket made the proxy panic", "reference", n.Reference, "panic", p, "stack", string(debug.Stack()))
		r.cancel()
	}
}

// stop closes the WebSocket on behalf of the gateway: a Close frame to both, and the connections when they have answered, or
// soon.
func (r *wsRelay) stop(c websocket.CloseFrame) {
	r.stopping.Do(func() {
		r.ending.Store(true)
		r.depart()
		var wg sync.WaitGroup
		for _, end := range r.ends {
			wg.Go(func() {
				if end.out.Close(c) == nil {
					_ = closeWrite(end.conn) // the peer's side of the connection ends with its answer
				}
			})
		}
		wg.Wait()
	})
}

// depart has the connections closed soon, whatever the peers do.
func (r *wsRelay) depart() {
	r.last.Do(func() { r.goodbye = time.AfterFunc(wsGoodbye, r.cancel) })
}

func (r *wsRelay) closeBoth() {
	for _, end := range r.ends {
		_ = end.conn.Close() // whoever reads from it finds out
	}
}

// read takes messages in until the direction ends.
func (s *wsSide) read() {
	defer close(s.queue)
	for {
		op, err := s.in.Next()
		switch {
		case s.r.ending.Load() && err == nil && op != websocket.Close:
			continue // dropped
		case err != nil:
			s.failed(err)
			s.drain(err)
			return
		case op == websocket.Close:
			c, _ := s.in.Closed()
			s.push(&wsItem{closing: &c})
			return
		}
		if !s.message(op) {
			return
		}
	}
}

// drain reads what a peer still sends that will be cut off: a connection that is closed with something unread is reset, and
// the peer would not see the Close frame.
func (s *wsSide) drain(err error) {
	var breach *websocket.Error
	if errors.As(err, &breach) {
		_, _ = io.Copy(io.Discard, s.from.conn) // until the peer has had enough, or the connection is closed
	}
}

// message takes one message in and has it judged while the next one comes. It says whether there can be another one.
func (s *wsSide) message(op websocket.Op) bool {
	in := gate.Intake{Name: path.Base(s.r.facts.URL), Type: "application/octet-stream", Limit: int64(s.r.set.WebSocket.MaxMessage)}
	f := s.facts
	f.Type = in.Type
	if op == websocket.Text {
		in.Type, f.Type = "text/plain; charset=utf-8", "text/plain"
	}
	o, err := s.r.s.takeMessage(s.in, in, s.r.set.WebSocket.MessageTime.Std(), func() {
		s.breach(websocket.CloseFrame{Code: websocket.Policy, Reason: "a message took too long"}, "a message did not come in time")
	})
	if errors.Is(err, websocket.ErrUndecodable) {
		o, err = &scan.Object{Name: in.Name, Type: in.Type, Known: scan.IncompleteVerdict(scan.Undecodable, "%v", err)}, nil
	}
	if err != nil {
		if next, nextErr := s.in.Next(); nextErr == nil && next == websocket.Close { // one came inside the message
			c, _ := s.in.Closed()
			s.push(&wsItem{closing: &c})
			return false
		}
		s.failed(err)
		s.drain(err)
		return false
	}
	whole := o.Body != nil
	s.push(&wsItem{op: op, message: s.r.s.judgeMessage(s.r.ctx, f, wsKind, o, s.r.caught)})
	if !whole {
		_, _ = io.Copy(io.Discard, s.from.conn) // as drain does: whatever the verdict is, the WebSocket ends
	}
	return whole
}

// push puts an item behind those that wait; while there is no room the peer waits. The deliverer takes every item, also when
// the WebSocket has ended.
func (s *wsSide) push(item *wsItem) { s.queue <- item }

// deliver sends messages on in their order, as their verdicts come.
func (s *wsSide) deliver() {
	defer func() {
		for item := range s.queue { // only after a panic there are any
			item.drop()
		}
	}()
	for item := range s.queue {
		s.handOver(item)
	}
}

// handOver sends one item on, unless the WebSocket is being closed.
func (s *wsSide) handOver(item *wsItem) {
	defer item.drop()
	switch {
	case item.closing != nil:
		s.r.depart()
		_ = s.to.out.Close(*item.closing) // a peer that is gone needs none
		return
	case item.message == nil:
		s.broken(item.err)
		return
	}
	<-item.judged
	switch {
	case s.r.ending.Load() || s.r.ctx.Err() != nil:
	case item.action != policy.Pass:
		s.r.stop(closeFor(item))
	case item.object.Body == nil:
		s.breach(websocket.CloseFrame{Code: websocket.TooBig, Reason: "the message could not be held"},
			"policy lets a message pass, but it is not there to be delivered")
	default:
		s.count++
		if err := s.to.out.Message(item.op, item.object.Body.Size(), item.object.Body.NewReader()); err != nil {
			s.r.cancel() // the peer has gone, or does not read
		}
	}
}

// closeFor returns the Close frame that says why a message was not delivered.
func closeFor(item *wsItem) websocket.CloseFrame {
	c := websocket.CloseFrame{Code: websocket.Policy}
	switch {
	case item.notice.Verdict.Outcome == scan.Infected:
	case item.notice.Verdict.Reason == scan.TooLarge:
		c.Code = websocket.TooBig
	case item.action == policy.Defer:
		c.Code = websocket.TryAgainLater
	}
	c.Reason = whyBlocked(item.notice)
	return c
}

// failed notes that nothing more comes from the peer, once what came before has been delivered.
func (s *wsSide) failed(err error) { s.push(&wsItem{err: err}) }

// broken ends the WebSocket whose peer broke off, or broke the protocol.
func (s *wsSide) broken(err error) {
	var breach *websocket.Error
	if errors.As(err, &breach) {
		s.breach(websocket.CloseFrame{Code: breach.Code, Reason: "malformed"}, breach.What)
		return
	}
	if s.r.ending.Load() {
		return // as was to be expected
	}
	s.r.cancel() // without a Close frame, as the peer did it
}

// breach records that a peer is cut off, and closes the WebSocket.
func (s *wsSide) breach(c websocket.CloseFrame, detail string) {
	if s.r.ending.Load() {
		return
	}
	n := s.r.s.opt.Gate.Refuse(s.facts, s.fault, "", "WebSocket: "+detail)
	c.Reason += ", reference " + n.Reference
	s.r.stop(c)
}

// aliveReader notes that a WebSocket is in use.
type aliveReader struct {
	io.Reader
	r *wsRelay
}

// Read implements io.Reader.
func (a *aliveReader) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 && !a.r.ending.Load() {
		a.r.idle.Reset(a.r.set.StreamTimeout.Std())
	}
	return n, err
}

// stallWriter gives a peer a limited time to take each piece.
type stallWriter struct {
	net.Conn
	stall time.Duration
}

// Write implements io.Writer.
func (w stallWriter) Write(p []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(w.stall)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}
