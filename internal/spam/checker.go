package spam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/mail/header"
	"lazaret/internal/spool"
)

// State is what is known of a mail.
type State uint8

// The states. Only Spam has a mail marked as such.
const (
	NotChecked State = iota
	Ham
	Spam
)

// Result is what a check said.
type Result struct {
	State           State
	Score, Required float64
	Symbols         []string // names of the rules that matched: letters, digits, underscores and the like
	Skipped         string   // why nobody was asked, in a few words; empty: somebody was
	Err             error    // why there is no answer
	Fault           error    // what is wrong with senders_file, which then holds as it was, or why the sender was not looked for

	fields []byte // spamd's own X-Spam fields, each with its CRLF
}

// Message is a mail to check.
type Message struct {
	Body      *spool.Blob
	User      string // the login of the mailbox; may be empty
	Reference string // under which the log has it; may be empty
	Client    netip.Addr
}

// Stats counts what became of mails.
type Stats struct{ Spam, Ham, Skipped, Failed int64 }

// maxHeader is how much of a mail is taken for its header.
const maxHeader = 1 << 20

// The scanner is left alone for pause after so many failures in a row, so that a dead one does not hold up every mail.
const (
	maxFailures = 3
	pause       = 30 * time.Second
)

var errPaused = errors.New("it failed several times, and is not asked for a while")

// Checker asks a spam scanner. It is safe for use by many goroutines.
type Checker struct {
	cfg     Config
	senders *senders // nil: nobody is listed
	// ask asks the scanner; nil: there is none.
	ask   func(ctx context.Context, m Message) (Result, error)
	slots chan struct{}
	now   func() time.Time
	close func()

	spam, ham, skipped, failed atomic.Int64

	mu       sync.Mutex
	failures int
	until    time.Time // nobody is asked before
}

// New returns a Checker, and nil with no error where cfg names nobody to ask. A nil Checker checks nothing.
func New(cfg Config) (*Checker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	listed, err := newSenders(cfg, time.Now)
	if err != nil {
		return nil, err
	}
	if cfg.Type == "" && listed == nil {
		return nil, nil //nolint:nilnil // a nil Checker is one that checks nothing
	}
	network, address, err := cfg.where()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	dial := func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, address) }
	c := &Checker{cfg: cfg, slots: make(chan struct{}, cfg.MaxChecks), now: time.Now, close: func() {}, senders: listed}
	switch cfg.Type {
	case typeSpamd:
		c.ask = (&spamd{cfg: cfg, dial: dial}).ask
	case typeRspamd:
		r := newRspamd(cfg, dial)
		c.ask, c.close = r.ask, r.client.CloseIdleConnections
	}
	return c, nil
}

// Close gives back what the Checker holds. Checks that are under way end as they would.
func (c *Checker) Close() {
	if c != nil {
		c.close()
	}
}

// Stats returns what was counted so far.
func (c *Checker) Stats() Stats {
	if c == nil {
		return Stats{}
	}
	return Stats{Spam: c.spam.Load(), Ham: c.ham.Load(), Skipped: c.skipped.Load(), Failed: c.failed.Load()}
}

// Check asks about m, and returns within the configured timeout.
func (c *Checker) Check(ctx context.Context, m Message) (r Result) {
	if c == nil {
		return Result{Skipped: "nobody to ask is configured"}
	}
	is, fault := c.listed(m)
	defer func() { r.Fault = fault }()
	if is {
		c.spam.Add(1)
		return blocked()
	}
	if c.ask == nil {
		c.skipped.Add(1)
		return Result{Skipped: "its sender is not listed, and nobody else is asked"}
	}
	if why := c.skip(m.Body); why != "" {
		c.skipped.Add(1)
		return Result{Skipped: why}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout.Std())
	defer cancel()
	r, err := c.guarded(ctx, m)
	switch {
	case err != nil:
		c.failed.Add(1)
		return Result{Err: fmt.Errorf("%s at %q: %w", c.cfg.Type, c.cfg.Address, err)}
	case r.State == Spam:
		c.spam.Add(1)
	case r.State == Ham:
		c.ham.Add(1)
	default:
		c.skipped.Add(1)
	}
	return r
}

// skip says why nobody is asked about a mail; empty: somebody is.
func (c *Checker) skip(b *spool.Blob) string {
	if b.Size() > int64(c.cfg.MaxSize) {
		return "larger than max_size"
	}
	if c.cfg.SkipMarked == "" {
		return ""
	}
	head, _, err := headOf(b)
	if err == nil && bytes.Contains(head, []byte(c.cfg.SkipMarked)) {
		return "the provider has marked it"
	}
	return ""
}

// guarded asks within what limits there are.
func (c *Checker) guarded(ctx context.Context, m Message) (r Result, err error) {
	if !c.may() {
		return Result{}, errPaused
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return Result{}, fmt.Errorf("max_checks are under way: %w", ctx.Err())
	}
	defer func() { <-c.slots }()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		c.outcome(err)
	}()
	return c.ask(ctx, m)
}

func (c *Checker) may() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.now().Before(c.until)
}

// outcome counts failures in a row.
func (c *Checker) outcome(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.failures = 0
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the client went away, which says nothing about the scanner
	}
	if c.failures++; c.failures >= maxFailures {
		c.until = c.now().Add(pause)
	}
}

// headOf returns a mail's header and what was read of it.
func headOf(b *spool.Blob) (head []byte, h header.Header, err error) {
	buf := make([]byte, min(b.Size(), maxHeader))
	if _, err := io.ReadFull(b.NewReader(), buf); err != nil {
		return nil, h, err
	}
	h = header.Parse(buf)
	return buf[:h.End], h, nil
}
