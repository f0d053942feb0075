package intercept

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
)

// Target is where a client's connection wants to go.
type Target struct {
	Host   string         // as CONNECT said it, or the SNI of redirected traffic: lower case, ASCII (IDNA), or an IP address
	Port   uint16         // TCP port
	Addr   netip.AddrPort // the original destination of redirected traffic; zero: Host is resolved
	Client netip.AddrPort // who asks
	User   string         // who authenticated to the proxy; empty: nobody had to

	// Protocols are the application protocols (RFC 7301) that can be inspected; nil: those of HTTP.
	Protocols []string
	// Dial opens the connection to the origin as far as TLS can begin on it, for protocols that begin without (STLS of
	// POP3); it may be called more than once. nil: Addr, or Host and Port, are dialled.
	Dial func(ctx context.Context) (net.Conn, error)
}

// Mode is what is done with a connection.
type Mode uint8

// The modes.
const (
	Refuse  Mode = iota // zero value: nothing passes
	Inspect             // opened, and every object scanned
	Tunnel              // passed through byte for byte
	Plain               // what came inside is HTTP without TLS: inspected, without a certificate
)

var modeNames = [...]string{"refuse", "inspect", "tunnel", "plain"}

// String returns the mode's name.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return modeNames[Refuse]
}

// Rule is the sort of a decision's reason: a fixed word that metrics count by.
type Rule string

// The rules.
const (
	RuleNone              Rule = "none"               // nothing says otherwise: inspected
	RuleTarget            Rule = "target"             // the target makes no sense, or contradicts the ClientHello
	RuleProtocol          Rule = "protocol"           // what came is not what can be inspected, or HTTP without TLS
	RuleClients           Rule = "tunnel-clients"     // the client's network
	RuleList              Rule = "tunnel-list"        // the settings' list
	RuleFile              Rule = "tunnel-file"        // the file's list
	RuleZone              Rule = "tunnel-zone"        // the DNS zone
	RuleLearned           Rule = "learned"            // the origin asked for a client certificate before
	RulePinned            Rule = "pinned"             // the client refused the gateway's certificates before
	RuleClientCertificate Rule = "client-certificate" // the origin asks for one now
	RuleNotPermitted      Rule = "not-permitted"      // the CA is kept to other names
	RuleUnproven          Rule = "unproven"           // on a tunnel list, but the origin does not prove the name: inspected
)

// rules lists all of them, and ruleModes what they can lead to.
var (
	rules = []Rule{
		RuleNone, RuleTarget, RuleProtocol, RuleClients, RuleList, RuleFile, RuleZone, RuleLearned, RulePinned,
		RuleClientCertificate, RuleUnproven, RuleNotPermitted,
	}
	ruleModes = map[Rule][]Mode{
		RuleNone: {Inspect}, RuleTarget: {Refuse, Inspect}, RuleProtocol: {Refuse, Plain, Tunnel}, RuleClients: {Tunnel},
		RuleList: {Tunnel}, RuleFile: {Tunnel}, RuleZone: {Tunnel}, RuleLearned: {Tunnel}, RulePinned: {Tunnel},
		RuleClientCertificate: {Tunnel}, RuleUnproven: {Inspect}, RuleNotPermitted: {Refuse, Tunnel},
	}
)

// Decision is a mode and the reason for it, in words for the log and for `lazaret explain`, and as a word for metrics.
type Decision struct {
	Mode   Mode
	Reason string
	Rule   Rule
}

// Session is a client's connection after Accept. Its Target is completed: Host is the name that the connection is for, which
// the Host of each request has to agree with, even where CONNECT named an address or the traffic was redirected. What it holds depends on Mode:
//
//   - Inspect: Client has finished its handshake under a certificate of ours, and Origin is verified and speaks the same
//     protocol (ALPN). Or Fault is set: then there is no Origin, no request may leave, and each one is answered with a page
//     that names the fault.
//   - Tunnel: Raw and RawOrigin are to be copied both ways, the ClientHello included. Or Fault is set: the origin could not
//     be reached, and Raw is to be closed, as there is no TLS of ours to say so in.
//   - Plain: Raw carries HTTP without TLS.
//   - Refuse: Raw is to be closed; Reason says why.
type Session struct {
	Decision
	Target Target

	Client *tls.Conn
	Origin *tls.Conn
	Proto  string // the negotiated protocol on both sides, "h2" or "http/1.1"
	Fault  *Fault

	Raw       net.Conn // the client's connection, with what was read of it put back
	RawOrigin net.Conn

	redial       func(ctx context.Context) (*tls.Conn, error)
	fallBack     func() bool
	renegotiated func() // remembers that the origin asks this client for certificates; nil: that changes nothing
}

// Redial opens another verified connection to the same origin, for the same browser session: same name, same protocol,
// same TLS session cache. It is for origins that closed an idle connection. The error is a *Fault where the origin's TLS
// is to blame, an *egress.Error where it could not be reached.
func (s *Session) Redial(ctx context.Context) (*tls.Conn, error) { return s.redial(ctx) }

// FaultKind is the sort of fault of an origin.
type FaultKind string

// The kinds of fault.
const (
	FaultUnreachable FaultKind = "unreachable" // Err is an *egress.Error
	FaultHandshake   FaultKind = "handshake"   // TLS failed: versions, suites, alerts, no TLS at all
	FaultUntrusted   FaultKind = "untrusted"   // no path to a trusted root
	FaultSelfSigned  FaultKind = "self-signed"
	FaultName        FaultKind = "wrong-name"
	FaultExpired     FaultKind = "expired"
	FaultNotYetValid FaultKind = "not-yet-valid"
	FaultRevoked     FaultKind = "revoked"
	FaultWeak        FaultKind = "weak"        // key, hash or protocol
	FaultUsage       FaultKind = "wrong-usage" // a leaf that is an authority's, or whose key may not sign
	FaultMalformed   FaultKind = "malformed"
	FaultOwnCA       FaultKind = "own-ca" // signed by this gateway's CA
	FaultNotAllowed  FaultKind = "not-allowed"

	FaultClientCertificate FaultKind = "client-certificate" // the origin asks for one behind the handshake; the next connection is tunnelled
)

// faultKinds lists all of them.
var faultKinds = []FaultKind{
	FaultUnreachable, FaultHandshake, FaultUntrusted, FaultSelfSigned, FaultName, FaultExpired, FaultNotYetValid, FaultRevoked,
	FaultWeak, FaultUsage, FaultMalformed, FaultOwnCA, FaultNotAllowed,
	FaultClientCertificate,
}

// Fault is why an origin is not to be talked to.
type Fault struct {
	Kind   FaultKind
	Detail string // in the field's terms, fit to be shown: "certificate expired on 2026-01-02"
	Err    error
}

// Error implements error.
func (f *Fault) Error() string { return string(f.Kind) + ": " + f.Detail }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }
