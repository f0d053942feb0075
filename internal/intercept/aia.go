package intercept

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/sync/singleflight"
)

// The bounds of fetching a missing intermediate certificate.
const (
	aiaTimeout  = 5 * time.Second
	aiaSize     = 64 << 10
	aiaDepth    = 3   // certificates fetched for one chain
	aiaURLs     = 2   // places tried for one of them
	aiaEntries  = 512 // places remembered
	aiaGood     = 24 * time.Hour
	aiaBad      = 5 * time.Minute
	aiaMaxCerts = 8   // in one file
	aiaChecks   = 100 // signatures looked at for one chain, as many as crypto/x509 does
)

// issuers fetches the certificates of issuers that an origin should have sent, from where its certificate says (RFC 5280,
// 4.2.2.1, caIssuers). What comes is not trusted by that: it only fills a gap in a path that has to hold.
type issuers struct {
	fetcher *fetcher
	cache   *lru[string, []*x509.Certificate]
	now     func() time.Time
	flight  singleflight.Group
}

// newIssuers returns what fetches with f.
func newIssuers(f *fetcher, now func() time.Time) *issuers {
	return &issuers{fetcher: f, cache: newLRU[string, []*x509.Certificate](aiaEntries, now), now: now}
}

// complete returns certificates that continue the chain where the next issuer is missing; those that it returns are in
// addition to have, which are the ones that are there. It returns nothing where nothing can be found.
func (f *issuers) complete(ctx context.Context, leaf *x509.Certificate, have []*x509.Certificate) ([]*x509.Certificate, error) {
	tip := leaf
	// Nothing here is trusted yet, and certificates may sign each other in circles, with any number of others of their names.
	left := slices.Clone(have)
	for checks := aiaChecks; checks > 0 && ctx.Err() == nil; {
		next := issuerOf(tip, left, &checks)
		if next == nil {
			break
		}
		left = slices.DeleteFunc(left, func(c *x509.Certificate) bool { return c.Equal(next) })
		tip = next
	}
	if selfIssued(tip) {
		return nil, nil
	}
	var errs []error
	for n, place := range tip.IssuingCertificateURL {
		if n >= aiaURLs {
			break
		}
		certs, err := f.get(ctx, place)
		if err == nil && len(certs) > 0 {
			return certs, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// issuerOf returns the certificate that signed c, of those given. Each signature that it looks at is taken from checks, and at
// zero it looks at no more.
func issuerOf(c *x509.Certificate, of []*x509.Certificate, checks *int) *x509.Certificate {
	if selfIssued(c) {
		return nil
	}
	for _, o := range of {
		if o == c || string(o.RawSubject) != string(c.RawIssuer) {
			continue
		}
		if *checks--; *checks < 0 {
			return nil
		}
		if c.CheckSignatureFrom(o) == nil {
			return o
		}
	}
	return nil
}

// get returns the certificates at a place, from memory where it was asked before. A place that had none is not asked again
// for a while, and then the result is empty.
func (f *issuers) get(ctx context.Context, place string) ([]*x509.Certificate, error) {
	if certs, ok := f.cache.get(place); ok {
		return certs, nil
	}
	ch := f.flight.DoChan(place, func() (_ any, err error) {
		defer recovered(slog.Default(), &err)
		// Not the asker's context: others wait for the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aiaTimeout)
		defer cancel()
		b, err := f.fetcher.fetch(ctx, place, aiaSize)
		var certs []*x509.Certificate
		if err == nil {
			certs, err = parseIssuers(b)
		}
		if errors.Is(err, errCrowded) {
			return nil, err
		}
		if err != nil {
			f.cache.put(place, nil, f.now().Add(aiaBad))
			return nil, fmt.Errorf("fetching an intermediate certificate from %q: %w", clean(place), err)
		}
		f.cache.put(place, certs, f.now().Add(aiaGood))
		return certs, nil
	})
	select {
	case r := <-ch:
		certs, _ := r.Val.([]*x509.Certificate)
		return certs, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// parseIssuers reads what RFC 5280, 4.2.2.1 lets a caIssuers URL lead to: a certificate in DER, or a certs-only PKCS#7
// message; and PEM, which some serve.
func parseIssuers(b []byte) ([]*x509.Certificate, error) {
	if strings.HasPrefix(strings.TrimSpace(string(b[:min(len(b), 64)])), "-----BEGIN") {
		return parsePEMCerts(b)
	}
	if c, err := x509.ParseCertificate(b); err == nil {
		return []*x509.Certificate{c}, nil
	}
	return parsePKCS7(b)
}

var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// parsePKCS7 reads the certificates of a degenerate SignedData (RFC 5652, 5.1).
func parsePKCS7(b []byte) ([]*x509.Certificate, error) {
	errBad := errors.New("neither a certificate nor a certs-only PKCS#7 message")
	var (
		info, content, signed, certs, skip cryptobyte.String
		oid                                asn1.ObjectIdentifier
		version                            int
	)
	explicit0 := cbasn1.Tag(0).Constructed().ContextSpecific()
	s := cryptobyte.String(b)
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidSignedData) ||
		!info.ReadASN1(&content, explicit0) || !content.ReadASN1(&signed, cbasn1.SEQUENCE) ||
		!signed.ReadASN1Integer(&version) || !signed.ReadASN1(&skip, cbasn1.SET) || !signed.ReadASN1(&skip, cbasn1.SEQUENCE) ||
		!signed.ReadASN1(&certs, explicit0) {
		return nil, errBad
	}
	var out []*x509.Certificate
	for !certs.Empty() && len(out) < aiaMaxCerts {
		var der cryptobyte.String
		if !certs.ReadASN1Element(&der, cbasn1.SEQUENCE) {
			return nil, errBad
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in a PKCS#7 message: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errBad
	}
	return out, nil
}
