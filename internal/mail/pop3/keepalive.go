package pop3

import (
	"bytes"
	"sync"
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
