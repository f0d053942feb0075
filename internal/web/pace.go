package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Errors of a body that does not come along. They are the cause of a cancelled context where one is cancelled.
var (
	errStalled = errors.New("the body came to a standstill")
	errTooSlow = errors.New("the body comes too slowly")
	errNoReply = errors.New("no answer in time")
)

// rateWindow is the time over which the minimum rate is taken.
const rateWindow = time.Minute

// pacing says how slow a body may be.
type pacing struct {
	stall time.Duration // without any byte
	rate  int64         // bytes a second over rateWindow; 0: any
}

// watchdog calls interrupt when it was not fed for long enough, or when too little was fed to it. It is used by one
// goroutine; interrupt is called by another one, at most once, and never after stop has returned.
type watchdog struct {
	pacing
	timer     *time.Timer
	mu        sync.Mutex
	stopped   bool
	err       error
	interrupt func(error)

	since time.Time
	fed   int64
}

func newWatchdog(p pacing, interrupt func(error)) *watchdog {
	d := &watchdog{pacing: p, interrupt: interrupt, since: time.Now()}
	d.timer = time.AfterFunc(p.stall, func() { d.bite(errStalled) })
	return d
}

// bite ends the body, once.
func (d *watchdog) bite(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopped && d.err == nil {
		d.err = err
		d.interrupt(err)
	}
}

// feed notes that n bytes came along.
func (d *watchdog) feed(n int) {
	if n <= 0 {
		return
	}
	d.timer.Reset(d.stall)
	d.fed += int64(n)
	if d.rate <= 0 {
		return
	}
	if age := time.Since(d.since); age >= rateWindow {
		if d.fed < d.rate*int64(age/time.Second) {
			d.bite(fmt.Errorf("%w: %d bytes in %v", errTooSlow, d.fed, age.Round(time.Second)))
		}
		d.since, d.fed = time.Now(), 0
	}
}

// pause has the body not be watched, because it waits for the gateway itself, until resume is called.
func (d *watchdog) pause() (resume func()) {
	d.timer.Stop()
	began := time.Now()
	return func() {
		d.since = d.since.Add(time.Since(began))
		d.timer.Reset(d.stall)
	}
}

// stop ends the watch and returns why the body was ended, nil where it was not.
func (d *watchdog) stop() error {
	d.timer.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	return d.err
}

// watchedReader feeds a watchdog with what is read.
type watchedReader struct {
	io.Reader
	dog *watchdog
}

func (r watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.dog.feed(n)
	return n, err
}

// chunk is how much is handed to a connection at a time: a slow client has the stall time for each chunk.
const chunk = 16 << 10

// watchedWriter writes a response in chunks, and feeds a watchdog with each one that the connection has taken.
type watchedWriter struct {
	w   io.Writer
	dog *watchdog
}

func (w watchedWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n, err := w.w.Write(p[:min(chunk, len(p))])
		written += n
		w.dog.feed(n)
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// pacedWriter returns a writer for w's body that ends the connection when the client does not take it, and what ends the
// watch.
func pacedWriter(w http.ResponseWriter, p pacing) (out io.Writer, stop func() error) {
	rc := http.NewResponseController(w)
	dog := newWatchdog(p, func(error) {
		// A connection that has no deadlines has ended.
		_ = rc.SetWriteDeadline(longAgo)
	})
	return watchedWriter{w, dog}, dog.stop
}
