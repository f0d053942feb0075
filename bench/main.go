// Command bench compares ways from a client to an HTTPS site: direct, through lazaret, and through what people use today,
// Squid with c-icap and clamd. Everything runs on loopback in one go. See README.md for what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"lazaret/bench/internal/origin"
	"lazaret/bench/internal/peers"
)

// options is what the command line says.
type options struct {
	alternatives []peers.Alternative
	scenarios    []scenario
	duration     time.Duration
	warmup       time.Duration
	rounds       int
	visits       int
	connections  int
	crowd        int
	database     peers.Database
	lazaret      string
	out          string
	keep         bool
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == peers.OriginCommand {
		if err := origin.Serve(context.Background(), os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	var alternatives, chosen string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&alternatives, "alternatives", "all", "comma-separated: "+names(peers.Alternatives, alternativeName))
	f.StringVar(&chosen, "scenarios", "all", "comma-separated, a name or the beginning of names: "+names(scenarios, scenarioName))
	f.DurationVar(&o.duration, "duration", 1500*time.Millisecond, "how long one alternative is loaded in one round of a scenario")
	f.DurationVar(&o.warmup, "warmup", 300*time.Millisecond, "how long it is loaded before that without being measured")
	f.IntVar(&o.rounds, "rounds", 3, "rounds; the tables show the medians")
	f.IntVar(&o.visits, "visits", 40, "hosts that are visited for the first time in one round")
	f.IntVar(&o.connections, "idle", 1000, "connections of the scenario idle")
	f.IntVar(&o.crowd, "crowd", 20, "downloads at the same time in the scenario 100m-crowd")
	f.IntVar(&o.database.Bodies, "db-bodies", 20_000, "body signatures in clamd's database")
	f.IntVar(&o.database.Hashes, "db-hashes", 200_000, "hashes in clamd's database")
	f.StringVar(&o.lazaret, "lazaret", "bin/lazaret", "the lazaret program")
	f.StringVar(&o.out, "out", "bench/out", "folder for the results")
	f.BoolVar(&o.keep, "keep", false, "keep the temporary folder with settings and logs")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected %q: everything is said with flags, see -help", f.Arg(0))
	}
	var err error
	if o.alternatives, err = choose(peers.Alternatives, alternatives, alternativeName); err != nil {
		return o, fmt.Errorf("-alternatives: %w", err)
	}
	if o.scenarios, err = choose(scenarios, chosen, scenarioName); err != nil {
		return o, fmt.Errorf("-scenarios: %w", err)
	}
	if o.duration <= 0 || o.warmup < 0 || o.rounds < 1 || o.visits < 1 || o.connections < 1 || o.crowd < 1 || o.database.Bodies < 0 || o.database.Hashes < 0 {
		return o, errors.New("durations and numbers must be greater than zero")
	}
	return o, nil
}

func alternativeName(a peers.Alternative) string { return a.Name }

func scenarioName(s scenario) string { return s.name }

func names[T any](all []T, name func(T) string) string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = name(v)
	}
	return strings.Join(out, ", ")
}

// choose returns those of all whose names, or the beginnings of them, are in the comma-separated list, in the order of all.
func choose[T any](all []T, list string, name func(T) string) ([]T, error) {
	if list == "all" {
		return all, nil
	}
	take := make([]bool, len(all))
	for want := range strings.SplitSeq(list, ",") {
		want = strings.TrimSpace(want)
		exact, some := -1, false
		for i, v := range all {
			if name(v) == want {
				exact = i
			}
		}
		for i, v := range all {
			if i == exact || (exact < 0 && want != "" && strings.HasPrefix(name(v), want)) {
				take[i], some = true, true
			}
		}
		if !some {
			return nil, fmt.Errorf("%q is not known; there are: %s", want, names(all, name))
		}
	}
	var out []T
	for i, v := range all {
		if take[i] {
			out = append(out, v)
		}
	}
	return out, nil
}
