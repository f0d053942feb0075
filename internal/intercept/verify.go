package intercept

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// minRSABits is what browsers and the CA/B Forum ask for.
const minRSABits = 2048

// verifier judges the certificates of origins.
type verifier struct {
	roots  *x509.CertPool
	extra  map[[32]byte]struct{} // those of them that the settings name, by SHA-256
	ca     *CA
	now    func() time.Time
	chains *lru[[32]byte, chain]        // paths that were found good lately
	own    func(*x509.Certificate) bool // says whether a certificate has the gateway's own leaf key; may be nil
}

// loadRoots returns the system's roots with those of the PEM files, and which the latter are, by SHA-256.
func loadRoots(files []string) (pool *x509.CertPool, extra map[[32]byte]struct{}, err error) {
	if pool, err = x509.SystemCertPool(); err != nil {
		// Without any root every origin is refused, which is safe; but extra roots may be all that is wanted.
		pool = x509.NewCertPool()
	}
	extra = map[[32]byte]struct{}{}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, fmt.Errorf("extra_roots: %w", err)
		}
		certs, err := parsePEMCerts(b)
		if err != nil {
			return nil, nil, fmt.Errorf("extra_roots: %s: %w", path, err)
		}
		for _, c := range certs {
			pool.AddCert(c)
			extra[sha256.Sum256(c.Raw)] = struct{}{}
		}
	}
	return pool, extra, nil
}

// operators says whether a path ends at a root that the settings name.
func (v *verifier) operators(path []*x509.Certificate) bool {
	if len(path) == 0 {
		return false
	}
	_, ok := v.extra[sha256.Sum256(path[len(path)-1].Raw)]
	return ok
}

// presented is what an origin showed of itself.
type presented struct {
	name    string              // the host name or IP address that it is to be good for
	chain   []*x509.Certificate // as sent, leaf first
	fetched []*x509.Certificate // intermediates that it should have sent
	staple  []byte              // OCSP answer; nil: none
	resumed bool                // it was sent in an earlier handshake, whose session goes on
}

// judge judges what an origin presented. It returns the path to a trusted root, nil where there is none, and every fault
// that it found, so that an exception for one does not hide another. A path that leads to a trusted root but for its dates or weak
// keys comes with the fault: whether it is revoked is still to be asked.
//
// It is crypto/x509's path validation (RFC 5280, 6) with what browsers ask for besides: keys and signatures that are not
// weak, a leaf that is a server's and no authority's, no wildcard over a public suffix, must-staple, and never this gateway's own CA, which the machine may well trust.
func (v *verifier) judge(p presented) (path []*x509.Certificate, faults []*Fault) {
	if len(p.chain) == 0 {
		return nil, []*Fault{{Kind: FaultMalformed, Detail: "the server sent no certificate"}}
	}
	leaf := p.chain[0]
	if f := v.notOurs(p.chain); f != nil {
		return nil, []*Fault{f}
	}
	add := func(f *Fault) {
		if f != nil && !slices.ContainsFunc(faults, func(g *Fault) bool { return g.Kind == f.Kind }) {
			faults = append(faults, f)
		}
	}
	now, others := v.now(), append(slices.Clone(p.chain[1:]), p.fetched...)
	path, fault := v.knownPaths(leaf, others, now)
	add(fault)
	if late := within(leaf, now); late != nil {
		add(late)
		// The rest is judged as if the leaf were valid. Its signature is over the bytes, which stay as they are.
		valid := *leaf
		valid.NotBefore, valid.NotAfter = now.Add(-time.Second), now.Add(time.Second)
		path, fault = v.paths(&valid, others, now)
		add(fault)
	}
	trusted := path != nil
	if !trusted {
		var more []*Fault
		path, more = v.besides(leaf, others, now)
		for _, f := range more {
			add(f)
		}
	}
	for _, f := range leafUsage(leaf, trusted) {
		add(f)
	}
	add(checkName(leaf, p.name))
	if len(path) > 1 && !p.resumed {
		add(staple(leaf, path[1], p.staple, now))
	}
	return path, faults
}

// besides returns the path of a chain that has none otherwise, and the faults that dates and weak keys might hide: it has to lead to a
// trusted root when each certificate is taken as valid. A signature that crypto/x509 does not check, by SHA-1 say, leads nowhere.
func (v *verifier) besides(leaf *x509.Certificate, others []*x509.Certificate, now time.Time) (path []*x509.Certificate, faults []*Fault) {
	valid := func(c *x509.Certificate) *x509.Certificate {
		out := *c
		out.NotBefore, out.NotAfter = now.Add(-time.Second), now.Add(time.Second)
		return &out
	}
	pool := x509.NewCertPool()
	for _, c := range others {
		pool.AddCert(valid(c))
	}
	found, err := valid(leaf).Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: pool, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		if selfIssued(leaf) && len(others) == 0 {
			return nil, nil // that it is self-signed says so
		}
		return nil, []*Fault{{Kind: FaultUntrusted, Detail: fmt.Sprintf("no trusted authority stands behind the certificate of %s, issued by %s", subject(leaf), clean(leaf.Issuer.String())), Err: err}}
	}
	for _, path := range found {
		f := v.path(path)
		if f == nil {
			return path, nil
		}
		faults = append(faults, f)
	}
	return found[0], faults
}

