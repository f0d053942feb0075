package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/bench/internal/load"
	"lazaret/bench/internal/origin"
	"lazaret/bench/internal/peers"
	"lazaret/bench/internal/proc"
)

const (
	requestTimeout  = 5 * time.Second
	downloadLimit   = 5 * time.Minute  // for a download, whatever it is doing
	standstill      = 10 * time.Second // without a byte, and hardly any work done, a download has stalled
	standstillWork  = 50 * time.Millisecond
	settle          = 2 * time.Second // for connections to be closed and buffers to be given back
	checkLarge      = "in a large download"
	connectScenario = "connect"
	mainHost        = "127.0.0.1"
	unpaced         = 0        // as fast as loopback is
	homeLine        = 32 << 20 // bytes a second: about 270 Mbit/s
	officeLine      = 64 << 20 // about 540 Mbit/s
	kindRate        = "rate"
	kindVisit       = "visit"
	kindDownload    = "download"
	kindMemory      = "memory"
	kindConnections = "idle"
	kindCrowd       = "crowd"
)

// scenario is one kind of use.
type scenario struct {
	name, title string
	kind        string // which figures count
	fresh       bool   // it needs new processes, once; the others are measured in rounds
	unique      bool   // the content is different each time
	atMost      int    // rounds, where one takes long; 0: as many as were asked for
	run         func(ctx context.Context, b *bench, in *instance, round int) (sample, error)
}

var scenarios = []scenario{
	{name: "idle", title: "idle connections, after one request each", kind: kindConnections, fresh: true, run: idle},
	{name: "memory-1g", title: "memory during one download of 1 GiB, unique, at 64 MiB/s", kind: kindMemory, fresh: true, unique: true, run: memory},
	{name: "100m-crowd", title: "downloads of 100 MiB, unique, many at the same time", kind: kindCrowd, fresh: true, unique: true, run: crowd},
	keepAlive("1k-repeat-1", 1<<10, 1, false), keepAlive("1k-repeat-16", 1<<10, 16, false),
	keepAlive("1k-unique-1", 1<<10, 1, true), keepAlive("1k-unique-16", 1<<10, 16, true),
	keepAlive("60k-repeat-1", 60<<10, 1, false), keepAlive("60k-repeat-16", 60<<10, 16, false),
	keepAlive("60k-unique-1", 60<<10, 1, true), keepAlive("60k-unique-16", 60<<10, 16, true),
	{name: connectScenario, title: "a new connection for each request of 1 KiB, 16 at a time", kind: kindRate, run: newConnections},
	{name: "visit", title: "first visits to hosts, one after the other", kind: kindVisit, run: visit},
	download100("100m-fast", "as fast as the origin can", unpaced),
	download100("100m-paced", "coming at 32 MiB/s", homeLine),
}

func keepAlive(name string, size int64, connections int, unique bool) scenario {
	content, path := "repeated", origin.Repeat(size)
	if unique {
		content, path = "unique", origin.Unique(size)
	}
	at := "1 connection"
	if connections > 1 {
		at = fmt.Sprintf("%d connections", connections)
	}
	return scenario{
		name: name, title: fmt.Sprintf("keep-alive, %s %s, %s", bytesText(size), content, at), kind: kindRate, unique: unique,
		run: func(ctx context.Context, b *bench, in *instance, _ int) (sample, error) {
			return b.rate(ctx, in, connections, load.Job{URL: b.origin.URL(mainHost, path), Size: size, Timeout: requestTimeout})
		},
	}
}

func newConnections(ctx context.Context, b *bench, in *instance, _ int) (sample, error) {
	const size = 1 << 10
	return b.rate(ctx, in, 16, load.Job{URL: b.origin.URL(mainHost, origin.Repeat(size)), Size: size, Fresh: true, Timeout: requestTimeout})
}

// rate loads in with j on so many connections.
func (b *bench) rate(ctx context.Context, in *instance, connections int, j load.Job) (sample, error) {
	clients := make([]*load.Client, connections)
	for i := range clients {
		clients[i] = load.New(in.route)
		defer clients[i].Close()
	}
	load.Run(ctx, clients, j, b.warmup)
	var res *load.Result
	u, err := b.spend(in, func() { res = load.Run(ctx, clients, j, b.duration) })
	if err != nil {
		return sample{}, err
	}
	return b.sampleOf(in, res, u)
}

