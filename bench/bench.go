package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"lazaret/bench/internal/load"
	"lazaret/bench/internal/peers"
	"lazaret/bench/internal/proc"
)

// bench is one run of the benchmark.
type bench struct {
	options
	env    peers.Env
	origin *peers.Origin
	clamd  *peers.Clamd
	res    *results
	say    func(format string, args ...any) // progress, on standard error
}

// instance is a running alternative and the way through it.
type instance struct {
	peers.Alternative
	run   *peers.Running
	route load.Route
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o, res: newResults(o), say: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}}
	if slices.ContainsFunc(o.alternatives, func(a peers.Alternative) bool { return a.Name != peers.Direct }) {
		if err := peers.Install(ctx, b.say); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "lazaret-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			b.say("settings and logs are in %s", dir)
		} else if e := os.RemoveAll(dir); e != nil {
			err = errors.Join(err, e)
		}
	}()
	// Squid runs as another user when root starts it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if b.origin, err = peers.StartOrigin(ctx, dir); err != nil {
		return err
	}
	defer b.origin.Stop()
	b.say("starting clamd with %d body signatures and %d hashes", o.database.Bodies, o.database.Hashes)
	if b.clamd, err = peers.StartClamd(ctx, dir, o.database); err != nil {
		return err
	}
	defer b.clamd.Stop()
	lazaret, err := filepath.Abs(o.lazaret)
	if err != nil {
		return err
	}
	b.env = peers.Env{Dir: dir, OriginCA: b.origin.CAFile, ClamdSocket: b.clamd.Socket, Lazaret: lazaret}
	if err := b.measureAll(ctx); err != nil {
		return err
	}
	return b.finish()
}

// finish prints and keeps the results.
func (b *bench) finish() error {
	b.res.conclude()
	name := filepath.Join(b.out, b.res.Begun.UTC().Format("20060102T150405Z"))
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name+".txt", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	b.res.print(io.MultiWriter(os.Stdout, f))
	if err := b.res.save(name + ".json"); err != nil {
		return err
	}
	b.say("kept in %s.txt and .json", name)
	return b.res.verdict()
}

// start runs an instance of a and checks that it does what it must.
func (b *bench) start(ctx context.Context, a peers.Alternative) (*instance, error) {
	r, err := a.Start(ctx, b.env)
	if err != nil {
		return nil, err
	}
	in := &instance{Alternative: a, run: r, route: load.Route{Proxy: r.Proxy}}
	if in.route.Roots, err = r.Roots(); err != nil {
		r.Stop()
		return nil, err
	}
	if err := b.check(ctx, in, "at the start"); err != nil {
		r.Stop()
		return nil, err
	}
	return in, nil
}

// measureAll goes through the scenarios: first those that need new processes, one alternative after the other, and then the
// others, on processes that all live through them, in rounds.
func (b *bench) measureAll(ctx context.Context) error {
	for _, s := range b.scenarios {
		for _, a := range b.alternatives {
			if !s.fresh || a.Name == peers.Direct { // there is no gateway that could use memory
				continue
			}
			in, err := b.start(ctx, a)
			if err != nil {
				return err
			}
			err = b.one(ctx, s, in, 0)
			in.run.Stop()
			if err != nil {
				return err
			}
		}
	}
	if !slices.ContainsFunc(b.scenarios, func(s scenario) bool { return !s.fresh }) {
		return nil
	}
	var all []*instance
	defer func() {
		for _, in := range all {
			in.run.Stop()
		}
	}()
	for _, a := range b.alternatives {
		in, err := b.start(ctx, a)
		if err != nil {
			return err
		}
		all = append(all, in)
	}
	for _, s := range b.scenarios {
		if s.fresh {
			continue
		}
		rounds := b.rounds
		if s.atMost > 0 {
			rounds = min(rounds, s.atMost)
		}
		for round := range rounds {
			for _, in := range all {
				if err := b.one(ctx, s, in, round); err != nil {
					return err
				}
			}
		}
	}
	for _, in := range all {
		if err := b.check(ctx, in, "at the end"); err != nil {
			return err
		}
	}
	return nil
}

// one measures one alternative in one round of one scenario and keeps the sample.
func (b *bench) one(ctx context.Context, s scenario, in *instance, round int) error {
	if n, _ := b.res.failures(s.name, in.Name); n >= 2 {
		return nil // it would only fail again, and take as long
	}
	b.say("%s, round %d: %s", s.name, round+1, in.Name)
	sample, err := s.run(ctx, b, in, round)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, in.Name, err)
	}
	if err := errors.Join(in.run.Health(), b.health()); err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, in.Name, err)
	}
	sample.Scenario, sample.Alternative, sample.Round = s.name, in.Name, round
	b.res.Samples = append(b.res.Samples, sample)
	return nil
}

func (b *bench) health() error {
	for _, c := range []*peers.Child{b.origin.Child, b.clamd.Child} {
		if !c.Running() {
			return c.Fault("has ended")
		}
	}
	return nil
}

// usage is the processor time that was used while something ran.
type usage struct {
	gateway, clamd, origin, client time.Duration
	others                         float64 // share of all processors that neither of these had, the kernel's own work included
	stolen                         float64 // share of all processors that the hypervisor took
}

// spend says what f uses. The operating system counts in steps of 10 ms.
func (b *bench) spend(in *instance, f func()) (usage, error) {
	before, err := b.clocks(in)
	if err != nil {
		return usage{}, err
	}
	began := time.Now()
	f()
	elapsed := time.Since(began)
	after, err := b.clocks(in)
	if err != nil {
		return usage{}, err
	}
	var d clocks
	for i := range d {
		d[i] = after[i] - before[i]
	}
	u := usage{gateway: d[0], clamd: d[1], origin: d[2], client: d[3]}
	capacity := elapsed.Seconds() * float64(runtime.NumCPU())
	u.others = max(0, (d[4]-d[0]-d[1]-d[2]-d[3]).Seconds()/capacity)
	u.stolen = d[5].Seconds() / capacity
	return u, nil
}

// clocks are processor times: gateway, clamd, origin, client, everything on the machine, stolen.
type clocks [6]time.Duration

func (b *bench) clocks(in *instance) (c clocks, err error) {
	if c[0], err = proc.CPU(in.run.PIDs()...); err != nil {
		return c, err
	}
	if c[1], err = proc.CPU(b.clamd.PID()); err != nil {
		return c, err
	}
	if c[2], err = proc.CPU(b.origin.PID()); err != nil {
		return c, err
	}
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return c, err
	}
	c[3] = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	c[4], c[5], err = proc.Busy()
	return c, err
}
