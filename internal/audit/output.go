package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// The bounds of an Output.
const (
	queueBytes = 1 << 20               // lines waiting for the writer, in bytes
	patience   = 1 * time.Second       // how long a line waits for room before the writer counts as stalled
	gathering  = 20 * time.Millisecond // how long the writer lets lines about clean objects gather
)

// Output carries log lines to a writer without ever waiting for it for long.
//
// A log can stop taking lines: a full pipe behind standard error, a hung network file system, a terminal held with ^S. If
// whoever logs simply waited, the whole gateway would stand still with it; if lines were dropped when a queue is full, an
// attacker who floods the log could hide what was blocked. So there are three steps:
//
//  1. One goroutine writes; lines wait for it in a queue of 1 MiB. While it is full, callers wait, for at most a second:
//     a log that is merely slow slows the gateway down to its own speed, and nothing is lost. Lines about clean objects gather for
//     a moment and are written together: to wake the writer for each of them costs more than to write it.
//  2. When that second is over, the writer counts as stalled. Until it takes something again, lines go to the overflow file
//     on the local disk, at once. That disk also holds the spool: if it hangs too, nothing can be scanned anyway.
//  3. The overflow file is bounded. Lines about clean objects may use its first half only, so that they cannot push out the
//     ones about blocks. What does not fit is counted, shown by Status (metrics, console, readiness), and said in the log
//     when it takes lines again.
//
// Lines that wait in the queue are lost if the process is killed; Close writes them.
type Output struct {
	reopen   func() (io.WriteCloser, error) // nil: there is nothing to open anew
	overflow *overflow
	resumed  func(OutputStatus) []byte // the line that tells about a stall that is over; nil: none

	mu       sync.Mutex
	w        io.Writer
	next     io.WriteCloser // takes the place of w before the next write
	pending  []byte
	room     chan struct{} // closed when pending has been taken over by the writer
	status   OutputStatus
	closed   bool
	wake     chan struct{}
	hurry    chan struct{} // nothing is to be gathered now
	done     chan struct{}
	patience time.Duration
}

// OutputStatus says how the log fares.
type OutputStatus struct {
	Stalled    bool      // the log takes no lines at present
	Since      time.Time // when the latest stall began
	Overflowed uint64    // lines that went to the overflow file, in all
	LostClean  uint64    // lines about clean objects that went nowhere
	Lost       uint64    // other lines that went nowhere
	Err        error     // the latest error of the log or of the overflow file; nil after a write that succeeded
}

func newOutput(w io.Writer, reopen func() (io.WriteCloser, error), of *overflow) *Output {
	o := &Output{
		w: w, reopen: reopen, overflow: of, patience: patience,
		room: make(chan struct{}), wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go o.run()
	return o
}

// setResumed sets what makes the line that tells about a stall that is over.
func (o *Output) setResumed(f func(OutputStatus) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.resumed = f
}

// Status returns how the log fares.
func (o *Output) Status() OutputStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status
}

// Reopen opens the log's files anew, after they were renamed by whoever rotates logs. On an error the old file stays in use.
func (o *Output) Reopen() error {
	if err := o.overflow.release(); err != nil {
		return err
	}
	if o.reopen == nil {
		return nil
	}
	f, err := o.reopen()
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return f.Close()
	}
	if o.next != nil {
		_ = o.next.Close()
	}
	o.next = f
	o.signal()
	return nil
}

// Close writes what waits, until ctx ends; what is left then goes to the overflow file. It closes the log's file. Lines
// that come later go to the overflow file, too.
func (o *Output) Close(ctx context.Context) error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	o.signal()
	o.mu.Unlock()
	select {
	case <-o.done:
		return o.overflow.release()
	case <-ctx.Done():
	}
	o.mu.Lock()
	left := o.pending
	o.pending = nil
	o.mu.Unlock()
	if len(left) > 0 {
		o.spill(left, false, uint64(bytes.Count(left, []byte{'\n'})))
	}
	return errors.Join(fmt.Errorf("the log does not take its last lines: %w", ctx.Err()), o.overflow.release())
}

