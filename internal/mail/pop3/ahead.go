package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"lazaret/internal/scan"
)

// A client that sends RETR ahead of the replies has the messages fetched and judged one behind the other, but not one after the
// other: while one is judged, the server sends the next. The server hears the client's own commands, in their order, each when its
// reply to the one before has come to the end; the client hears the replies in their order too, each after its verdict. Decision 7.

// maxAhead is how many messages are fetched before their turn. Two are scanned at a time then, and the third comes.
const maxAhead = 2

// maxHeldAhead is how many bytes a session may hold when it has one more fetched before its turn.
const maxHeldAhead = maxRemembered

// errand is a message that is being fetched and judged: what the session's goroutine and the one that does it share.
type errand struct {
	x      *session
	c      command
	line   []byte // what the server is asked
	raw    int    // how long the client's line is that has not been read yet
	early  bool   // it was begun before its turn
	cancel context.CancelFunc

	answered atomic.Bool // the server has said +OK, and l.drip can be used
	free     chan struct{}
	// held is how many bytes were kept of the message, -1 where it was not: then the server may have to be asked for it again, and
	// nothing may come between. It is set before free is closed, which says that the server can be talked to.
	held int64

	l       *letter
	judge   func(ctx context.Context) // asks about the message that is held; nil: it is not held yet
	refused []byte                    // the server's reply, where it is -ERR
	done    chan error
}

// panicked is what is left of an errand that made the gateway panic.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func newErrand(x *session, c command, line []byte, cancel context.CancelFunc) *errand {
	return &errand{
		x: x, c: c, line: line, cancel: cancel, held: -1, free: make(chan struct{}), done: make(chan error, 1),
		l: &letter{number: c.number(), drip: &drip{byLine: x.set.KeepAliveUnit == byLine}},
	}
}

// received notes that the message has come to its end.
func (e *errand) received() {
	if e.l.body != nil {
		e.held = e.l.body.Size()
	}
	close(e.free)
}

// isFree says whether the server can be talked to, as far as e is concerned.
func (e *errand) isFree() bool {
	select {
	case <-e.free:
		return true
	default:
		return false
	}
}

// run does the errand. What came of it is said to done.
func (e *errand) run(ctx context.Context) {
	defer func() {
		if p := recover(); p != nil {
			e.done <- &panicked{p, debug.Stack()}
		}
	}()
	e.done <- e.fetch(ctx)
}

func (e *errand) fetch(ctx context.Context) error {
	x, l := e.x, e.l
	other := string(e.line) != string(e.c.line)
	if e.judge != nil {
		e.judge(ctx)
		x.edit(ctx, l)
		return nil
	}
	reply, ok, err := x.ask(e.line)
	if err != nil {
		return err
	}
	if !ok {
		e.refused, e.held = reply, 0
		close(e.free)
		return nil
	}
	l.drip.status = reply
	if e.c.verb == "TOP" && other {
		l.drip.status = []byte("+OK\r\n") // the server speaks of the whole message
	}
	e.answered.Store(true)
	if err := x.receive(ctx, e); err != nil {
		return err
	}
	if e.c.verb == "RETR" || other {
		x.edit(ctx, l)
	}
	return nil
}

// result returns what fetch does, where waiting for e ended with err.
func (e *errand) result(err error) (l *letter, refused []byte, _ error) {
	if err == nil && e.refused != nil {
		return nil, e.refused, nil
	}
	return e.l, nil, err
}

// here does an errand in the session's own goroutine. Most are done long before anybody needs to hear anything, and goroutines that
// wait for each other cost time: only when the first interval is over, one is begun that keeps both sides awake.
func (x *session) here(ctx context.Context, e *errand) error {
	begun := time.Now()
	first := x.s.opt.awake
	if d := x.set.KeepAlive.Std(); d > 0 {
		first = min(first, d)
	}
	kept := make(chan error, 1)
	t := time.AfterFunc(first, func() {
		defer func() {
			if p := recover(); p != nil {
				kept <- &panicked{p, debug.Stack()}
			}
		}()
		kept <- x.keepAlive(e, begun, nil)
	})
	e.run(ctx)
	if t.Stop() {
		return <-e.done
	}
	return <-kept
}

// fetchAhead is fetch for a RETR: the message may have been fetched already, and those of the RETRs behind it may be by the time that
// this one has been judged.
func (x *session) fetchAhead(ctx context.Context, c command) (l *letter, refused []byte, err error) {
	if len(x.ahead) == 0 {
		if _, ok := x.nextRETR(); !ok {
			return x.fetch(ctx, c, c.line)
		}
		x.begin(ctx, newErrand(x, c, c.line, nil))
	}
	e := x.ahead[0]
	e.raw = 0 // it has been read
	if !bytes.Equal(e.c.line, c.line) {
		return &letter{drip: &drip{}}, nil, errors.New("what was fetched ahead is not what was asked for")
	}
	err = x.keepAlive(e, time.Now(), func() bool { return x.beginNext(ctx) })
	x.ahead[0] = nil // an idle session need not keep its messages
	if x.ahead = x.ahead[1:]; len(x.ahead) == 0 {
		x.ahead = nil
	}
	e.cancel()
	if err == nil && e.wantedRoom() {
		return x.onceMore(ctx, e)
	}
	return e.result(err)
}

