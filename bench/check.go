package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"lazaret/bench/internal/load"
	"lazaret/bench/internal/origin"
	"lazaret/bench/internal/peers"
	"lazaret/internal/scan"
)

// check is the record of one look at whether an alternative scans.
type check struct {
	Alternative string `json:"alternative"`
	When        string `json:"when"`
	What        string `json:"what"`
	Arrived     bool   `json:"arrived"` // EICAR reached the client
	Expected    bool   `json:"expected"`
	Answer      string `json:"answer"` // what the client saw
}

// check sees whether a clean body arrives whole and EICAR only where nobody scans. A benchmark of a proxy that does not scan is
// void, and so is one of a check that sees nothing: where nobody scans, EICAR must arrive. It returns an error when not even a
// clean body arrives; the rest is for the results.
func (b *bench) check(ctx context.Context, in *instance, when string) error {
	c := load.New(in.route)
	defer c.Close()
	const size = 1024
	once, cancel := context.WithTimeout(ctx, 20*time.Second)
	_, err := c.Get(once, b.origin.URL(mainHost, origin.Unique(size)), size)
	cancel()
	if err != nil {
		return fmt.Errorf("%s: a clean body does not arrive %s: %w", in.Name, when, refused(err))
	}
	for _, before := range []int64{0, 60 << 10} {
		b.eicar(ctx, in, when, before, unpaced)
	}
	return nil
}

// eicar fetches EICAR behind a body of before bytes, coming at rate, and records what came of it.
func (b *bench) eicar(ctx context.Context, in *instance, when string, before, rate int64) {
	what := "EICAR"
	if before > 0 {
		what = "EICAR behind " + bytesText(before)
	}
	c := load.New(in.route)
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()
	seen := search{want: scan.EICAR()}
	err := b.watch(ctx, in, c, func(ctx context.Context) error {
		_, err := c.Fetch(ctx, b.pacedURL(origin.EICAR(before), rate), &seen)
		return err
	})
	k := check{Alternative: in.Name, When: when, What: what, Arrived: seen.found, Expected: !in.Scans, Answer: "arrived whole"}
	switch {
	case err != nil:
		k.Answer = err.Error()
	case !seen.found:
		k.Answer = fmt.Sprintf("200 with another body of %d bytes", seen.size)
	}
	b.res.Checks = append(b.res.Checks, k)
}

// search is an io.Writer that looks for want.
type search struct {
	want, tail []byte
	size       int64
	found      bool
}

// Write implements io.Writer. It never fails.
func (s *search) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	s.tail = append(s.tail, p...)
	s.found = s.found || bytes.Contains(s.tail, s.want)
	s.tail = append(s.tail[:0], s.tail[max(0, len(s.tail)-len(s.want)+1):]...)
	return len(p), nil
}

// refused adds the beginning of a refusal's page to its error.
func refused(err error) error {
	var s *load.StatusError
	if errors.As(err, &s) {
		return fmt.Errorf("%w\n%s", err, s.Body[:min(len(s.Body), 600)])
	}
	return err
}

// void says why the results are worth nothing, if they are. What lets a large object pass that it was told to scan is shown in
// the table of checks; for lazaret it is a fault.
func (k check) void() error {
	if k.Arrived == k.Expected {
		return nil
	}
	if k.Expected {
		return fmt.Errorf("%s: %s did not arrive (%s) though nobody scans: the check sees nothing", k.Alternative, k.What, k.Answer)
	}
	if k.When == checkLarge && k.Alternative != peers.Lazaret {
		return nil
	}
	return fmt.Errorf("%s: %s arrived %s: it does not scan, and its figures are void", k.Alternative, k.What, k.When)
}