// signal has the writer look at once for what there is to do. The caller holds mu.
func (o *Output) signal() {
	poke(o.hurry)
	poke(o.wake)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put takes one line, of which it keeps nothing. It waits at most o.patience, and not at all while the writer is known to be
// stalled. clean says that the line may be given up before others.
func (o *Output) put(line []byte, clean bool) {
	if !o.enqueue(line, clean) {
		o.spill(line, clean, 1)
	}
}

// enqueue has line written soon, and reports whether it could. gathers says that it may wait for others.
func (o *Output) enqueue(line []byte, gathers bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	var late <-chan time.Time
	for !o.closed {
		if len(o.pending) == 0 || len(o.pending)+len(line) <= queueBytes {
			o.pending = append(o.pending, line...)
			if gathers && len(o.pending) < queueBytes/4 {
				poke(o.wake)
			} else {
				o.signal()
			}
			return true
		}
		if o.status.Stalled {
			return false
		}
		if late == nil {
			timer := time.NewTimer(o.patience)
			defer timer.Stop()
			late = timer.C
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
			o.mu.Lock()
		case <-late:
			o.mu.Lock()
			if o.room == room && !o.status.Stalled { // nothing was taken over meanwhile
				o.status.Stalled, o.status.Since = true, time.Now()
			}
			late = nil
		}
	}
	return false
}

// run writes what is pending until the Output is closed and everything is written.
func (o *Output) run() {
	defer close(o.done)
	var spare []byte
	gather := time.NewTimer(gathering)
	defer gather.Stop()
	for range o.wake {
		gather.Reset(gathering)
		select {
		case <-o.hurry:
		case <-gather.C:
		}
		for {
			o.mu.Lock()
			buf, w, old, closed := o.pending, o.w, io.Writer(nil), o.closed
			o.pending = spare[:0]
			close(o.room)
			o.room = make(chan struct{})
			if o.next != nil {
				old, w, o.w, o.next = o.w, o.next, o.next, nil
			}
			o.mu.Unlock()
			o.closeFile(old)
			if len(buf) == 0 && closed {
				o.closeFile(w)
				return
			}
			if spare = buf[:0]; len(buf) == 0 {
				break
			}
			o.write(w, buf)
		}
	}
}

// closeFile closes w where it is a file that this Output opened.
func (o *Output) closeFile(w io.Writer) {
	if c, ok := w.(io.Closer); ok && o.reopen != nil {
		_ = c.Close()
	}
}

func (o *Output) write(w io.Writer, buf []byte) {
	n, err := w.Write(buf)
	if err == nil && n < len(buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		rest := buf[min(max(n, 0), len(buf)):]
		o.spill(rest, false, uint64(bytes.Count(rest, []byte{'\n'})))
	}
	o.mu.Lock()
	over := err == nil && (o.status.Stalled || o.status.Err != nil)
	o.status.Stalled, o.status.Err = false, err
	status, resumed := o.status, o.resumed
	o.mu.Unlock()
	if over && resumed != nil {
		line := resumed(status)
		o.mu.Lock()
		o.pending = append(o.pending, line...)
		o.signal()
		o.mu.Unlock()
	}
}

// spill puts lines into the overflow file, and counts them as that or as lost.
func (o *Output) spill(b []byte, clean bool, lines uint64) {
	err := o.overflow.write(b, clean)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.status.Overflowed += lines
		return
	case clean:
		o.status.LostClean += lines
	default:
		o.status.Lost += lines
	}
	o.status.Err = err
}

// overflow is the bounded file of last resort. The zero value takes nothing.
type overflow struct {
	path  string
	limit int64

	mu   sync.Mutex
	f    *os.File
	size int64
}

var errNoOverflow = errors.New("the log does not take lines, and no overflow file is set")

func (v *overflow) write(b []byte, clean bool) error {
	if v.path == "" {
		return errNoOverflow
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.f == nil {
		f, err := os.OpenFile(v.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("the log's overflow file: %w", err)
		}
		if v.size, err = f.Seek(0, io.SeekEnd); err != nil {
			_ = f.Close()
			return fmt.Errorf("the log's overflow file: %w", err)
		}
		v.f = f
	}
	limit := v.limit
	if clean {
		limit /= 2
	}
	if v.size+int64(len(b)) > limit {
		_ = v.f.Close() // opened anew by the next write, which sees whether somebody moved it away
		v.f = nil
		return fmt.Errorf("the log's overflow file %s is full (%d bytes): move it away, and repair the log", v.path, v.size)
	}
	n, err := v.f.Write(b)
	v.size += int64(n)
	if err != nil {
		return fmt.Errorf("the log's overflow file: %w", err)
	}
	return nil
}

// release closes the file, so that it can be moved away; the next write opens it anew.
func (v *overflow) release() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.f == nil {
		return nil
	}
	err := v.f.Close()
	v.f = nil
	return err
}
