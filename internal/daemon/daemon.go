// Package daemon puts the parts together: it starts them from the settings, exchanges them on a reload, and drains them at
// the end.
package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"lazaret/internal/admin"
	"lazaret/internal/audit"
	"lazaret/internal/config"
	"lazaret/internal/egress"
	"lazaret/internal/gate"
	"lazaret/internal/intercept"
	"lazaret/internal/mail/pop3"
	"lazaret/internal/notice"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
	"lazaret/internal/web"
)

const (
	// drainTime is how long requests under way may take after TERM.
	drainTime = 30 * time.Second
	// handedOverTime is the same after an upgrade: nobody waits for this process any more.
	handedOverTime = 5 * time.Minute
	// hardEnd is how long what was cut off may take to end.
	hardEnd = 5 * time.Second
)

// pace has the garbage collector paced once in a process.
var pace sync.Once

// Options say how a Daemon is started.
type Options struct {
	// Config are the settings; File is where they came from, and what a reload reads again, empty for none.
	Config *config.Config
	File   string
	// StateDir replaces the settings' state_dir, after every reload too; empty: it does not.
	StateDir string
	Version  string
	// Sandbox has the whole process enter [sandbox]; there is no way back. Those who start a gateway beside other work do not.
	Sandbox bool
	Stderr  io.Writer
}

// Daemon is a running gateway.
type Daemon struct {
	opt    Options
	output *audit.Output
	log    *slog.Logger
	audit  *audit.Log
	pool   *spool.Pool
	ca     atomic.Pointer[intercept.CA]
	caDir  string
	gate   *gate.Gate
	web    *web.Server
	idle   atomic.Pointer[web.Server] // web, once it is there: listeners are opened before
	pop3   *pop3.Server
	admin  *admin.Server

	keeper     *keeper     // nil: no originals are kept
	redirector *redirector // nil: traffic is led here by others, or not at all
	successor  int         // the process that has the sockets now; 0: none
	endNotify  context.CancelFunc
	sandboxed  bool

	dialer      atomic.Pointer[egress.Dialer]
	mailDialer  atomic.Pointer[egress.Dialer]
	mail        atomic.Pointer[mailParts]
	interceptor atomic.Pointer[intercept.Interceptor]
	engines     atomic.Pointer[engines]
	updates     atomic.Pointer[supervise.Updater] // nil: freshclam is not run
	freshness   *freshness

	reloading sync.Mutex
	config    *config.Config // what is in force; under reloading
	at        listeners
	failed    chan error
	serving   sync.WaitGroup
}

// Start starts a gateway: when it returns without an error, everything listens and every engine in use has proved itself.
// Close ends it.
func Start(ctx context.Context, opt Options) (d *Daemon, err error) {
	cfg := opt.Config
	if opt.StateDir != "" {
		cfg.StateDir = opt.StateDir
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d = &Daemon{opt: opt, config: cfg, failed: make(chan error, 8)}
	begun := d // a return of an error leaves nothing in d
	defer func() {
		if err != nil {
			begun.abandon()
		}
	}()
	complete(cfg)
	if err := d.prepare(ctx, cfg); err != nil {
		return nil, err
	}
	if n := limitMemory(); n > 0 {
		d.log.Info("garbage is collected more often where the gateway's memory comes near to its limit", "limit", mib(n))
	}
	if err := d.open(ctx, cfg); err != nil {
		return nil, err
	}
	if err := d.enterSandbox(cfg); err != nil {
		return nil, err
	}
	e, err := selectEngines(ctx, cfg, clamdDir(cfg), d.pool, d.log)
	if err != nil {
		return nil, err
	}
	d.engines.Store(e)
	d.gate.Use(e.set, cfg.Policy, e.degraded)
	if err := d.servers(cfg); err != nil {
		return nil, err
	}
	pace.Do(paceGC)
	// What is led here waits in the sockets until it is served; a process that ends at this point has taken nothing yet.
	if err := d.startRedirecting(cfg); err != nil {
		return nil, err
	}
	d.serve()
	d.announce(cfg, e)
	d.startSignatures(cfg, e)
	alive, end := context.WithCancel(context.Background())
	d.endNotify = end
	d.notifyReady(alive)
	d.serving.Go(func() { d.watchFaults(alive) })
	d.serving.Go(func() { d.watchRotation(alive) })
	d.tellReady()
	return d, nil
}

// complete fills in what depends on the state directory.
func complete(cfg *config.Config) {
	if cfg.Spool.Dir == "" {
		cfg.Spool.Dir = filepath.Join(cfg.StateDir, "spool")
	}
	if cfg.Audit.Overflow == "" {
		cfg.Audit.Overflow = filepath.Join(cfg.StateDir, "log-overflow")
	}
	cfg.ClamAV.Complete(cfg.StateDir, cfg.Spool.MaxObject)
}

// prepare makes the parts that stay over reloads.
func (d *Daemon) prepare(ctx context.Context, cfg *config.Config) (err error) {
	if err := makeStateDir(cfg.StateDir); err != nil {
		return err
	}
	if d.log, d.output, err = audit.NewLogger(d.opt.Stderr, cfg.Audit); err != nil {
		return err
	}
	d.audit = audit.New(d.log, cfg.Audit)
	if d.pool, err = spool.NewPool(cfg.Spool); err != nil {
		return err
	}
	if err := d.loadCA(cfg); err != nil {
		return err
	}
	if err := d.startQuarantine(ctx, cfg); err != nil {
		return err
	}
	unpack.Memory().Resize(cfg.Unpack.TotalMemory)
	parts := gate.Options{Pool: d.pool, Limits: cfg.Unpack, Content: cfg.Content, Sink: d.audit, Log: d.log}
	if d.keeper != nil {
		parts.Keeper = d.keeper
	}
	d.gate = gate.New(cfg.Gate, parts)
	return d.outside(cfg)
}

// clamdDir is for a clamd of our own. While one process takes over from another there are two of them.
func clamdDir(cfg *config.Config) string {
	dir := cfg.ClamAV.Dir
	if dir == "" {
		dir = filepath.Join(cfg.StateDir, "clamd")
	}
	if generation()%2 == 1 {
		return filepath.Join(dir, "2")
	}
	return dir
}

func caDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "ca") }