// notOurs returns a fault where a chain leads to this gateway.
func (v *verifier) notOurs(chain []*x509.Certificate) *Fault {
	if v.own != nil && v.own(chain[0]) {
		return &Fault{Kind: FaultOwnCA, Detail: "the server answered with a certificate of this gateway: the connection goes in a circle"}
	}
	for i, c := range chain {
		if v.ca.isOurs(c) || (i == 0 && v.ca.signed(c)) {
			return &Fault{Kind: FaultOwnCA, Detail: "the server's certificate is signed by this gateway's own CA, which no server outside may use"}
		}
	}
	return nil
}

// paths returns a path from leaf to a trusted root that holds at the moment given, or the fault that there is none.
func (v *verifier) paths(leaf *x509.Certificate, others []*x509.Certificate, now time.Time) ([]*x509.Certificate, *Fault) {
	pool := x509.NewCertPool()
	for _, c := range others {
		pool.AddCert(c)
	}
	found, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: pool, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, explain(leaf, others, now, err)
	}
	var fault *Fault
	for _, path := range found {
		if fault = v.path(path); fault == nil {
			return path, nil
		}
	}
	return nil, fault
}

// path judges one path that crypto/x509 found good.
func (v *verifier) path(path []*x509.Certificate) *Fault {
	if f := v.notOurs(path); f != nil {
		return f
	}
	for i, c := range path {
		if f := weakKey(c); f != nil {
			return f
		}
		if i < len(path)-1 { // a root's own signature proves nothing, so its hash does not matter
			if f := weakSignature(c); f != nil {
				return f
			}
		}
	}
	return nil
}

// weakKey returns a fault for a public key that browsers do not accept.
func weakKey(c *x509.Certificate) *Fault {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits {
			return &Fault{Kind: FaultWeak, Detail: fmt.Sprintf("the certificate of %s has an RSA key of %d bits; less than %d can be broken", subject(c), bits, minRSABits)}
		}
		if k.E < 3 {
			return &Fault{Kind: FaultWeak, Detail: fmt.Sprintf("the certificate of %s has an RSA key with the exponent %d", subject(c), k.E)}
		}
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return &Fault{Kind: FaultWeak, Detail: fmt.Sprintf("the certificate of %s has an elliptic-curve key of %d bits", subject(c), bits)}
		}
	case ed25519.PublicKey:
	default:
		return &Fault{Kind: FaultWeak, Detail: fmt.Sprintf("the certificate of %s has a key of a kind that is not accepted (%v)", subject(c), c.PublicKeyAlgorithm)}
	}
	return nil
}

// weakSignature returns a fault for a signature by a hash that collisions are known for, or by DSA.
func weakSignature(c *x509.Certificate) *Fault {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.DSAWithSHA256:
		return &Fault{Kind: FaultWeak, Detail: fmt.Sprintf("the certificate of %s is signed with %v, which can be forged", subject(c), c.SignatureAlgorithm)}
	}
	return nil
}

// within returns a fault where c is not valid at the moment given.
func within(c *x509.Certificate, now time.Time) *Fault {
	switch {
	case now.After(c.NotAfter):
		return &Fault{Kind: FaultExpired, Detail: fmt.Sprintf("the certificate of %s expired on %s", subject(c), date(c.NotAfter))}
	case now.Before(c.NotBefore):
		return &Fault{Kind: FaultNotYetValid, Detail: fmt.Sprintf("the certificate of %s is not valid before %s", subject(c), date(c.NotBefore))}
	}
	return nil
}

// checkName returns a fault where leaf is not for name. crypto/x509 looks at subject alternative names only, takes a
// wildcard for one whole leftmost label, and IP addresses by their own entries (RFC 9525); a wildcard over a public suffix
// ("*.co.uk") or over a top-level label that nobody has registered ("*.intranet") is refused here, as browsers do. Suffixes of
// the list's private section ("*.github.io") are their owners' to have certificates for.
func checkName(leaf *x509.Certificate, name string) *Fault {
	if err := leaf.VerifyHostname(name); err != nil {
		return &Fault{Kind: FaultName, Detail: wrongName(leaf, name), Err: err}
	}
	if net.ParseIP(name) != nil {
		return nil
	}
	for _, n := range leaf.DNSNames {
		if strings.EqualFold(n, name) {
			return nil
		}
	}
	_, base, _ := strings.Cut(strings.ToLower(name), ".")
	suffix, icann := publicsuffix.PublicSuffix(base)
	switch {
	case suffix != base:
		return nil
	case icann:
		return &Fault{Kind: FaultName, Detail: fmt.Sprintf("the certificate is for *.%s, every site under a public suffix", base)}
	case !strings.Contains(base, "."):
		return &Fault{Kind: FaultName, Detail: fmt.Sprintf("the certificate is for *.%s, every host under a top-level name", base)}
	}
	return nil
}

