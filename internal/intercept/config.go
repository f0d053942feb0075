package intercept

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"lazaret/internal/units"
)

// Config is [web.tls].
type Config struct {
	ExtraRoots         []string       `toml:"extra_roots" doc:"PEM files of authorities that are trusted for origins, besides the system's; what their certificates name as the place of revocation lists may be a private address, where allow_private_destinations is on"`
	Tunnel             []string       `toml:"tunnel" doc:"what is passed through unopened and unscanned: a host (\"bank.example\"), a domain and all below it (\".bank.example\"), only what is below it (\"*.bank.example\"), an address or a network (\"192.0.2.0/24\") of destinations"`
	TunnelFile         string         `toml:"tunnel_file" doc:"a file with more entries of that kind, one a line, # for comments; read again when it changes"`
	TunnelZones        []string       `toml:"tunnel_zones" doc:"DNS zones that list what is passed through unopened and unscanned: <host>.<zone> with an address in 127.0.0.0/8 (but 127.255.255.0/24) means that the host is listed; IP addresses are asked for in reverse, as in other DNS lists"`
	TunnelZoneServers  []string       `toml:"tunnel_zone_servers" doc:"the DNS servers to ask about the zones, \"192.0.2.53\" or \"[2001:db8::53]:5353\"; empty: those of /etc/resolv.conf"`
	TunnelZoneTimeout  units.Duration `toml:"tunnel_zone_timeout" doc:"how long a new connection may wait for DNS to say whether its host is listed; one that is not known by then is inspected"`
	TunnelClients      []string       `toml:"tunnel_clients" doc:"networks of clients whose connections are passed through unopened and unscanned"`
	VerifyTunnels      bool           `toml:"verify_tunnels" doc:"before redirected traffic is passed through because of the name that the client gave, the origin has to show a valid certificate for that name; switch it off for services with authorities of their own, or list their networks"`
	MinVersion         string         `toml:"min_version" doc:"the lowest TLS version on both sides, \"1.2\" or \"1.3\""`
	FetchIntermediates bool           `toml:"fetch_intermediates" doc:"fetch intermediate certificates that an origin forgot to send, from where its certificate says; never from a private address"`
	Revocation         string         `toml:"revocation" doc:"what is done where it cannot be checked whether a certificate is revoked, as the authority's list cannot be had or the server staples no answer: \"pass\" logs it, \"refuse\" shows a page (and waits for lists), \"off\" fetches no lists; what is known to be revoked never passes"`
	ClientCertificates string         `toml:"client_certificates" doc:"what happens where an origin asks for a client certificate, which only the browser has: \"tunnel\" passes the connection through unopened and remembers the host, \"anonymous\" answers that there is none and scans on, \"refuse\" shows a page"`
	Learned            units.Duration `toml:"learned" doc:"how long a host that asked for a client certificate is remembered and passed through"`
	PinnedAlerts       int            `toml:"pinned_alerts" doc:"after how many refusals of our certificates for one host, at least ten seconds and at most an hour apart, a client that accepts them for other hosts is passed through to that host (applications with certificates built in); 0: never"`
	Pinned             units.Duration `toml:"pinned" doc:"how long such a client is passed through to that host"`
	HelloTimeout       units.Duration `toml:"hello_timeout" doc:"how long a client may take for its first message"`
	HandshakeTimeout   units.Duration `toml:"handshake_timeout" doc:"how long a TLS handshake may take, on each side"`
	Certificates       int            `toml:"certificates" doc:"how many leaf certificates are kept in memory"`
	Sessions           int            `toml:"sessions" doc:"how many TLS sessions are kept in memory to be resumed, each one of a browser with its own one of the origin"`
	TicketKeys         string         `toml:"ticket_keys" doc:"a file of secrets from which the keys of session tickets are derived, so that gateways with the same file and settings resume each other's sessions: one a line in hexadecimal of 32 bytes or more (openssl rand -hex 32), the first one in use, the others for tickets from before; for its owner only (0600); read again when it changes; empty: keys of this process alone"`
	PermitDomains      []string       `toml:"permit_domains" doc:"domains, each with all below it, that a CA which is made at the first start is kept to by name constraints: clients take no certificate of it for other names, whoever has its key; empty: it is good for all names"`
	PermitNetworks     []netip.Prefix `toml:"permit_networks" doc:"networks of addresses that such a CA is good for, too; empty: where permit_domains has some, for no address"`
	NotPermitted       string         `toml:"not_permitted" doc:"what happens to hosts that the CA is not good for, as clients would not take their certificates: \"refuse\", or \"tunnel\" passes their connections through unopened and unscanned"`
	OtherProtocols     string         `toml:"other_protocols" doc:"what happens to connections to web ports that turn out to be neither TLS nor HTTP, such as SSH on port 443: \"refuse\", or \"tunnel\" passes them through unscanned, also where the server speaks first"`
	MirrorVersion      bool           `toml:"mirror_version" doc:"give the browser no higher version of TLS than the origin speaks"`
	Exceptions         []Exception    `toml:"exception" doc:"origins that are talked to in spite of a fault; each use is logged"`
}

// Exception lets one host's faults pass until a day.
type Exception struct {
	Host        string      `toml:"host" doc:"the host, as in the URL; no wildcards"`
	Faults      []FaultKind `toml:"faults" doc:"which faults: untrusted, self-signed, wrong-name, expired, not-yet-valid, weak, wrong-usage, not-allowed, revoked"`
	Expires     time.Time   `toml:"expires" doc:"the moment from which the exception no longer holds, such as 2026-12-31T00:00:00Z"`
	Fingerprint string      `toml:"fingerprint" doc:"SHA-256 of the one certificate that is meant, in hexadecimal; empty: any"`
}