// outside makes what connects to the outside, and puts it in force.
func (d *Daemon) outside(cfg *config.Config) error {
	dialer, err := egress.New(cfg.Egress, egress.Options{AllowPrivate: cfg.Web.AllowPrivateDestinations, Own: d.own})
	if err != nil {
		return fmt.Errorf("[egress]: %w", err)
	}
	i, err := intercept.New(cfg.Web.TLS, d.CA(), dialer, intercept.Options{StateDir: cfg.StateDir, Logger: d.log})
	if err != nil {
		return fmt.Errorf("[web.tls]: %w", err)
	}
	mail, err := egress.New(cfg.Egress, egress.Options{AllowPrivate: cfg.POP3.AllowsPrivate(), Own: d.own})
	if err != nil {
		return errors.Join(fmt.Errorf("[egress]: %w", err), i.Close())
	}
	d.dialer.Store(dialer)
	d.mailDialer.Store(mail)
	d.closeInterceptor(d.interceptor.Swap(i))
	return nil
}

// closeInterceptor has what i has learned written down. i may be nil.
func (d *Daemon) closeInterceptor(i *intercept.Interceptor) {
	if i == nil {
		return
	}
	if err := i.Close(); err != nil {
		d.log.Error("what was learned about hosts could not be written down", "error", err)
	}
}

// servers makes the proxy and the console.
func (d *Daemon) servers(cfg *config.Config) error {
	pages, err := notice.New(cfg.Notice)
	if err != nil {
		return fmt.Errorf("[notice]: %w", err)
	}
	d.admin, err = admin.New(cfg.Admin, admin.Sources{
		Version:    d.opt.Version,
		Scanners:   d.ScannerStatus,
		Spool:      d.spoolUsage,
		CA:         func() *x509.Certificate { return d.CA().Certificate() },
		OtherCAs:   d.otherCAs,
		Ready:      d.unready,
		ProxyAddrs: d.proxyAddrs,
		Records:    d.audit,
		Metrics:    d.audit.Registry(),
	}, d.log)
	if err != nil {
		return fmt.Errorf("[admin]: %w", err)
	}
	share := shareDescriptors(cfg, openFiles())
	d.web, err = web.New(cfg.Web.Config, web.Options{
		Gate: d.gate, Interceptor: following{d}, Dialer: following{d}, Pages: pages, Self: d.admin.Handler(), Log: d.log,
		MostConnections: share.connections, MostOrigins: share.origins,
	})
	if err != nil {
		return fmt.Errorf("[web]: %w", err)
	}
	d.idle.Store(d.web)
	if err := d.mailServers(cfg); err != nil {
		return err
	}
	if err := errors.Join(d.audit.Registry().Register(tlsMetrics{d}), d.audit.Registry().Register(spamMetrics{d})); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if err := d.audit.Registry().Register(signatureMetrics{d}); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return d.audit.Watch(audit.Gauges{
		Version: d.opt.Version, Scanners: d.ScannerStatus, Spool: d.spoolUsage, Decoders: decoders, Output: d.output.Status,
		Connections: d.connections, Cache: d.gate.Cached, Downloads: d.web.Downloads,
	})
}