// wrongName says which names a certificate is for, a few of them.
func wrongName(leaf *x509.Certificate, name string) string {
	names := slices.Clone(leaf.DNSNames)
	if net.ParseIP(name) != nil { // it may be there as the wrong kind of name
		for n := range names {
			names[n] = "the DNS name " + names[n]
		}
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		if leaf.Subject.CommonName != "" {
			return fmt.Sprintf("the certificate is not for %s: it has no subject alternative name, and its common name %s does not count", name, clean(leaf.Subject.CommonName))
		}
		return fmt.Sprintf("the certificate is not for %s: it is for no name at all", name)
	}
	more := ""
	if len(names) > 4 {
		more = fmt.Sprintf(" and %d more", len(names)-4)
		names = names[:4]
	}
	for i := range names {
		names[i] = clean(names[i])
	}
	return fmt.Sprintf("the certificate is not for %s, but for %s%s", name, strings.Join(names, ", "), more)
}

// explain turns the error of crypto/x509 into a fault. Where no path was found the chain is looked over for the reason,
// as the library then says no more than that the authority is unknown.
func explain(leaf *x509.Certificate, others []*x509.Certificate, now time.Time, err error) *Fault {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		return invalidFault(invalid, now)
	}
	var critical x509.UnhandledCriticalExtension
	if errors.As(err, &critical) {
		return &Fault{Kind: FaultMalformed, Detail: "a certificate has a critical extension that is not understood", Err: err}
	}
	for _, c := range append([]*x509.Certificate{leaf}, others...) {
		if f := weakSignature(c); f != nil && !selfIssued(c) {
			return f
		}
	}
	if f := weakKey(leaf); f != nil {
		return f
	}
	if selfIssued(leaf) {
		return &Fault{Kind: FaultSelfSigned, Detail: fmt.Sprintf("the certificate of %s is self-signed", subject(leaf)), Err: err}
	}
	for _, c := range others {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) {
			if e := leaf.CheckSignatureFrom(c); e != nil {
				return &Fault{Kind: FaultUntrusted, Detail: fmt.Sprintf("the certificate of %s is not validly signed by %s: %s", subject(leaf), subject(c), clean(e.Error())), Err: err}
			}
			if f := within(c, now); f != nil {
				return f
			}
		}
	}
	return &Fault{Kind: FaultUntrusted, Detail: fmt.Sprintf("no trusted authority stands behind the certificate of %s, issued by %s", subject(leaf), clean(leaf.Issuer.String())), Err: err}
}

// invalidFault turns an x509.CertificateInvalidError into a fault.
func invalidFault(e x509.CertificateInvalidError, now time.Time) *Fault {
	f := &Fault{Kind: FaultUntrusted, Err: e, Detail: fmt.Sprintf("the certificate of %s cannot be accepted: %s", subject(e.Cert), clean(e.Error()))}
	switch e.Reason {
	case x509.Expired:
		if w := within(e.Cert, now); w != nil {
			w.Err = e
			return w
		}
		f.Kind = FaultExpired
	case x509.NotAuthorizedToSign:
		f.Detail = fmt.Sprintf("the certificate of %s is used as an authority's, but is none (basicConstraints, keyUsage)", subject(e.Cert))
	case x509.IncompatibleUsage:
		f.Kind = FaultMalformed
		f.Detail = "the certificate, or an authority's above it, is not for servers (extended key usage)"
	case x509.TooManyIntermediates:
		f.Detail = fmt.Sprintf("the chain is longer than the authority %s allows (path length)", subject(e.Cert))
	case x509.CANotAuthorizedForThisName, x509.NameMismatch:
		f.Detail = fmt.Sprintf("an authority in the chain may not issue certificates for these names (name constraints): %s", clean(e.Detail))
	case x509.NameConstraintsWithoutSANs, x509.UnconstrainedName, x509.TooManyConstraints, x509.CANotAuthorizedForExtKeyUsage:
		f.Kind = FaultMalformed
	}
	return f
}

// selfIssued says whether a certificate names itself as its issuer.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// subject names a certificate for a message.
func subject(c *x509.Certificate) string {
	switch {
	case c == nil:
		return "an unknown subject"
	case c.Subject.CommonName != "":
		return clean(c.Subject.CommonName)
	case len(c.DNSNames) > 0:
		return clean(c.DNSNames[0])
	case len(c.Subject.String()) > 0:
		return clean(c.Subject.String())
	}
	return "no name"
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// clean makes text of a certificate fit for a message: printable, and not too long. Whoever shows it in a page escapes it
// as well.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x200b && r <= 0x200f) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}