// sampleOf turns a result into a sample.
func (b *bench) sampleOf(in *instance, res *load.Result, u usage) (sample, error) {
	if res.Requests == 0 {
		return sample{Errors: res.Errors, Error: fmt.Sprint(res.FirstErr), Failed: true}, nil
	}
	mem, err := proc.MemoryOf(in.run.PIDs()...)
	if err != nil {
		return sample{}, err
	}
	s := sample{
		Requests: res.Requests, Errors: res.Errors, Rate: res.Rate(), Memory: mem.PSS,
		P50: ms(res.Quantile(0.50)), P95: ms(res.Quantile(0.95)), P99: ms(res.Quantile(0.99)),
	}
	if res.FirstErr != nil {
		s.Error = res.FirstErr.Error()
	}
	s.spent(u, res.Requests)
	return s, nil
}

// visit visits hosts that in has not seen. Addresses stand for names, so that no DNS is needed: 127.1.0.1 and on.
func visit(ctx context.Context, b *bench, in *instance, round int) (sample, error) {
	const size = 1 << 10
	host := func(i int) string {
		n := round*b.visits + i + 1
		return fmt.Sprintf("127.%d.%d.%d", 1+n>>16, n>>8&0xff, n&0xff)
	}
	straight, err := b.straight()
	if err != nil {
		return sample{}, err
	}
	// The origin makes its certificates when it is first asked; that is not to be measured.
	for i := range b.visits {
		if _, err := straight.Get(ctx, b.origin.URL(host(i), origin.Repeat(size)), size); err != nil {
			return sample{}, err
		}
		straight.Close()
	}
	var res load.Result
	c := load.New(in.route)
	began := time.Now()
	u, err := b.spend(in, func() {
		for i := range b.visits {
			once, cancel := context.WithTimeout(ctx, requestTimeout)
			t, err := c.Get(once, b.origin.URL(host(i), origin.Repeat(size)), size)
			cancel()
			c.Close()
			if err != nil {
				res.Errors++
				res.FirstErr = err
				continue
			}
			res.Requests++
			res.Latencies = append(res.Latencies, t.Total)
		}
	})
	res.Elapsed = time.Since(began)
	if err != nil {
		return sample{}, err
	}
	return b.sampleOf(in, &res, u)
}

// straight returns a client that goes to the origin without any proxy.
func (b *bench) straight() (*load.Client, error) {
	roots, err := (&peers.Running{CAFile: b.origin.CAFile}).Roots()
	if err != nil {
		return nil, err
	}
	return load.New(load.Route{Roots: roots}), nil
}

func download100(name, how string, rate int64) scenario {
	const size = 100 << 20
	return scenario{
		name: name, title: "downloads of 100 MiB, unique, " + how, kind: kindDownload, unique: true, atMost: 2,
		run: func(ctx context.Context, b *bench, in *instance, round int) (sample, error) {
			s, err := b.download(ctx, in, size, rate)
			if err == nil && round == 0 && !s.Failed {
				b.eicar(ctx, in, checkLarge, size, rate)
			}
			return s, err
		},
	}
}

// pacedURL returns the URL of path, coming at rate.
func (b *bench) pacedURL(path string, rate int64) string {
	if rate != unpaced {
		path = origin.Paced(path, rate)
	}
	return b.origin.URL(mainHost, path)
}

// download fetches a unique body of size bytes once.
func (b *bench) download(ctx context.Context, in *instance, size, rate int64) (sample, error) {
	c := load.New(in.route)
	defer c.Close()
	var (
		t      load.Times
		failed error
	)
	limited, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()
	u, err := b.spend(in, func() {
		failed = b.watch(limited, in, c, func(ctx context.Context) (err error) {
			t, err = c.Get(ctx, b.pacedURL(origin.Unique(size), rate), size)
			return err
		})
	})
	if err != nil {
		return sample{}, err
	}
	if failed != nil {
		return sample{
			Errors: 1, Failed: true,
			Error: fmt.Sprintf("%v, after %s of %s", refused(failed), bytesText(c.Bytes()), bytesText(size)),
		}, nil
	}
	mem, err := proc.MemoryOf(in.run.PIDs()...)
	if err != nil {
		return sample{}, err
	}
	s := sample{Requests: 1, First: ms(t.First), Total: ms(t.Total), Memory: mem.PSS, Rate: 1 / t.Total.Seconds()}
	s.spent(u, 1)
	return s, nil
}

