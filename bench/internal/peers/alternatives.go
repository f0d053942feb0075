package peers

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lazaret/test/ports"
)

// Env is what every alternative finds.
type Env struct {
	Dir         string // temporary files; every alternative makes a folder of its own in it
	OriginCA    string // file with the certificate of the CA that the origin's certificates are signed by
	ClamdSocket string // unix socket of the clamd that all ask
	Lazaret     string // the lazaret program
}

// dir makes a new folder for an instance of the alternative name.
func (e Env) dir(name string) (string, error) {
	d, err := os.MkdirTemp(e.Dir, name+"-")
	if err != nil {
		return "", err
	}
	return d, os.Chmod(d, 0o755)
}

// Alternative is one way from a client to an origin.
type Alternative struct {
	Name  string // as on the command line and in the tables
	Title string
	Scans bool // what goes through it is scanned by clamd
	Opens bool // it opens TLS: the client sees a certificate of its CA
	start func(context.Context, Env) (*Running, error)
}

// Names of alternatives that others refer to.
const (
	Direct    = "direct"
	Lazaret   = "lazaret"
	SquidScan = "squid-scan"
)

// Alternatives are all that there are, in the order of the tables.
var Alternatives = []Alternative{
	{Name: Direct, Title: "client and origin, nothing between", start: startDirect},
	{Name: Lazaret, Title: "lazaret, scanning with clamd", Scans: true, Opens: true, start: func(ctx context.Context, e Env) (*Running, error) {
		return startLazaret(ctx, e, "lazaret", "")
	}},
	{Name: "tunnel", Title: "lazaret, the origin on its tunnel list", start: func(ctx context.Context, e Env) (*Running, error) {
		return startLazaret(ctx, e, "tunnel", "127.0.0.0/8")
	}},
	{Name: SquidScan, Title: "Squid ssl_bump, c-icap virus_scan, clamd", Scans: true, Opens: true, start: func(ctx context.Context, e Env) (*Running, error) {
		return startSquid(ctx, e, SquidScan, true)
	}},
	{Name: "squid", Title: "Squid ssl_bump, not scanning", Opens: true, start: func(ctx context.Context, e Env) (*Running, error) {
		return startSquid(ctx, e, "squid", false)
	}},
}

// Running is an instance of an alternative.
type Running struct {
	Proxy    string // host:port; empty: none
	CAFile   string // the CA that a client must trust
	children []*Child
}

// Start runs a.
func (a Alternative) Start(ctx context.Context, e Env) (*Running, error) {
	r, err := a.start(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", a.Name, err)
	}
	return r, nil
}

// Stop ends its processes.
func (r *Running) Stop() {
	for i := len(r.children) - 1; i >= 0; i-- {
		r.children[i].Stop()
	}
}

// PIDs returns the ids of its processes, their descendants apart.
func (r *Running) PIDs() []int {
	pids := make([]int, len(r.children))
	for i, c := range r.children {
		pids[i] = c.PID()
	}
	return pids
}

// Health returns an error when one of its processes has ended.
func (r *Running) Health() error {
	for _, c := range r.children {
		if !c.Running() {
			return c.Fault(fmt.Sprintf("ended (%v)", c.err))
		}
	}
	return nil
}

// Roots returns a pool that trusts its CA alone, so that a client sees at once who answers.
func (r *Running) Roots() (*x509.CertPool, error) {
	b, err := os.ReadFile(r.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("no certificate in " + r.CAFile)
	}
	return pool, nil
}

func startDirect(_ context.Context, e Env) (*Running, error) {
	return &Running{CAFile: e.OriginCA}, nil
}

func startLazaret(ctx context.Context, e Env, name, tunnel string) (*Running, error) {
	if _, err := os.Stat(e.Lazaret); err != nil {
		return nil, fmt.Errorf("%w: run `make build`, or leave it out with -alternatives", err)
	}
	dir, err := e.dir(name)
	if err != nil {
		return nil, err
	}
	state := filepath.Join(dir, "state")
	r := &Running{CAFile: filepath.Join(state, "ca", "ca.pem")}
	if tunnel != "" {
		r.CAFile = e.OriginCA
	}
	if r.Proxy, err = ports.Free(); err != nil {
		return nil, err
	}
	admin, err := ports.Free()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "lazaret.toml")
	settings := fmt.Sprintf(`state_dir = %q
[web]
listen = [%q]
allow_private_destinations = true
connect_ports = ["1-65535"]
[web.tls]
extra_roots = [%q]
tunnel = [%s]
[spool]
max_object = "1100 MiB"
total_disk = "2 GiB"
wait = "1h"
[pop3]
listen = []
[admin]
listen = %q
[[scanner]]
type = "clamd"
address = %q
required = true
`, state, r.Proxy, e.OriginCA, quoteAll(tunnel), admin, "unix:"+e.ClamdSocket)
	if err := os.WriteFile(conf, []byte(settings), 0o644); err != nil {
		return nil, err
	}
	c, err := Start("lazaret", dir, e.Lazaret, "run", "--config", conf, "--state-dir", state)
	if err != nil {
		return nil, err
	}
	r.children = []*Child{c}
	if err := c.WaitReady(ctx, time.Minute, func() error { return ready(ctx, admin) }); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

func quoteAll(s ...string) string {
	var q []string
	for _, v := range s {
		if v != "" {
			q = append(q, fmt.Sprintf("%q", v))
		}
	}
	return strings.Join(q, ", ")
}

// ready returns nil when lazaret says on its admin address that it is.
func ready(ctx context.Context, admin string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz says %s", resp.Status)
	}
	return nil
}

// packages lists what the alternatives need, and a file by which each Debian package is known.
var packages = []struct{ name, file string }{
	{"clamav-daemon", "/usr/sbin/clamd"},
	{"c-icap", "/usr/bin/c-icap"},
	{"libc-icap-mod-virus-scan", "/usr/lib/*/c_icap/virus_scan.so"},
	{"squid-openssl", certgen},
}

// Install installs with apt-get the Debian packages that are missing, and says so through say. Their services are kept
// from starting: the benchmark runs its own.
func Install(ctx context.Context, say func(format string, args ...any)) error {
	var missing []string
	for _, p := range packages {
		if found, err := filepath.Glob(p.file); err != nil || len(found) == 0 {
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	command := "apt-get install --no-install-recommends " + strings.Join(missing, " ")
	if os.Getuid() != 0 {
		return fmt.Errorf("missing Debian packages: run `%s` as root, or choose other -alternatives", command)
	}
	say("missing Debian packages: running %s", command)
	const policy = "/usr/sbin/policy-rc.d" // its exit code 101 forbids the starting of services, see invoke-rc.d(8)
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy)
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
