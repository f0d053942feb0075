package gate

import (
	"bytes"
	"slices"

	"lazaret/internal/eventstream"
)

// events is what passes of an event stream, and what its readers make of it.
type events struct {
	filter *eventstream.Filter
	buf    []byte // of what comes
	out    []byte // of what passes
	views  [3]view
}

// view is how the values of data lines may be put together.
type view struct {
	line, event string // between the lines of an event, and between events
	text        []byte // the end of all, and what is new
	new, begun  bool
}

func newEvents() *events {
	e := &events{buf: make([]byte, 8<<10)}
	// A reader joins an event's lines by LF (HTML Standard, 9.2.6). Applications put the events together as they come, or line by line,
	// and take out line ends.
	e.views = [...]view{{line: "\n", event: "\n"}, {line: "\n"}, {}}
	e.filter = eventstream.New(e)
	return e
}

// take returns what passes of piece, until it is called again.
func (e *events) take(piece []byte) []byte {
	e.out = e.filter.Next(e.out[:0], piece)
	return e.out
}

// Line implements eventstream.Observer.
func (e *events) Line(first bool) {
	for i := range e.views {
		v := &e.views[i]
		switch {
		case !v.begun:
			v.begun = true
		case first:
			v.text = append(v.text, v.event...)
		default:
			v.text = append(v.text, v.line...)
		}
	}
}

// Value implements eventstream.Observer.
func (e *events) Value(p []byte) {
	for i := range e.views {
		e.views[i].text, e.views[i].new = append(e.views[i].text, p...), true
	}
}

// texts returns the views that something new is in which the stream as it stands, past, does not show.
func (e *events) texts(past []byte) (all [][]byte) {
	for _, v := range e.views {
		same := func(other []byte) bool { return bytes.Equal(other, v.text) }
		if v.new && !bytes.Contains(past, v.text) && !slices.ContainsFunc(all, same) {
			all = append(all, v.text)
		}
	}
	return all
}

// joined returns the values with nothing between them, where something is new in them.
func (e *events) joined() []byte {
	if v := e.views[len(e.views)-1]; v.new {
		return v.text
	}
	return nil
}

// trim leaves of the views what is judged again with what comes next.
func (e *events) trim() {
	for i := range e.views {
		v := &e.views[i]
		v.new = false
		if over := len(v.text) - streamOverlap; over > 0 {
			v.text = append(v.text[:0], v.text[over:]...)
		}
	}
}
