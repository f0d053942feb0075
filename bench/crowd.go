package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"lazaret/bench/internal/load"
	"lazaret/bench/internal/origin"
	"lazaret/bench/internal/proc"
)

const (
	crowdSize  = 100 << 20
	crowdLimit = time.Hour             // for all of it
	crowdApart = 25 * time.Millisecond // between the beginnings: it is the bodies that are to meet, not the handshakes
)

// crowd has many clients download a unique body each at the same time, and looks at how much memory and disk the gateway takes.
func crowd(ctx context.Context, b *bench, in *instance, _ int) (sample, error) {
	if err := b.warm(ctx, in); err != nil {
		return sample{}, err
	}
	pids := in.run.PIDs()
	if err := proc.ResetPeak(pids...); err != nil {
		return sample{}, err
	}
	before, err := proc.MemoryOf(pids...)
	if err != nil {
		return sample{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, crowdLimit)
	defer cancel()
	disk := watchDisk(ctx, pids)
	var (
		s     sample
		total time.Duration
	)
	u, err := b.spend(in, func() {
		began := time.Now()
		s = b.downloadAll(ctx, in)
		total = time.Since(began)
	})
	most := disk()
	if err != nil {
		return sample{}, err
	}
	if s.Requests == 0 {
		s.Failed = true
		return s, nil
	}
	after, err := proc.MemoryOf(pids...)
	if err != nil {
		return sample{}, err
	}
	s.Total, s.Rate, s.Disk = ms(total), float64(s.Requests)/total.Seconds(), most
	s.Peak, s.PeakGrowth, s.Memory = after.Peak, max(0, after.Peak-before.RSS), after.PSS
	s.spent(u, s.Requests)
	return s, nil
}

// downloadAll has b.crowd clients download, and counts.
func (b *bench) downloadAll(ctx context.Context, in *instance) (s sample) {
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for range b.crowd {
		wg.Go(func() {
			c := load.New(in.route)
			defer c.Close()
			_, err := c.Get(ctx, b.origin.URL(mainHost, origin.Unique(crowdSize)), crowdSize)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				s.Requests++
				return
			}
			s.Errors++
			s.Error = fmt.Sprintf("%v, after %s of %s", refused(err), bytesText(c.Bytes()), bytesText(crowdSize))
		})
		if pause(ctx, crowdApart) != nil {
			break
		}
	}
	wg.Wait()
	return s
}

// watchDisk returns a function that says how much disk the processes' files without a name have at most taken till then.
func watchDisk(ctx context.Context, pids []int) func() int64 {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan int64)
	go func() {
		var most int64
		for err := error(nil); err == nil && ctx.Err() == nil; err = pause(ctx, 50*time.Millisecond) {
			now, err := proc.Unlinked(pids...)
			if err != nil && !errors.Is(err, context.Canceled) {
				break
			}
			most = max(most, now)
		}
		ended <- most
	}()
	return func() int64 {
		cancel()
		return <-ended
	}
}
