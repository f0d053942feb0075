package clamd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
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
	return s.every(func(l *limits) bool { return l.alert.Load() == yes })
}

// ReadsMail implements scan.MailReader: whether every clamd in use was seen to find what is attached to a mail, which not
// every one is told to (ScanMail), and to alert where it does not look.
func (s *Scanner) ReadsMail() bool {
	return s.every(func(l *limits) bool { return l.alert.Load() == yes && l.mail.Load() == yes })
}

// every says whether has is true of some clamd, and of every one that answers.
func (s *Scanner) every(has func(*limits) bool) bool {
	having := 0
	for _, p := range s.peers {
		p.mu.Lock()
		up, l := p.up, p.limits
		p.mu.Unlock()
		switch {
		case has(l):
			having++
		case up:
			return false
		}
	}
	return having > 0
}

// Punctual implements scan.Punctual: whatever is waited for, a place, a connection, a reply, ends with the context.
func (s *Scanner) Punctual() bool { return true }

// Overlooks implements scan.Overlooker: whether clamd, which opens archives by itself, could pass over o inside one in
// silence. That is a member that goes unread, or HTML or another member larger than clamd is known to read.
func (s *Scanner) Overlooks(o *scan.Object) bool {
	size := o.Body.Size()
	head := make([]byte, min(headSize, size))
	if _, err := o.Body.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return true
	}
	if size <= tooSmall {
		return false
	}
	if goesUnread(head) {
		return true
	}
	html := mayBeHTML(head)
	for _, p := range s.peers {
		p.mu.Lock()
		l := p.limits
		p.mu.Unlock()
		read, readHTML := l.file.ok.Load(), l.html.ok.Load()
		if s.cfg.MaxScanSize > 0 {
			read = int64(s.cfg.MaxScanSize)
		}
		if s.cfg.MaxHTMLSize > 0 {
			readHTML = int64(s.cfg.MaxHTMLSize)
		}
		if size > read || html && size > readHTML {
			return true
		}
	}
	return false
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

// acquire returns a session of the best address. When none can be had, it waits for the moment at which the first address
// is to be tried again, which is soon, and tries once more.
func (s *Scanner) acquire(ctx context.Context, avoid *peer) (*peer, *session, error) {
	p, session, err := s.tryEach(ctx, avoid)
	if err == nil || ctx.Err() != nil {
		return p, session, err
	}
	wait := lastPause
	for _, p := range s.peers {
		p.mu.Lock()
		wait = min(wait, time.Until(p.retryAt))
		closed := p.closed
		p.mu.Unlock()
		if closed {
			return nil, nil, err
		}
	}
	select {
	case <-time.After(wait):
		return s.tryEach(ctx, avoid)
	case <-ctx.Done():
		return nil, nil, err
	}
}

// tryEach returns a session of the best address: one that answers, and has the fewest scans under way. avoid is the one
// whose connection has just been lost, nil for none: it comes last, and then with a new connection.
func (s *Scanner) tryEach(ctx context.Context, avoid *peer) (*peer, *session, error) {
	var errs []error
	for _, p := range s.byMerit(avoid) {
		session, err := p.acquire(ctx, p == avoid)
		if err == nil {
			return p, session, nil
		}
		if ctx.Err() != nil {
			return nil, nil, err
		}
		errs = append(errs, err)
	}
	return nil, nil, &scan.Error{Reason: scan.Unavailable, Err: errors.Join(errs...)}
}

// byMerit returns the addresses, the best one first.
func (s *Scanner) byMerit(avoid *peer) []*peer {
	if len(s.peers) == 1 {
		return s.peers
	}
	type merit struct{ rank, busy int }
	turn := int(s.next.Add(1))
	merits := make(map[*peer]merit, len(s.peers))
	out := make([]*peer, 0, len(s.peers))
	for i := range s.peers {
		p := s.peers[(i+turn)%len(s.peers)]
		m := merit{busy: len(p.slots)}
		p.mu.Lock()
		if !p.up {
			m.rank = 1
		}
		p.mu.Unlock()
		if p == avoid {
			m.rank = 2
		}
		merits[p] = m
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b *peer) int {
		return cmp.Or(cmp.Compare(merits[a].rank, merits[b].rank), cmp.Compare(merits[a].busy, merits[b].busy))
	})
	return out
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
	switch {
	case err != nil:
		return false, err
	case alerts, s.cfg.MaxScanSize > 0:
		l.file.reach(size)
		return true, nil
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
