package intercept

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// The bounds of a leaf. 397 days is what browsers accept (CA/B Forum baseline requirements, 6.3.2), back-dating included.
const (
	leafBackdate    = 24 * time.Hour
	leafLifetime    = 397*24*time.Hour - leafBackdate - time.Hour
	leafFaulty      = 24 * time.Hour // for the page that names a fault, and for origins under an exception
	maxMirrored     = 100            // names taken over from the origin's certificate
	maxMirroredSize = 8 << 10        // and their length together
)

// keyKind is the sort of a leaf's key.
type keyKind uint8

const (
	ecdsaLeaf keyKind = iota
	rsaLeaf           // for clients that offer no ECDSA
)

// leafKey is what a leaf depends on. A certificate of the origin that has changed gets a new leaf.
type leafKey struct {
	name   string // empty where the origin's own names, which the leaf mirrors, cover it
	origin [sha256.Size]byte
	kind   keyKind
}

// leaves mints leaf certificates and keeps them. All leaves of a kind share one key, made at start and held in memory
// only; it is never the CA's.
type leaves struct {
	ca     *CA
	now    func() time.Time
	ecdsa  *ecdsa.PrivateKey
	rsa    func() (*rsa.PrivateKey, error)
	probe  *tls.Certificate // a certificate with the ECDSA key, to ask whether a client takes such ones
	cache  *lru[leafKey, *tls.Certificate]
	flight singleflight.Group
	minted func() // counts
}

// newLeaves makes the leaf key and an empty cache of at most size certificates.
func newLeaves(ca *CA, size int, now func() time.Time, minted func()) (*leaves, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the leaf certificates: %w", err)
	}
	l := &leaves{
		ca: ca, now: now, ecdsa: key, minted: minted,
		rsa:   sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }),
		cache: newLRU[leafKey, *tls.Certificate](size, now),
	}
	if ca.key == nil { // of CAStore.Read: nobody is served
		return l, nil
	}
	if l.probe, err = l.mint("probe.invalid", nil, ecdsaLeaf); err != nil {
		return nil, fmt.Errorf("the CA cannot sign: %w", err)
	}
	return l, nil
}

// forClient returns the leaf for name that suits the client: ECDSA, or RSA where the client's ClientHello rules ECDSA out.
func (l *leaves) forClient(ctx context.Context, chi *tls.ClientHelloInfo, name string, origin *x509.Certificate) (*tls.Certificate, error) {
	kind := ecdsaLeaf
	ask := *chi
	ask.ServerName = "" // whether the name fits is not the question
	if ask.SupportsCertificate(l.probe) != nil {
		kind = rsaLeaf
	}
	return l.get(ctx, name, origin, kind)
}

// get returns the leaf for name, mirroring the origin's certificate (nil: there is none, the leaf serves a page of ours).
// One goroutine mints; the others who want the same leaf wait for it, each until its own ctx ends.
func (l *leaves) get(ctx context.Context, name string, origin *x509.Certificate, kind keyKind) (*tls.Certificate, error) {
	key := leafKey{name: name, kind: kind}
	if origin != nil {
		key.origin = sha256.Sum256(origin.Raw)
		if l.shared(name, origin) {
			key.name = ""
		}
	}
	if c, ok := l.cache.get(key); ok {
		return c, nil
	}
	ch := l.flight.DoChan(fmt.Sprintf("%d %x %s", key.kind, key.origin, key.name), func() (_ any, err error) {
		defer recovered(slog.Default(), &err)
		if c, ok := l.cache.get(key); ok {
			return c, nil
		}
		c, err := l.mint(name, origin, kind)
		if err != nil {
			return nil, err
		}
		if l.minted != nil {
			l.minted()
		}
		// A leaf is not given out in its last hour; its successor is minted with fresh dates.
		l.cache.put(key, c, c.Leaf.NotAfter.Add(-min(time.Hour, c.Leaf.NotAfter.Sub(l.now())/2)))
		return c, nil
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, fmt.Errorf("minting a certificate for %s: %w", name, r.Err)
		}
		return r.Val.(*tls.Certificate), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a certificate for %s: %w", name, ctx.Err())
	}
}

