// Package notice says to people what the gateway did and why: as a page, as JSON, as a mail. What a peer is told is
// generic and carries a reference number; the log has the details under the same number.
package notice

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// Kind is the sort of occurrence that a notice is about. Each has its texts in every language.
type Kind string

// The kinds.
const (
	Infected        Kind = "infected"         // a signature was found
	NotScanned      Kind = "not-scanned"      // the object could not be judged: see Verdict.Reason
	NotAllowed      Kind = "not-allowed"      // harmless as far as is known, and a rule does not want it
	Unavailable     Kind = "unavailable"      // the same, but trying again may help
	OriginCert      Kind = "origin-cert"      // the site's certificate is faulty
	OriginTLS       Kind = "origin-tls"       // the site's TLS is faulty or too weak
	OriginDNS       Kind = "origin-dns"       // the site's name is not known
	OriginRefused   Kind = "origin-refused"   // the site does not accept connections, or cannot be reached
	OriginTimeout   Kind = "origin-timeout"   // the site does not answer in time
	OriginProtocol  Kind = "origin-protocol"  // the site's answer is malformed or was cut off
	ForbiddenTarget Kind = "forbidden-target" // an address or a port that the gateway does not connect to
	ForbiddenClient Kind = "forbidden-client" // not one of allow_clients
	AuthRequired    Kind = "auth-required"    // the proxy wants a user and a password
	BadRequest      Kind = "bad-request"
	HeaderTooLarge  Kind = "header-too-large"
	Loop            Kind = "loop"        // the request had been here before
	Mismatch        Kind = "mismatch"    // CONNECT, SNI and Host do not agree
	Overload        Kind = "overload"    // a limit of the gateway is reached
	Internal        Kind = "internal"    // a fault of the gateway
	NotTLS          Kind = "not-tls"     // something else than TLS or HTTP in a CONNECT
	NotSupported    Kind = "unsupported" // a method or a protocol that cannot be inspected
)

// Notice is one occurrence, ready to be told. Its fields are data: whoever renders it escapes them.
type Notice struct {
	Reference string
	Kind      Kind
	Time      time.Time
	Facts     policy.Facts
	Decision  policy.Decision
	Verdict   scan.Verdict
	Size      int64
	SHA256    string // lower-case hexadecimal; empty: not known
	// Fault names what exactly is wrong, in the field's own terms, where that is no secret: "certificate expired on
	// 2026-01-02". It is not translated.
	Fault string
	// FaultKind is the sort of the origin's fault, one of the words of intercept.FaultKind ("expired", "wrong-name"), or
	// "parent" where the parent proxy is to blame. It chooses the explanation; empty or unknown: a general one.
	FaultKind string
	// Quarantine is the reference under which the original is kept; empty: it is not. It differs from Reference where the same
	// had been kept before.
	Quarantine string
	// Degraded says that the built-in signatures alone stand guard.
	Degraded bool
	// Signatures is when the signatures were made that it was judged by, the oldest of all engines; zero: not known.
	Signatures time.Time
}

var refEncoding = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewReference returns a reference number: random, short enough to be read out on the telephone, "4FJ2-9QX0-K7".
func NewReference() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process rather than return an error
	s := refEncoding.EncodeToString(b[:])
	return strings.Join([]string{s[:4], s[4:8], s[8:]}, "-")
}