// excusable lists the faults that an exception can be for. The others leave nothing to talk to, or are the gateway's own
// circle.
var excusable = []FaultKind{
	FaultUntrusted, FaultSelfSigned, FaultName, FaultExpired, FaultNotYetValid, FaultWeak, FaultUsage, FaultNotAllowed, FaultRevoked,
}

// The values of client_certificates.
const (
	certsTunnel    = "tunnel"
	certsAnonymous = "anonymous"
	certsRefuse    = "refuse"
)

// The values of not_permitted.
const (
	notPermittedRefuse = "refuse"
	notPermittedTunnel = "tunnel"
)

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		MinVersion:         "1.2",
		Revocation:         revocationPass,
		ClientCertificates: certsTunnel,
		NotPermitted:       notPermittedRefuse,
		OtherProtocols:     otherRefuse,
		Learned:            units.Duration(30 * 24 * time.Hour),
		TunnelZoneTimeout:  units.Duration(time.Second),
		PinnedAlerts:       3,
		Pinned:             units.Duration(12 * time.Hour),
		HelloTimeout:       units.Duration(10 * time.Second),
		HandshakeTimeout:   units.Duration(15 * time.Second),
		Certificates:       4096,
		Sessions:           10_000,
		MirrorVersion:      true,
		FetchIntermediates: true,
		VerifyTunnels:      true,
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	if _, err := parseHosts(c.Tunnel); err != nil {
		bad("tunnel", "%w", err)
	}
	for _, z := range c.TunnelZones {
		if _, err := parseZone(z); err != nil {
			bad("tunnel_zones", "%w", err)
		}
	}
	for _, s := range c.TunnelZoneServers {
		if _, err := parseServer(s); err != nil {
			bad("tunnel_zone_servers", "%w", err)
		}
	}
	if t := c.TunnelZoneTimeout.Std(); t < 10*time.Millisecond || t > 30*time.Second {
		bad("tunnel_zone_timeout", "must be between 10ms and 30s, as new connections wait for it")
	}
	if _, err := parseNets(c.TunnelClients); err != nil {
		bad("tunnel_clients", "%w", err)
	}
	if _, ok := versions[c.MinVersion]; !ok {
		bad("min_version", "%q is neither \"1.2\" nor \"1.3\"", c.MinVersion)
	}
	if !slices.Contains([]string{certsTunnel, certsAnonymous, certsRefuse}, c.ClientCertificates) {
		bad("client_certificates", "%q is neither \"tunnel\" nor \"anonymous\" nor \"refuse\"", c.ClientCertificates)
	}
	if !slices.Contains([]string{revocationOff, revocationPass, revocationRefuse}, c.Revocation) {
		bad("revocation", "%q is neither \"pass\" nor \"refuse\" nor \"off\"", c.Revocation)
	}
	if err := (Permit{Domains: c.PermitDomains}).constrain(&x509.Certificate{}); err != nil {
		bad("permit_domains", "%w", err)
	}
	if err := (Permit{Networks: c.PermitNetworks}).constrain(&x509.Certificate{}); err != nil {
		bad("permit_networks", "%w", err)
	}
	if c.NotPermitted != notPermittedRefuse && c.NotPermitted != notPermittedTunnel {
		bad("not_permitted", "%q is neither \"refuse\" nor \"tunnel\"", c.NotPermitted)
	}
	if c.OtherProtocols != otherRefuse && c.OtherProtocols != otherTunnel {
		bad("other_protocols", "%q is neither \"refuse\" nor \"tunnel\"", c.OtherProtocols)
	}
	if c.Learned <= 0 {
		bad("learned", "must be greater than zero")
	}
	if c.PinnedAlerts < 0 {
		bad("pinned_alerts", "must not be negative; 0 switches it off")
	}
	if c.Pinned <= 0 {
		bad("pinned", "must be greater than zero; to switch it off set pinned_alerts to 0")
	}
	if c.HelloTimeout <= 0 {
		bad("hello_timeout", "must be greater than zero")
	}
	if c.HandshakeTimeout <= 0 {
		bad("handshake_timeout", "must be greater than zero")
	}
	if c.Certificates < 16 {
		bad("certificates", "must be at least 16")
	}
	if c.Sessions < 16 {
		bad("sessions", "must be at least 16")
	}
	for i, e := range c.Exceptions {
		if err := e.validate(); err != nil {
			bad("exception", "number %d: %w", i+1, err)
		}
	}
	return errors.Join(errs...)
}

func (e Exception) validate() error {
	if name, err := canonicalHost(e.Host); err != nil || name == "" {
		return fmt.Errorf("host %q is not a host name or an address", e.Host)
	}
	if e.Expires.IsZero() {
		return errors.New("expires is missing: an exception must end some day")
	}
	if len(e.Faults) == 0 {
		return fmt.Errorf("faults is missing: write which of %v", excusable)
	}
	for _, k := range e.Faults {
		if !slices.Contains(excusable, k) {
			return fmt.Errorf("fault %q cannot be excused: it must be one of %v", k, excusable)
		}
	}
	if e.Fingerprint != "" {
		if _, err := parseFingerprint(e.Fingerprint); err != nil {
			return err
		}
	}
	return nil
}