// shared says whether one leaf serves all names of the origin's certificate: it has them all, and so the name.
func (l *leaves) shared(name string, origin *x509.Certificate) bool {
	dns, ips := l.mirrored(origin)
	return origin.VerifyHostname(name) == nil && len(dns) == len(origin.DNSNames) && len(ips) == len(origin.IPAddresses)
}

// mint signs a leaf.
func (l *leaves) mint(name string, origin *x509.Certificate, kind keyKind) (*tls.Certificate, error) {
	serial, err := randomSerial()
	if err != nil {
		return nil, err
	}
	tpl := &x509.Certificate{
		SerialNumber:          serial,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if origin != nil {
		tpl.DNSNames, tpl.IPAddresses = l.mirrored(origin)
	}
	tpl.Subject.CommonName = commonName(name)
	if origin != nil && l.shared(name, origin) {
		// Whoever is served this leaf next must not learn from it what the first visitor asked for: a wildcard covers private names.
		tpl.Subject.CommonName = sharedName(tpl)
	}
	cover(tpl, name)
	tpl.NotBefore, tpl.NotAfter = l.dates(origin)

	var key crypto.Signer = l.ecdsa
	if kind == rsaLeaf {
		if key, err = l.rsa(); err != nil {
			return nil, fmt.Errorf("making the RSA key of the leaf certificates: %w", err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, l.ca.cert, key.Public(), l.ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, l.ca.chain...), PrivateKey: key, Leaf: leaf}, nil
}

// commonName returns a host name or an address as a common name; empty: it is too long to be one (RFC 5280, appendix A.1).
func commonName(name string) string {
	if !isName(name) { // OpenSSL takes a common name that could be a host name for one, and holds it against name constraints
		name = "address " + name
	}
	if len(name) > 64 {
		return ""
	}
	return name
}

// sharedName returns the common name of a leaf that is shared: its first name that can be one. Empty: none can, and its names are
// enough.
func sharedName(tpl *x509.Certificate) string {
	for _, n := range tpl.DNSNames {
		if len(n) <= 64 {
			return n
		}
	}
	for _, ip := range tpl.IPAddresses {
		return commonName(ip.String())
	}
	return ""
}

// dates returns the validity of a leaf: within the origin's, the CA's and what browsers accept.
func (l *leaves) dates(origin *x509.Certificate) (from, to time.Time) {
	now := l.now()
	from, to = now.Add(-leafBackdate), now.Add(leafLifetime)
	switch {
	case origin == nil, !now.Before(origin.NotAfter), now.Before(origin.NotBefore):
		to = now.Add(leafFaulty)
	default:
		from, to = later(from, origin.NotBefore), earlier(to, origin.NotAfter)
	}
	return later(from, l.ca.cert.NotBefore), earlier(to, l.ca.cert.NotAfter)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// mirrored returns the names of the origin's certificate that a leaf takes over, wildcards as they are. What is no host
// name is left out, and so is what the CA is not good for: with one such name the whole leaf would not be taken.
func (l *leaves) mirrored(origin *x509.Certificate) (dns []string, ips []net.IP) {
	size := 0
	for _, n := range origin.DNSNames {
		base, wildcard := strings.CutPrefix(n, "*.")
		if _, err := canonicalHost(base); err != nil || base == "" || (wildcard && !strings.Contains(base, ".")) {
			continue
		}
		if !l.ca.permits(n) {
			continue
		}
		if size += len(n); len(dns) >= maxMirrored || size > maxMirroredSize {
			break
		}
		dns = append(dns, n)
	}
	for _, ip := range origin.IPAddresses {
		if len(ips) >= maxMirrored {
			break
		}
		if !l.ca.permits(ip.String()) {
			continue
		}
		ips = append(ips, ip)
	}
	return dns, ips
}

// cover makes sure that the certificate is good for name.
func cover(tpl *x509.Certificate, name string) {
	if ip := net.ParseIP(name); ip != nil {
		if !slices.ContainsFunc(tpl.IPAddresses, ip.Equal) {
			tpl.IPAddresses = append(tpl.IPAddresses, ip)
		}
		return
	}
	if tpl.VerifyHostname(name) != nil {
		tpl.DNSNames = append(tpl.DNSNames, name)
	}
}
