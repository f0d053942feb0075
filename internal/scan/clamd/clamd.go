package clamd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/scan"
)

// Scanner asks one clamd or several. It implements scan.Scanner, scan.Unpacker, scan.Versioner and scan.Closer.
type Scanner struct {
	name    string
	cfg     Config
	log     *slog.Logger
	loaded  func() string
	peers   []*peer
	next    atomic.Uint32 // whose turn it is among equals
	stop    context.CancelFunc
	stopped sync.WaitGroup
}

// Option changes what New makes.
type Option func(*Scanner)

// WithLogger has the Scanner log to l when an address begins or ceases to answer. Without it nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(s *Scanner) { s.log = l } }

// WithName has the Scanner be called name, rather than "clamd".
func WithName(name string) Option { return func(s *Scanner) { s.name = name } }

// WithLoaded tells the Scanner what signatures clamd has loaded: f returns a word that changes whenever they do, at once,
// and from memory; empty: not known. It is for a clamd that we run ourselves. Without it, a clamd whose database has no
// number has no version, and so its verdicts are not remembered.
func WithLoaded(f func() string) Option { return func(s *Scanner) { s.loaded = f } }

// New returns a Scanner for cfg, or an error when cfg cannot be used. It does not wait for any clamd, and none has to be
// there yet. Close ends it.
func New(cfg Config, opts ...Option) (*Scanner, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Scanner{
		name: "clamd", cfg: cfg, log: slog.New(slog.DiscardHandler),
		loaded: func() string { return "" },
	}
	for _, o := range opts {
		o(s)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, a := range cfg.Addresses {
		e, err := parseEndpoint(a)
		if err != nil {
			stop()
			return nil, err
		}
		s.peers = append(s.peers, newPeer(e, cfg, s.log))
	}
	for _, p := range s.peers {
		s.stopped.Go(func() { p.watch(ctx) })
	}
	return s, nil
}

// Close ends every connection that is not in use, and waits for the goroutines that watch. Scans under way go on to their
// end; later ones are Incomplete. It returns nil, and may be called again.
func (s *Scanner) Close() error {
	for _, p := range s.peers {
		p.close()
	}
	s.stop()
	s.stopped.Wait()
	return nil
}

// Name implements scan.Scanner.
func (s *Scanner) Name() string { return s.name }

// Unpacks implements scan.Unpacker. clamd opens archives by itself, but when it does not alert (AlertExceedsMax) it passes
// over members beyond its limits in silence: it only counts as unpacking while every address that answers is known to
// alert.
func (s *Scanner) Unpacks() bool {
	alerting := 0
	for _, p := range s.peers {
		p.mu.Lock()
		up, l := p.up, p.limits
		p.mu.Unlock()
		switch {
		case l.alert.Load() == yes:
			alerting++
		case up:
			return false
		}
	}
	return alerting > 0
}

// Scan implements scan.Scanner. Its errors carry their scan.Reason.
func (s *Scanner) Scan(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	if o == nil || o.Body == nil {
		return scan.Verdict{}, errors.New("an object without a body")
	}
	if limit := int64(s.cfg.MaxScanSize); limit > 0 && o.Body.Size() > limit {
		return scan.IncompleteVerdict(scan.TooLarge, "%s: %d bytes are more than max_scan_size (%v)", s.name, o.Body.Size(), s.cfg.MaxScanSize), nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Std())
	defer cancel()
	lost, noFile := 0, 0
	var avoid *peer
	for {
		p, session, err := s.acquire(ctx, avoid)
		if err != nil {
			return scan.Verdict{}, err
		}
		v, err := s.judge(ctx, p, session, o)
		p.release(session, err == nil && v.Outcome != scan.Incomplete)
		p.count(err)
		switch {
		case err == nil:
			return v, nil
		case errors.Is(err, errNoFile) && noFile < len(s.peers):
			noFile++
		case errors.Is(err, errLost) && lost == 0 && ctx.Err() == nil:
			// A connection that was kept may have ended meanwhile, or clamd have been started anew. But an object that
			// ends clamd itself is not carried from one to the next: once only.
			lost++
			avoid = p
			p.mu.Lock()
			p.counts.retried++
			p.mu.Unlock()
		default:
			return scan.Verdict{}, err
		}
	}
}

// acquire returns a session of the best address: one that answers, and has the fewest scans under way. avoid is the one
// whose connection has just been lost, nil for none: it comes last, and then with a new connection.
func (s *Scanner) acquire(ctx context.Context, avoid *peer) (*peer, *session, error) {
	type candidate struct {
		*peer
		rank, busy int
	}
	turn := int(s.next.Add(1))
	all := make([]candidate, 0, len(s.peers))
	for i := range s.peers {
		p := s.peers[(i+turn)%len(s.peers)]
		c := candidate{peer: p, busy: len(p.slots)}
		p.mu.Lock()
		if !p.up {
			c.rank = 1
		}
		p.mu.Unlock()
		if p == avoid {
			c.rank = 2
		}
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.busy, b.busy))
	})
	var errs []error
	for _, c := range all {
		session, err := c.acquire(ctx, c.peer == avoid)
		if err == nil {
			return c.peer, session, nil
		}
		if ctx.Err() != nil {
			return nil, nil, err
		}
		errs = append(errs, err)
	}
	return nil, nil, &scan.Error{Reason: scan.Unavailable, Err: errors.Join(errs...)}
}

