package intercept

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"lazaret/internal/egress"

	"github.com/gaissmai/bart"
)

// maxLearned bounds the hosts that are remembered, and maxProofs the addresses that have proven a tunnelled name.
const (
	maxLearned = 10_000
	maxProofs  = 4096
	proofLife  = 10 * time.Minute
)

// Options are what an Interceptor is given besides its settings.
type Options struct {
	StateDir string           // where what was learned is kept; empty: in memory only
	Logger   *slog.Logger     // nil: slog.Default
	Now      func() time.Time // the clock; nil: time.Now
	Roots    *x509.CertPool   // instead of the system's roots and extra_roots; nil: those
}

// Interceptor decides for connections and opens them. It is safe for use by many goroutines, and has none of its own.
type Interceptor struct {
	cfg      Config
	ca       *CA
	dialer   *egress.Dialer
	log      *slog.Logger
	now      func() time.Time
	verifier *verifier
	leaves   *leaves
	list     *hostList
	file     *listFile
	clients  *bart.Lite
	learned  *learnedHosts
	sessions *sessions
	issuers  *issuers
	crls     *crls
	zones    *zones
	proofs   *lru[string, bool]
	http11   *lru[string, struct{}] // origins that want HTTP/1.1
	pins     *pins
	counts   counters
}

// New returns an Interceptor that signs with ca and dials with d, and an error when cfg cannot be used.
func New(cfg Config, ca *CA, d *egress.Dialer, opt Options) (*Interceptor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if ca == nil || d == nil {
		return nil, errors.New("intercept: a CA and a dialer are needed")
	}
	i := &Interceptor{cfg: cfg, ca: ca, dialer: d, log: opt.Logger, now: opt.Now}
	i.counts.init()
	if i.log == nil {
		i.log = slog.Default()
	}
	if i.now == nil {
		i.now = time.Now
	}
	roots, extra := opt.Roots, map[[32]byte]struct{}(nil)
	var err error
	if roots == nil {
		if roots, extra, err = loadRoots(cfg.ExtraRoots); err != nil {
			return nil, err
		}
	}
	if i.leaves, err = newLeaves(ca, cfg.Certificates, i.now, func() { i.counts.minted.Add(1) }); err != nil {
		return nil, err
	}
	i.verifier = &verifier{roots: roots, extra: extra, ca: ca, now: i.now, own: i.leaves.own, chains: newLRU[[32]byte, chain](maxChains, i.now)}
	if err := i.prepareLists(); err != nil {
		return nil, err
	}
	keys, err := newTicketKeys(cfg.TicketKeys, i.log, i.now)
	if err != nil {
		return nil, fmt.Errorf("ticket_keys: %w", err)
	}
	if i.sessions, err = newSessions(cfg.Sessions, keys, i.settings(), i.now); err != nil {
		return nil, err
	}
	outside, inside := newFetcher(d.PublicOnly(unnamedPlace)), newFetcher(d)
	i.issuers = newIssuers(outside, i.now)
	i.crls = newCRLs(cfg.Revocation, outside, inside, opt.StateDir, i.log, i.now)
	i.pins = newPins(i.now)
	i.proofs = newLRU[string, bool](maxProofs, i.now)
	i.http11 = newLRU[string, struct{}](maxHTTP11, i.now)
	i.learned = newLearnedHosts(opt.StateDir, i.log, i.now)
	return i, nil
}

// settings stands for everything that decides how a session is opened: two gateways for which it is the same may go on with
// each other's.
func (i *Interceptor) settings() [32]byte {
	same := i.cfg
	same.TicketKeys = ""
	h := sha256.New()
	h.Write(i.ca.cert.Raw)
	fmt.Fprintf(h, "%+v", same)
	return [32]byte(h.Sum(nil))
}

// prepareLists reads what says which connections are tunnelled.
func (i *Interceptor) prepareLists() (err error) {
	if i.list, err = parseHosts(i.cfg.Tunnel); err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	if i.clients, err = parseNets(i.cfg.TunnelClients); err != nil {
		return fmt.Errorf("tunnel_clients: %w", err)
	}
	if i.file, err = newListFile(i.cfg.TunnelFile, i.log); err != nil {
		return fmt.Errorf("tunnel_file: %w", err)
	}
	dns, err := newResolver(i.cfg.TunnelZoneServers, i.cfg.TunnelZoneTimeout.Std(), i.log)
	if err != nil {
		return fmt.Errorf("tunnel_zone_servers: %w", err)
	}
	if i.zones, err = newZones(i.cfg.TunnelZones, dns, i.log, i.now); err != nil {
		return fmt.Errorf("tunnel_zones: %w", err)
	}
	return nil
}

// CA returns the certificate authority.
func (i *Interceptor) CA() *CA { return i.ca }

// own says whether a certificate carries the key of this gateway's leaves.
func (l *leaves) own(c *x509.Certificate) bool {
	pub, ok := c.PublicKey.(*ecdsa.PublicKey)
	return ok && pub.Equal(&l.ecdsa.PublicKey)
}

// namedList is a tunnel list and what it is called in reasons.
type namedList struct {
	name string
	rule Rule
	list *hostList
}

// lists returns the tunnel lists as they are now.
func (i *Interceptor) lists() []namedList {
	out := []namedList{{"tunnel list", RuleList, i.list}}
	if l := i.file.current(); l != nil {
		out = append(out, namedList{"tunnel file", RuleFile, l})
	}
	return out
}

// learn remembers that an origin asks for client certificates.
func (i *Interceptor) learn(o *origin) {
	e := Learned{
		Host: learnedKey(o.name, o.target), Reason: errClientCertificate.Error(),
		Until: i.now().Add(i.cfg.Learned.Std()).Truncate(time.Second),
	}
	i.learned.add(e)
	i.log.Info("an origin asks for a client certificate: its connections are passed through unopened",
		"host", e.Host, "until", e.Until.Format(time.RFC3339))
}
