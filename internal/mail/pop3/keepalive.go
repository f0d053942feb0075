package pop3

import (
	"bytes"
	"runtime/debug"
	"sync"
	"time"
)

// drip gives the client something while it waits: the server's reply to RETR, and then those fields of the message's header
// that the message and a notice in its place begin with alike (see shared). Nothing of it has to be taken back, whatever
// the verdict will be. It is used by one goroutine, and the head is filled by another.
type drip struct {
	status []byte
	byLine bool
	sent   int // bytes of status and head

	mu   sync.Mutex
	head []byte
}

// saw takes note of the message's bytes in their order.
func (d *drip) saw(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if room := maxHead - len(d.head); room > 0 {
		d.head = append(d.head, b[:min(len(b), room)]...)
	}
}

// beginning returns the message's beginning, as far as it is known.
func (d *drip) beginning() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.head[:len(d.head):len(d.head)]
}

// available returns everything that may be sent by now.
func (d *drip) available() []byte {
	head := d.beginning()
	return append(d.status[:len(d.status):len(d.status)], head[:shared(head)]...)
}

// next returns what is to be sent now, nil where nothing is left.
func (d *drip) next() []byte {
	rest := d.available()[d.sent:]
	n := min(1, len(rest))
	if d.byLine {
		n = bytes.IndexByte(rest, '\n') + 1
	}
	d.sent += n
	return rest[:n]
}

// committed says whether the client was sent anything: then it is too late for -ERR.
func (d *drip) committed() bool { return d.sent > 0 }

// ofMessage returns how many bytes of the message were sent.
func (d *drip) ofMessage() int { return max(0, d.sent-len(d.status)) }

// explanation returns what ends a reply that was begun and cannot be finished: the rest of the line that was begun, and a
// field that says why. The lone dot that would make a message of it is not there.
func (d *drip) explanation(why string) []byte {
	rest := d.available()[d.sent:]
	var out []byte
	switch {
	case d.sent < len(d.status):
		out = append(out, d.status[d.sent:]...)
	case d.sent > len(d.status):
		if all := d.available(); all[d.sent-1] != '\n' {
			out = append(out, rest[:bytes.IndexByte(rest, '\n')+1]...)
		}
	}
	return append(out, "X-Lazaret-Error: "+why+"\r\n"...)
}

// whileAwake does what may take as long as the client likes, and has the server, which nobody talks to meanwhile, hear something at
// intervals: it would end the session, and with it forget what is to be deleted.
func (x *session) whileAwake(do func() error) error {
	var (
		mu    sync.Mutex
		ended bool
		timer *time.Timer
	)
	nudge := func() {
		defer func() {
			if p := recover(); p != nil {
				x.log.Error("keeping a mail server awake made the gateway panic", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		if n := len(x.ahead); n > 0 && !x.ahead[n-1].isFree() {
			timer.Reset(x.s.opt.awake)
			return // a message is being fetched ahead, and it is not for us to talk
		}
		if err := x.up.nudge(); err != nil {
			x.log.Debug("the server went away while a message was delivered", "host", x.facts.Host, "error", err)
			return // the next command finds out
		}
		timer.Reset(x.s.opt.awake)
	}
	mu.Lock()
	timer = time.AfterFunc(x.s.opt.awake, nudge)
	mu.Unlock()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		timer.Stop()
	}()
	return do()
}
