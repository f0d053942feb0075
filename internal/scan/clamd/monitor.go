package clamd

import (
	"context"
	"errors"
	"time"

	"lazaret/internal/scan"
)

// watch keeps one connection to ask for VERSION, until ctx ends. Because it is there all the time, it notices at once when
// clamd ends, and that another one is there afterwards.
func (p *peer) watch(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := p.dial(ctx)
		if err != nil {
			p.pause(ctx)
			continue
		}
		p.another()
		p.mu.Lock()
		s.of.generation = p.generation
		p.mu.Unlock()
		err = p.follow(ctx, s)
		s.close()
		p.another()
		if ctx.Err() == nil {
			p.setUp(false, err)
			p.pause(ctx)
		}
	}
}

// follow asks for VERSION again and again, and returns the error that ends it.
func (p *peer) follow(ctx context.Context, s *session) error {
	for {
		if err := p.refresh(ctx, s); err != nil {
			return err
		}
		p.trim(p.cfg.IdleTimeout.Std())
		if err := s.quiet(ctx, p.cfg.Refresh.Std()); err != nil {
			return err
		}
	}
}

// refresh asks for VERSION, and once for each clamd whether it alerts, and whether it reads mails.
func (p *peer) refresh(ctx context.Context, s *session) error {
	v, err := p.askVersion(ctx, s)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.version, p.known = v, true
	p.mu.Unlock()
	p.setUp(true, nil)
	// This is a scan, which a busy clamd has wait for others; VERSION it answers at once.
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout.Std())
	defer cancel()
	for _, ask := range []func(*limits, context.Context, *peer, *session) (bool, error){(*limits).alerts, (*limits).readsMail} {
		_, err = ask(p.limitsOf(s), ctx, p, s)
		if errors.Is(err, errNoFile) && p.reopen(ctx, s) == nil {
			_, err = ask(p.limitsOf(s), ctx, p, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) askVersion(ctx context.Context, s *session) (scan.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CommandTimeout.Std())
	defer cancel()
	text, err := s.command(ctx, "VERSION")
	if err != nil {
		return scan.Version{}, err
	}
	return parseVersion(text)
}

// pause waits before the next connection is tried.
func (p *peer) pause(ctx context.Context) {
	p.mu.Lock()
	wait := max(time.Until(p.retryAt), firstPause)
	p.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}
