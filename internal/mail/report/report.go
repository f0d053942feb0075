package report

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"lazaret/internal/mail/header"
	"lazaret/internal/mail/submit"
)

// The bounds of what waits to be sent.
const (
	maxWaiting = 100
	maxMail    = 1 << 20
	sendTime   = time.Minute
	tries      = 3
	// remembered is of how many notices is known that they were mailed: TOP and RETR show the same one.
	remembered = 1000
)

// pause is how long it takes until a mail that could not be sent is tried again.
const pause = 20 * time.Second

// letter is a mail to be sent.
type letter struct {
	to   []string
	what string // for the log
	mail []byte
}

// Reporter mails administrators. It is safe for use by many goroutines. A nil *Reporter mails nobody.
type Reporter struct {
	cfg  Config
	from string
	log  *slog.Logger
	send func(ctx context.Context, l letter) error
	now  func() time.Time
	wait time.Duration

	queue chan letter
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	closed  bool
	known   map[string]bool
	order   []string
	sent    []time.Time // in the last hour
	skipped int
}

// New returns a Reporter, which Close ends, and nil with no error where nobody is to be mailed.
func New(cfg Config, log *slog.Logger) (*Reporter, error) {
	if err := Check(cfg); err != nil {
		return nil, err
	}
	if len(cfg.Notices)+len(cfg.Faults) == 0 {
		return nil, nil //nolint:nilnil // a nil Reporter mails nobody
	}
	r := &Reporter{
		cfg: cfg, from: cfg.From, log: log, now: time.Now, wait: pause, known: map[string]bool{},
		queue: make(chan letter, maxWaiting), ended: make(chan struct{}),
	}
	if r.from == "" {
		r.from = "postmaster@" + hostName()
	}
	r.send = r.submit
	if len(cfg.Program) > 0 {
		r.send = r.run
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go r.deliver(ctx)
	return r, nil
}

// Check says what of cfg cannot be used on this machine, as New does.
func Check(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if len(cfg.Program) > 0 && len(cfg.Notices)+len(cfg.Faults) > 0 {
		if _, err := exec.LookPath(cfg.Program[0]); err != nil {
			return fmt.Errorf("program: %w: install it, or use server", err)
		}
	}
	return nil
}

// hostName is this machine's name, as far as it can stand in an address.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return "localhost"
	}
	return name
}

// Close has what waits sent until ctx ends, and nothing after that.
func (r *Reporter) Close(ctx context.Context) {
	if r == nil {
		return
	}
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
	r.mu.Unlock()
	select {
	case <-r.ended:
	case <-ctx.Done():
	}
	r.stop()
}

// head returns the fields that a copy of a notice begins with, each with its CRLF.
func (r *Reporter) head(to []string) []byte {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process rather than return an error
	_, domain, _ := strings.Cut(r.from, "@")
	return fmt.Appendf(nil, "Date: %s\r\nFrom: Mail gateway <%s>\r\nTo: %s\r\nMessage-ID: <%x@%s>\r\n",
		r.now().Format(time.RFC1123Z), r.from, strings.Join(to, ",\r\n "), id, domain)
}

// Notice mails a copy of the notice with this reference, once. compose returns the mail, which begins with the fields that it is
// given.
func (r *Reporter) Notice(reference string, compose func(fields []byte) []byte) {
	if r == nil || len(r.cfg.Notices) == 0 || !r.first(reference) {
		return
	}
	r.put(letter{to: r.cfg.Notices, what: "the copy of notice " + reference, mail: compose(r.head(r.cfg.Notices))})
}

// first says whether a reference was not seen yet, among the last ones.
func (r *Reporter) first(reference string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[reference] {
		return false
	}
	r.known[reference] = true
	if r.order = append(r.order, reference); len(r.order) > remembered {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	return true
}

// Fault mails those who are told about faults.
func (r *Reporter) Fault(subject string, lines []string) {
	if r == nil || len(r.cfg.Faults) == 0 {
		return
	}
	host := hostName()
	b := bytes.NewBuffer(r.head(r.cfg.Faults))
	fmt.Fprintf(b, "Auto-Submitted: auto-generated\r\nSubject: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Transfer-Encoding: 8bit\r\n\r\n%s\r\n\r\n", header.Encode(host+": "+subject), subject+".")
	for _, l := range lines {
		b.WriteString("- " + strings.Map(plain, strings.ToValidUTF8(l, "?")) + "\r\n")
	}
	fmt.Fprintf(b, "\r\n\"lazaret doctor\" on %s says what to do.\r\n", host)
	r.put(letter{to: r.cfg.Faults, what: subject, mail: b.Bytes()})
}

func plain(c rune) rune {
	if c < ' ' || c == 0x7f {
		return ' '
	}
	return c
}

// put has a mail wait to be sent, within what is allowed.
func (r *Reporter) put(l letter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	now := r.now()
	for len(r.sent) > 0 && now.Sub(r.sent[0]) > time.Hour {
		r.sent = r.sent[1:]
	}
	if len(l.mail) > maxMail {
		r.log.Warn("[mail.report] a mail to administrators is left out: it is too large", "mail", l.what, "size", len(l.mail), "limit", maxMail)
		return
	}
	if len(r.sent) >= r.cfg.PerHour {
		if r.skipped++; r.skipped == 1 {
			r.log.Warn("[mail.report] per_hour is used up: mails to administrators are left out", "per_hour", r.cfg.PerHour)
		}
		return
	}
	if r.skipped > 0 {
		l.mail = withField(l.mail, fmt.Sprintf("X-Lazaret-Left-Out: %d mails before this one, by per_hour", r.skipped))
		r.skipped = 0
	}
	select {
	case r.queue <- l:
		r.sent = append(r.sent, now)
	default:
		r.log.Error("a mail to administrators was left out: too many wait for the mail server", "mail", l.what)
	}
}

// withField returns a mail with one more field at the end of its header.
func withField(mail []byte, field string) []byte {
	i := bytes.Index(mail, []byte("\r\n\r\n"))
	if i < 0 {
		return mail
	}
	return append(append(append([]byte(nil), mail[:i+2]...), field+"\r\n"...), mail[i+2:]...)
}

func (r *Reporter) deliver(ctx context.Context) {
	defer close(r.ended)
	for l := range r.queue {
		var err error
		for n := range tries {
			if n > 0 && !r.pause(ctx) {
				break
			}
			if err = r.once(ctx, l); err == nil {
				break
			}
		}
		if err != nil {
			r.log.Error("administrators could not be mailed", "mail", l.what, "to", l.to, "error", err,
				"do", "look at [mail.report]")
		}
	}
}

// pause waits before another try. It says false where there is no time for one.
func (r *Reporter) pause(ctx context.Context) bool {
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return false
	}
	select {
	case <-time.After(r.wait):
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Reporter) once(ctx context.Context, l letter) (err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.send(ctx, l)
}

// submit hands a mail to the server.
func (r *Reporter) submit(ctx context.Context, l letter) error {
	d := submit.Delivery{Server: r.cfg.Server, To: l.to, Timeout: sendTime, NoTLS: local(r.cfg.Server)}
	return d.Send(ctx, bytes.NewReader(l.mail))
}

// local says whether a server is on this machine, where nobody listens between.
func local(server string) bool {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(server, "smtp://"))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// errProgram is a program that did not take the mail.
var errProgram = errors.New("the program did not take the mail")