// wantedRoom says whether the message found no room while those before it were held: there may be some by now.
func (e *errand) wantedRoom() bool {
	return e.early && e.refused == nil && e.l.notice.Verdict.Reason == scan.SpoolFull && e.l.drip.sent == 0
}

// onceMore does an errand again in its turn: what is held is judged, and what is not is fetched, behind which nothing was begun.
func (x *session) onceMore(ctx context.Context, e *errand) (l *letter, refused []byte, err error) {
	if e.held < 0 {
		return x.fetch(ctx, e.c, e.line)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	again := newErrand(x, e.c, e.line, cancel)
	again.l, again.judge = e.l, e.judge
	again.answered.Store(true)
	close(again.free)
	return again.result(x.here(ctx, again))
}

// begin has an errand done in a goroutine of its own.
func (x *session) begin(ctx context.Context, e *errand) {
	ctx, e.cancel = context.WithCancel(ctx)
	x.ahead = append(x.ahead, e)
	go e.run(ctx)
}

// beginNext begins the errand behind those that were begun, which have all left the server free, and says whether there was one, and
// room for it.
func (x *session) beginNext(ctx context.Context) bool {
	if len(x.ahead) > maxAhead {
		return false
	}
	held := int64(0)
	for _, e := range x.ahead {
		if e.held < 0 {
			return false
		}
		held += e.held
	}
	line, ok := x.nextRETR()
	if !ok || held > maxHeldAhead {
		return false
	}
	c, err := parseCommand(line)
	if err != nil {
		return false
	}
	e := newErrand(x, c, c.line, nil)
	e.raw, e.early = len(line), true
	x.begin(ctx, e)
	return true
}

// nextRETR returns the next line behind those that were begun, where it has come already and is a RETR. Nothing is taken out of the
// client's buffer: it is all read, and looked at, again when its turn comes.
func (x *session) nextRETR() (line []byte, ok bool) {
	sent, _ := x.client.r.Peek(x.client.r.Buffered()) // as much as is there cannot fail
	for _, e := range x.ahead {
		sent = sent[e.raw:]
	}
	end := bytes.IndexByte(sent, '\n') + 1
	if end == 0 {
		return nil, false
	}
	c, err := parseCommand(sent[:end])
	return sent[:end], err == nil && c.verb == "RETR" && c.mistaken() == nil
}

// abandon ends the errands whose turn will not come.
func (x *session) abandon() {
	if len(x.ahead) == 0 {
		return
	}
	_ = x.up.conn.Close() // nobody waits for what it says any more
	for _, e := range x.ahead {
		e.cancel()
	}
	for _, e := range x.ahead {
		x.unwanted(<-e.done)
		e.l.close()
	}
	x.ahead = nil
}

// keepAlive waits for e to be done, lets the client hear something at intervals from begun on, and keeps the server awake. It does not
// wait for what the server says to that: neither the verdict nor the client's next bytes depend on it. Whenever the server is free,
// next is called, until it says that there is nothing to be begun; nil: there is nothing.
func (x *session) keepAlive(e *errand, begun time.Time, next func() bool) error {
	var tick <-chan time.Time
	interval := x.set.KeepAlive.Std()
	timer := time.NewTimer(time.Until(begun.Add(max(interval, 1))))
	defer timer.Stop()
	if interval > 0 {
		tick = timer.C
	}
	awake := time.NewTimer(time.Until(begun.Add(x.s.opt.awake)))
	defer awake.Stop()
	last := e
	if n := len(x.ahead); n > 0 {
		last = x.ahead[n-1]
	}
	var asleep error
	for {
		var free <-chan struct{}
		if next != nil {
			free = last.free
		}
		select {
		case err := <-e.done:
			if err == nil && asleep != nil {
				x.log.Debug("the server went away while a message was scanned", "host", x.facts.Host, "error", asleep)
			}
			return err
		case <-free:
			if !next() {
				next = nil
			}
			last = x.ahead[len(x.ahead)-1]
		case <-tick:
			timer.Reset(interval)
			if err := x.drop(e); err != nil {
				return err
			}
		case <-awake.C:
			awake.Reset(x.s.opt.awake)
			if last.isFree() && asleep == nil {
				asleep = x.up.nudge()
			}
		}
	}
}

// drop lets the client hear a little. Where it cannot, the errand is ended, and the error is the client's.
func (x *session) drop(e *errand) error {
	if !e.answered.Load() {
		return nil
	}
	b := e.l.drip.next()
	if len(b) == 0 {
		return nil
	}
	err := x.client.send(b)
	if err == nil {
		return nil
	}
	e.cancel()
	_ = x.up.conn.Close() // nobody waits for the message any more
	x.unwanted(<-e.done)
	return errClient{err}
}

// unwanted notes what came of a message that nobody waits for.
func (x *session) unwanted(err error) {
	if p := (*panicked)(nil); errors.As(err, &p) {
		x.log.Error("a message that nobody waits for made the gateway panic", "client", x.clientAddr, "panic", p.value, "stack", string(p.stack))
	} else if err != nil {
		x.log.Debug("a message that nobody waits for", "error", err)
	}
}