func (d *Daemon) spoolUsage() (memory, disk int64) {
	u := d.pool.Usage()
	return u.Memory, u.Disk
}

// serve has every listener served. One that fails ends the gateway.
func (d *Daemon) serve() {
	run := func(name string, l net.Listener, serve func(net.Listener) error) {
		d.serving.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					d.fail(fmt.Errorf("%s on %s panicked: %v", name, l.Addr(), p))
				}
			}()
			if err := serve(l); err != nil {
				d.fail(fmt.Errorf("%s on %s: %w", name, l.Addr(), err))
			}
		})
	}
	for _, l := range d.at.web {
		run("web proxy", l, d.web.Serve)
	}
	for _, l := range d.at.pop3 {
		run("POP3", l, d.pop3.Serve)
	}
	for _, l := range d.at.pop3TLS {
		run("POP3S", l, d.pop3.ServeTLS)
	}
	for _, l := range d.at.webSeen {
		run("transparent web proxy", l, d.web.ServeTransparent)
	}
	if d.at.admin != nil {
		run("console", d.at.admin, d.admin.Serve)
	}
}

func (d *Daemon) fail(err error) {
	select {
	case d.failed <- err:
		d.mail.Load().report.Fault("the gateway ends, as it cannot go on", []string{err.Error()})
	default: // the first ones are told
	}
}

// Failed gives the error of a listener that cannot go on.
func (d *Daemon) Failed() <-chan error { return d.failed }

// ProxyAddr returns the address of the first explicit-proxy listener; empty where there is none.
func (d *Daemon) ProxyAddr() string {
	if len(d.at.web) == 0 {
		return ""
	}
	return d.at.web[0].Addr().String()
}

// CA returns the certificate authority that signs at the moment.
func (d *Daemon) CA() *intercept.CA { return d.ca.Load() }

// Log returns the gateway's log.
func (d *Daemon) Log() *slog.Logger { return d.log }

// Engines says in words what judges.
func (d *Daemon) Engines() string { return d.engines.Load().words }

// Close drains: nothing new is taken, and what is under way may end, for half a minute (five minutes, where another process has
// taken over) or until ctx ends. A few seconds later it returns whatever is still under way: the process can end then, and has to.
func (d *Daemon) Close(ctx context.Context) error {
	patience := drainTime
	if d.successor != 0 {
		patience = handedOverTime
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return hard(ctx, hardEnd, d.drain)
}

// hard runs end, and returns when it has, or grace after the end of ctx without it.
func hard(ctx context.Context, grace time.Duration, end func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- end(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return fmt.Errorf("something goes on that cannot be stopped, and ends with the process: %w", ctx.Err())
	}
}

// drain is Close, and waits for whatever is under way.
func (d *Daemon) drain(ctx context.Context) error {
	d.notifyEnding(d.successor)
	d.endNotify()
	d.freshness.close()
	var errs []error
	if d.successor == 0 { // what comes from now on would be refused
		errs = append(errs, d.redirector.close())
	}
	errs = append(errs, d.shutdown(ctx)...)
	if d.successor != 0 {
		errs = append(errs, d.redirector.close())
	}
	d.endReports(ctx)
	d.serving.Wait()
	d.closeInterceptor(d.interceptor.Load())
	d.gate.Close()
	d.engines.Load().close()
	errs = append(errs, d.keeper.close())
	d.log.Info("the gateway has ended")
	errs = append(errs, d.output.Close(ctx))
	return errors.Join(errs...)
}

// abandon gives back what a start that failed had taken.
func (d *Daemon) abandon() {
	d.at.close()
	d.closeInterceptor(d.interceptor.Swap(nil))
	if e := d.engines.Load(); e != nil {
		e.close()
	}
	nobodyWaits, cancel := context.WithCancel(context.Background())
	cancel()
	d.mail.Load().close(nobodyWaits)
	_ = d.keeper.close() // the start's own error is the one to report
	if d.output != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.output.Close(ctx) // the start's own error is the one to report
	}
}

// following passes on to what is in force at the moment.
type following struct{ d *Daemon }

func (f following) Decide(ctx context.Context, t intercept.Target) intercept.Decision {
	return f.d.interceptor.Load().Decide(ctx, t)
}

func (f following) Accept(ctx context.Context, c net.Conn, t intercept.Target) (*intercept.Session, error) {
	return f.d.interceptor.Load().Accept(ctx, c, t)
}

func (f following) Open(ctx context.Context, t intercept.Target) (*tls.Conn, error) {
	return f.d.interceptor.Load().Open(ctx, t)
}