// watch runs f, which lets c fetch something through in, and cancels it when it has come to a standstill: no byte arrives, and
// neither the gateway nor clamd works. A gateway that holds a body while it is scanned is at work.
func (b *bench) watch(ctx context.Context, in *instance, c *load.Client, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var gaveUp atomic.Bool
	work := func() time.Duration {
		d, err := proc.CPU(append(in.run.PIDs(), b.clamd.PID(), b.origin.PID())...)
		if err != nil {
			return 0
		}
		return d
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		bytes, cpu, since := c.Bytes(), work(), time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(500 * time.Millisecond):
			}
			if n, w := c.Bytes(), work(); n != bytes || w-cpu > standstillWork {
				bytes, cpu, since = n, w, time.Now()
			} else if time.Since(since) > standstill {
				gaveUp.Store(true)
				cancel()
			}
		}
	})
	err := f(ctx)
	cancel()
	wg.Wait()
	if gaveUp.Load() {
		return fmt.Errorf("came to a standstill: nothing done or sent for %v", standstill)
	}
	return err
}

// memory downloads 1 GiB and looks at how much the gateway grows by it.
func memory(ctx context.Context, b *bench, in *instance, _ int) (sample, error) {
	if err := b.warm(ctx, in); err != nil {
		return sample{}, err
	}
	if err := proc.ResetPeak(in.run.PIDs()...); err != nil {
		return sample{}, err
	}
	before, err := proc.MemoryOf(in.run.PIDs()...)
	if err != nil {
		return sample{}, err
	}
	shared := b.watchShmem(ctx)
	s, err := b.download(ctx, in, 1<<30, officeLine)
	grown := shared()
	if err != nil {
		return sample{}, err
	}
	after, err := proc.MemoryOf(in.run.PIDs()...)
	if err != nil {
		return sample{}, err
	}
	s.Peak, s.PeakGrowth, s.ShmemGrowth = after.Peak, max(0, after.Peak-before.RSS), grown
	return s, nil
}

// watchShmem returns a function that says by how much the machine's memory in tmpfs and memfds has at most grown till then.
func (b *bench) watchShmem(ctx context.Context) func() int64 {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan int64)
	go func() {
		first, err := proc.Shmem()
		most := first
		for err == nil && ctx.Err() == nil {
			var now int64
			if now, err = proc.Shmem(); err == nil {
				most = max(most, now)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		ended <- most - first
	}()
	return func() int64 {
		cancel()
		return <-ended
	}
}

// warm uses an instance a little, so that what it makes on first use is not counted, and lets it come to rest.
func (b *bench) warm(ctx context.Context, in *instance) error {
	clients := make([]*load.Client, 16)
	for i := range clients {
		clients[i] = load.New(in.route)
	}
	res := load.Run(ctx, clients, load.Job{
		URL: b.origin.URL(mainHost, origin.Unique(1<<10)), Size: 1 << 10, Fresh: true, Timeout: requestTimeout,
	}, time.Second)
	for _, c := range clients {
		c.Close()
	}
	if res.Requests == 0 {
		return fmt.Errorf("no request went well: %w", res.FirstErr)
	}
	return pause(ctx, settle)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// idle opens connections and looks at what the gateway needs for each.
func idle(ctx context.Context, b *bench, in *instance, _ int) (sample, error) {
	if err := b.warm(ctx, in); err != nil {
		return sample{}, err
	}
	before, err := proc.MemoryOf(in.run.PIDs()...)
	if err != nil {
		return sample{}, err
	}
	var (
		mu    sync.Mutex
		conns []net.Conn
		first error
		wg    sync.WaitGroup
		next  atomic.Int64
	)
	for range 16 {
		wg.Go(func() {
			for next.Add(1) <= int64(b.connections) && ctx.Err() == nil {
				conn, err := load.Hold(ctx, in.route, mainHost, b.origin.Port, origin.Repeat(1<<10))
				mu.Lock()
				if err != nil {
					first = err
				} else {
					conns = append(conns, conn)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, c := range conns {
			_ = c.Close() // it has served its purpose
		}
	}()
	if len(conns) == 0 {
		return sample{}, fmt.Errorf("no connection could be opened: %w", first)
	}
	if err := pause(ctx, settle); err != nil {
		return sample{}, err
	}
	after, err := proc.MemoryOf(in.run.PIDs()...)
	if err != nil {
		return sample{}, err
	}
	s := sample{
		Requests: len(conns), Errors: b.connections - len(conns), Memory: after.PSS,
		PerConnection: float64(after.PSS-before.PSS) / float64(len(conns)),
	}
	if first != nil {
		s.Error = first.Error()
	}
	return s, nil
}