// judge asks the clamd of one session about o, and whether it has read o whole.
func (s *Scanner) judge(ctx context.Context, p *peer, session *session, o *scan.Object) (scan.Verdict, error) {
	r, err := p.ask(ctx, session, o.Body)
	if err != nil {
		return scan.Verdict{}, err
	}
	v := r.verdict(s.name, o.Path)
	if v.Outcome != scan.Clean || o.Body.Size() <= tooSmall {
		return v, nil
	}
	v, err = s.verify(ctx, p, session, o)
	// The verdict stands even if the connection does not: what is left to ask is asked over another one.
	for try := 0; try < mostQuestions && errors.Is(err, errLost) && p.reopen(ctx, session) == nil; try++ {
		v, err = s.verify(ctx, p, session, o)
	}
	return v, err
}

// mostQuestions is how many verify can have: whether clamd alerts, two sizes it reads, and the object again.
const mostQuestions = 4

// verify says whether clamd, having said OK to o over session, has read it whole: Clean if so.
func (s *Scanner) verify(ctx context.Context, p *peer, session *session, o *scan.Object) (scan.Verdict, error) {
	size := o.Body.Size()
	head := make([]byte, min(headSize, size))
	if _, err := o.Body.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return scan.Verdict{}, &sourceError{err}
	}
	l := p.limitsOf(session)
	fits, err := s.fits(ctx, p, session, l, size)
	if err != nil {
		return scan.Verdict{}, err
	}
	if !fits {
		return scan.IncompleteVerdict(scan.TooLarge, "%s: clamd at %s says OK to %d bytes that it does not read (MaxFileSize, MaxScanSize)", s.name, p.at, size), nil
	}
	if mayBeHTML(head) {
		fits, err := s.fitsHTML(ctx, p, session, l, size)
		if err != nil {
			return scan.Verdict{}, err
		}
		if !fits {
			return scan.IncompleteVerdict(scan.TooLarge, "%s: clamd at %s says OK to HTML of %d bytes that it does not read (MaxHTMLNormalize)", s.name, p.at, size), nil
		}
	}
	if goesUnread(head) {
		r, err := session.scan(ctx, prefixed{[]byte{'\n'}, o.Body}, false)
		if err != nil {
			return scan.Verdict{}, err
		}
		return r.verdict(s.name, o.Path), nil
	}
	return scan.CleanVerdict(), nil
}

// fits says whether clamd reads objects of the given size: either because it would have said so if it did not, or because
// it was found out.
func (s *Scanner) fits(ctx context.Context, p *peer, session *session, l *limits, size int64) (bool, error) {
	alerts, err := l.alerts(ctx, p, session)
	if err != nil || alerts || s.cfg.MaxScanSize > 0 {
		return err == nil, err
	}
	return l.reads(ctx, p, session, size)
}

// fitsHTML says whether clamd reads HTML of the given size.
func (s *Scanner) fitsHTML(ctx context.Context, p *peer, session *session, l *limits, size int64) (bool, error) {
	if s.cfg.MaxHTMLSize > 0 {
		return size <= int64(s.cfg.MaxHTMLSize), nil
	}
	return l.readsHTML(ctx, p, session, size)
}

// handsOver says whether FILDES is used on s.
func (p *peer) handsOver(_ *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at.network == "unix" && !p.noFiles
}

// ask asks about src over s, by FILDES where that works. The error errNoFile says that it does not, which is remembered;
// s is then of no more use, and the next ask sends the bytes.
func (p *peer) ask(ctx context.Context, s *session, src source) (reply, error) {
	handOver := p.handsOver(s)
	r, err := s.scan(ctx, src, handOver)
	if handOver && err == nil && r.kind == replyError && noDescriptor(r.text) {
		err = fmt.Errorf("%w: clamd says: %s", errNoFile, r.text)
	}
	if handOver && errors.Is(err, errNoFile) {
		p.mu.Lock()
		first := !p.noFiles
		p.noFiles = true
		p.mu.Unlock()
		if first {
			p.log.Warn("files cannot be handed over to clamd, so their bytes are sent", "error", err)
		}
	}
	return r, err
}

