package clamd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lazaret/internal/scan"
)

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
