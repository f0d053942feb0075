package clamd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"lazaret/internal/scan"
	"lazaret/internal/units"
)

// Limits is what is known of the limits of a clamd.
type Limits struct {
	// Alerts says whether clamd reports what it did not look at (AlertExceedsMax), rather than saying OK.
	Alerts bool
	// Read and HTML are the largest sizes, of any object and of HTML, that clamd is known to read; Unread and UnreadHTML the
	// smallest that it is known not to read. Zero: not known.
	Read, Unread, HTML, UnreadHTML units.Size
}

// tooSmall is the size up to which clamd says OK to anything: no signature is so short.
const tooSmall = 5

// answer is one that may not be there yet.
type answer = uint32

const (
	unasked answer = iota
	no
	yes
)

// limits is what is known of one clamd's limits. It is found out when it is needed, by one scan at a time.
type limits struct {
	of    identity
	turn  chan struct{} // held while something is found out
	alert atomic.Uint32 // an answer: whether what exceeds the limits is reported
	mail  atomic.Uint32 // an answer: whether what is attached to a mail is found
	file  bound
	html  bound
}

func newLimits(of identity) *limits { return &limits{of: of, turn: make(chan struct{}, 1)} }

// bound is a limit that is known from below and from above; zero: it is not. Only the holder of the turn changes it.
type bound struct{ ok, bad atomic.Int64 }

// reach notes that clamd reads size.
func (b *bound) reach(size int64) {
	for {
		ok := b.ok.Load()
		if size <= ok || b.ok.CompareAndSwap(ok, size) {
			return
		}
	}
}

func (l *limits) enter(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *limits) leave() { <-l.turn }

// known returns what is known now.
func (l *limits) known() Limits {
	return Limits{
		Alerts: l.alert.Load() == yes,
		Read:   units.Size(l.file.ok.Load()), Unread: units.Size(l.file.bad.Load()),
		HTML: units.Size(l.html.ok.Load()), UnreadHTML: units.Size(l.html.bad.Load()),
	}
}

// alerts says whether the clamd of s reports what exceeds its limits. It asks once.
func (l *limits) alerts(ctx context.Context, p *peer, s *session) (bool, error) {
	return l.once(ctx, p, s, &l.alert, deepZip(), func(r reply) bool {
		if r.kind == replyFound && strings.HasPrefix(r.text, limitPrefix) {
			return true
		}
		p.log.Warn("clamd says OK to what exceeds its limits, so the sizes that it reads are found out by trying; better set AlertExceedsMax to yes in clamd.conf")
		return false
	})
}

// readsMail says whether the clamd of s finds what is attached to a mail. It asks once.
func (l *limits) readsMail(ctx context.Context, p *peer, s *session) (bool, error) {
	return l.once(ctx, p, s, &l.mail, attached(), func(r reply) bool {
		if r.kind == replyFound && limitReason(r.text) == scan.NoReason {
			return true
		}
		p.log.Warn("clamd does not find what is attached to a mail, so it is asked about each attachment; better set ScanMail to yes in clamd.conf")
		return false
	})
}

// once asks the clamd of s about probe, unless that was done before, and keeps what says makes of the reply.
func (l *limits) once(ctx context.Context, p *peer, s *session, kept *atomic.Uint32, probe []byte, says func(reply) bool) (bool, error) {
	if known := kept.Load(); known != unasked {
		return known == yes, nil
	}
	if err := l.enter(ctx); err != nil {
		return false, err
	}
	defer l.leave()
	if known := kept.Load(); known != unasked {
		return known == yes, nil
	}
	r, err := p.ask(ctx, s, padded{head: probe, size: int64(len(probe))})
	switch {
	case err != nil:
		return false, err
	case r.kind == replyError:
		return false, probeError(r)
	case says(r):
		kept.Store(yes)
		return true, nil
	}
	kept.Store(no)
	return false, nil
}

// probeError returns the error that an ERROR reply to one of our own questions amounts to.
func probeError(r reply) error {
	return &scan.Error{Reason: errorReason(r.text), Err: errors.New("clamd was asked about its limits, and says: " + r.text)}
}

// reads says whether the clamd of s reads objects of the given size.
func (l *limits) reads(ctx context.Context, p *peer, s *session, size int64) (bool, error) {
	return l.fits(ctx, p, s, &l.file, padded{head: gzipHead()}, size)
}

// readsHTML says whether the clamd of s reads HTML of the given size.
func (l *limits) readsHTML(ctx context.Context, p *peer, s *session, size int64) (bool, error) {
	return l.fits(ctx, p, s, &l.html, padded{head: htmlHead()}, size)
}

// fits says whether size is within b, and asks clamd about a probe where that is not known. The answer for a size holds
// for all smaller ones when it is yes, and for all larger ones when it is no.
func (l *limits) fits(ctx context.Context, p *peer, s *session, b *bound, probe padded, size int64) (bool, error) {
	size = max(size, int64(len(probe.head)))
	if size <= b.ok.Load() {
		return true, nil
	}
	if err := l.enter(ctx); err != nil {
		return false, err
	}
	defer l.leave()
	for probe.size = p.probeSize(s, size); ; probe.size = size {
		bad := b.bad.Load()
		switch {
		case size <= b.ok.Load():
			return true, nil
		case bad > 0 && size >= bad:
			return false, nil
		case bad > 0 && probe.size >= bad:
			probe.size = size
		}
		r, err := p.ask(ctx, s, probe)
		switch {
		case err != nil:
			return false, err
		case r.kind == replyFound && limitReason(r.text) == scan.NoReason:
			b.reach(probe.size)
		case r.kind == replyError && errorReason(r.text) != scan.TooLarge:
			return false, probeError(r)
		default:
			// A stream that was too long has ended the session too: the next question is lost, and asked anew.
			b.bad.Store(probe.size)
		}
	}
}

// probeSize returns what size to ask about, to know of size: more at once costs little, and spares other probes. Where
// the bytes have to be sent that is done for small ones only.
func (p *peer) probeSize(s *session, size int64) int64 {
	upTo := int64(1 << 20)
	if p.handsOver(s) {
		upTo = 64 << 20
	}
	up := int64(1 << 20)
	for up < size {
		up *= 2
	}
	if up > upTo {
		return size
	}
	return up
}