// count keeps the numbers for State.
func (p *peer) count(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.scans++
	if err != nil {
		p.counts.failed++
	}
}

// Version implements scan.Versioner: what the addresses that answer would judge with, as they said last. Signatures has
// the database's number, and a count that grows when clamd may have been started anew; ok is false while nobody answers,
// and where neither the database has a number nor WithLoaded was given.
func (s *Scanner) Version() (scan.Version, bool) {
	var out scan.Version
	var engines, signatures []string
	for _, p := range s.peers {
		p.mu.Lock()
		v, known, up, generation := p.version, p.known, p.up, p.generation
		p.mu.Unlock()
		if !up {
			continue
		}
		if !known {
			return scan.Version{}, false
		}
		number := v.Signatures
		if loaded := s.loaded(); loaded != "" {
			number = strings.Trim(number+" "+loaded, " ")
		}
		if number == "" {
			return scan.Version{}, false
		}
		if generation > 1 {
			number += "+" + strconv.FormatUint(generation-1, 10)
		}
		engines, signatures = append(engines, v.Engine), append(signatures, number)
		if out.Updated.IsZero() || v.Updated.Before(out.Updated) {
			out.Updated = v.Updated
		}
	}
	out.Engine = strings.Join(distinct(engines), ", ")
	out.Signatures = strings.Join(distinct(signatures), ", ")
	return out, out.Engine != ""
}

func distinct(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

// State is what is known of one address, for people and metrics.
type State struct {
	Address string
	Up      bool      // it answered last
	Since   time.Time // when Up became what it is
	Err     error     // why it is not up
	Version scan.Version
	Limits  Limits
	// HandsOver says that objects are handed over as files (FILDES), rather than sent (INSTREAM).
	HandsOver bool
	// Busy and Idle count connections; Scans, Failed and Retried count questions since the start.
	Busy, Idle             int
	Scans, Failed, Retried int64
}

// States returns the state of each address, in their order.
func (s *Scanner) States() []State {
	out := make([]State, 0, len(s.peers))
	for _, p := range s.peers {
		p.mu.Lock()
		st := State{
			Address: p.at.String(), Up: p.up, Since: p.since, Err: p.err, HandsOver: p.at.network == "unix" && !p.noFiles,
			Busy: len(p.slots), Idle: len(p.idle), Scans: p.counts.scans, Failed: p.counts.failed, Retried: p.counts.retried,
		}
		if p.known {
			st.Version = p.version
		}
		l := p.limits
		p.mu.Unlock()
		st.Limits = l.known()
		out = append(out, st)
	}
	return out
}

// Ping asks every address whether it is there. It returns nil when at least one answers, else their errors joined.
func (s *Scanner) Ping(ctx context.Context) error {
	return s.anyone(ctx, "PING", "PONG", false)
}

// Reload has every address read its signatures anew. It returns once they have said that they will; the errors of those
// that have not are joined.
func (s *Scanner) Reload(ctx context.Context) error {
	return s.anyone(ctx, "RELOAD", "RELOADING", true)
}

// anyone sends command to every address on a connection of its own, outside of a session. It returns the joined errors,
// when there are any and all were to work, or none has.
func (s *Scanner) anyone(ctx context.Context, command, want string, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CommandTimeout.Std())
	defer cancel()
	errs := make([]error, len(s.peers))
	var wg sync.WaitGroup
	for i, p := range s.peers {
		wg.Go(func() {
			if got, err := Command(ctx, p.at.String(), command); err != nil {
				errs[i] = fmt.Errorf("%s: %w", p.at, err)
			} else if got != want {
				errs[i] = fmt.Errorf("%s: the reply to %s is %s, not %s", p.at, command, quote([]byte(got)), want)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil && (all || !slices.Contains(errs, nil)) {
		return err
	}
	return nil
}

// Command connects to the clamd at address ("unix:/path", "tcp:host:port"), sends it one command that has neither argument
// nor data, such as PING, VERSION or RELOAD, and returns its reply.
func Command(ctx context.Context, address, command string) (string, error) {
	e, err := parseEndpoint(address)
	if err != nil {
		return "", err
	}
	s, err := connect(ctx, e, 0)
	if err != nil {
		return "", err
	}
	defer s.close()
	defer s.until(ctx)()
	if _, err := io.WriteString(s.conn, "z"+command+"\x00"); err != nil {
		return "", ioError(ctx, err)
	}
	line, err := s.readReply(ctx)
	return string(line), err
}
