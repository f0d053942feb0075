// Command pop3 measures what it costs to have lazaret between a mail program and its server: the retrieval of many mails,
// the memory of many sessions, and that of one very large mail. Everything runs on loopback in one go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"lazaret/bench/internal/peers"
	"lazaret/bench/internal/proc"
	"lazaret/test/ports"
)

// The marks that the gateway is held to.
const (
	maxRatio    = 1.3
	maxSessions = 100 << 20
	mailSize    = 10 << 10
	largeSize   = 50 << 20
)

type options struct {
	lazaret  string
	mails    int
	sessions int
	rounds   int
	database peers.Database
}

func main() {
	var o options
	flag.StringVar(&o.lazaret, "lazaret", "bin/lazaret", "the lazaret program")
	flag.IntVar(&o.mails, "mails", 1000, "mails of 10 KB that are retrieved")
	flag.IntVar(&o.sessions, "sessions", 500, "sessions that are open at once")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds; medians are shown")
	flag.IntVar(&o.database.Bodies, "db-bodies", 20_000, "body signatures in clamd's database")
	flag.IntVar(&o.database.Hashes, "db-hashes", 200_000, "hashes in clamd's database")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/pop3:", err)
		os.Exit(1)
	}
}

// lab is what runs.
type lab struct {
	mails   *mailServer
	clamd   *peers.Clamd
	gateway *peers.Child
	addr    string // of the gateway
}

func run(ctx context.Context, o options) error {
	if o.mails < 1 || o.sessions < 1 || o.rounds < 1 {
		return errors.New("numbers must be greater than zero")
	}
	dir, err := os.MkdirTemp("", "lazaret-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // clamd may run as another user
		return err
	}
	l, err := start(ctx, o, dir)
	if l != nil {
		defer l.stop()
	}
	if err != nil {
		return err
	}
	return errors.Join(l.retrieval(o), l.memoryOfSessions(o), l.memoryOfOne())
}

func start(ctx context.Context, o options, dir string) (l *lab, err error) {
	l = &lab{}
	if l.clamd, err = peers.StartClamd(ctx, dir, o.database); err != nil {
		return l, err
	}
	if l.mails, err = newMailServer(); err != nil {
		return l, err
	}
	admin, err := ports.Free()
	if err != nil {
		return l, err
	}
	if l.addr, err = ports.Free(); err != nil {
		return l, err
	}
	conf := filepath.Join(dir, "lazaret.toml")
	settings := fmt.Sprintf("state_dir = %q\n[web]\nlisten = []\n[pop3]\nlisten = [%q]\nupstream = %q\nmax_sessions_per_client = 10000\n"+
		"[admin]\nlisten = %q\n[[scanner]]\ntype = \"clamd\"\naddress = %q\n",
		filepath.Join(dir, "state"), l.addr, l.mails.addr(), admin, "unix:"+l.clamd.Socket)
	if err := os.WriteFile(conf, []byte(settings), 0o600); err != nil {
		return l, err
	}
	if l.gateway, err = peers.Start("lazaret", dir, o.lazaret, "run", "--config", conf); err != nil {
		return l, fmt.Errorf("%w: run `make build`", err)
	}
	return l, l.gateway.WaitReady(ctx, time.Minute, func() error {
		resp, err := http.Get("http://" + admin + "/readyz") //nolint:noctx // WaitReady bounds it
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func (l *lab) stop() {
	if l.gateway != nil {
		l.gateway.Stop()
	}
	if l.clamd != nil {
		l.clamd.Stop()
	}
	if l.mails != nil {
		_ = l.mails.l.Close() // the process ends next
	}
}

// retrieval compares the gateway with a direct retrieval and what clamd alone needs for the same mails. Each round has new
// mails, so that nothing is remembered.
func (l *lab) retrieval(o options) error {
	for _, mode := range []struct {
		name  string
		ahead int
	}{{"one command at a time", 1}, {"pipelining", 50}} {
		var ratios []float64
		var direct, scans, through []time.Duration
		for range o.rounds {
			l.mails.fill(o.mails, mailSize)
			d, err := timed(func() error { return retrieve(l.mails.addr(), o.mails, mode.ahead, l.mails.sum()) })
			if err != nil {
				return fmt.Errorf("direct: %w", err)
			}
			s, err := timed(func() error { return scanAll(l.clamd.Socket, l.mails.all()) })
			if err != nil {
				return fmt.Errorf("clamd alone: %w", err)
			}
			// What clamd remembers by checksum would help the second one to ask.
			l.mails.fill(o.mails, mailSize)
			g, err := timed(func() error { return retrieve(l.addr, o.mails, mode.ahead, l.mails.sum()) })
			if err != nil {
				return fmt.Errorf("through lazaret: %w", err)
			}
			direct, scans, through = append(direct, d), append(scans, s), append(through, g)
			ratios = append(ratios, g.Seconds()/(d+s).Seconds())
		}
		ratio := median(ratios)
		fmt.Printf("%d mails of %d KiB, %s: direct %v, clamd alone %v, through lazaret %v: %.2f times direct and clamd (mark: %.1f)%s\n",
			o.mails, mailSize>>10, mode.name, median(direct).Round(time.Millisecond), median(scans).Round(time.Millisecond),
			median(through).Round(time.Millisecond), ratio, maxRatio, verdict(ratio <= maxRatio))
	}
	return nil
}

func verdict(ok bool) string {
	if ok {
		return ": reached"
	}
	return ": NOT REACHED"
}

func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}

func median[T float64 | time.Duration](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// memoryOfSessions opens sessions that have each had one mail, and wait.
func (l *lab) memoryOfSessions(o options) error {
	l.mails.fill(1, mailSize)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close() // the gateway is ended next
		}
	}()
	for range o.sessions {
		c, err := login(l.addr)
		if err != nil {
			return fmt.Errorf("session %d: %w", len(conns)+1, err)
		}
		conns = append(conns, c.conn)
		if _, err := c.fetch(1); err != nil {
			return fmt.Errorf("session %d: %w", len(conns), err)
		}
	}
	m, err := proc.MemoryOf(l.gateway.PID())
	if err != nil {
		return err
	}
	fmt.Printf("%d sessions: lazaret has %.1f MiB (mark: %d MiB)%s\n", o.sessions, float64(m.PSS)/(1<<20), maxSessions>>20, verdict(m.PSS < maxSessions))
	return nil
}

// memoryOfOne fetches one very large mail.
func (l *lab) memoryOfOne() error {
	l.mails.fill(1, largeSize)
	before, err := proc.MemoryOf(l.gateway.PID())
	if err != nil {
		return err
	}
	if err := proc.ResetPeak(l.gateway.PID()); err != nil {
		return err
	}
	took, err := timed(func() error { return retrieve(l.addr, 1, 1, l.mails.sum()) })
	if err != nil {
		return fmt.Errorf("the large mail: %w", err)
	}
	after, err := proc.MemoryOf(l.gateway.PID())
	if err != nil {
		return err
	}
	grown := after.Peak - before.RSS
	fmt.Printf("one mail of %d MiB: %v, and lazaret's memory grew by %.1f MiB at most%s\n", largeSize>>20, took.Round(time.Millisecond), float64(grown)/(1<<20),
		verdict(grown < largeSize/2))
	return nil
}
