package intercept

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// ocspSkew forgives authorities whose clocks are ahead.
const ocspSkew = 10 * time.Minute

// ocspLife is how long an answer is good that does not say so: as long as authorities may have one be at most (CA/B Forum).
const ocspLife = 10 * 24 * time.Hour

// oidTLSFeature is the extension by which a certificate demands a stapled answer (RFC 7633).
var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// statusRequest is the TLS feature "the OCSP answer is stapled".
const statusRequest = 5

// staple judges the OCSP answer that an origin stapled to its handshake (RFC 6066, 8). A good answer, and none where none
// is demanded, are no fault. One that is broken, outdated or another certificate's counts as none.
func staple(leaf, issuer *x509.Certificate, response []byte, now time.Time) *Fault {
	good, revoked := ocspAnswer(leaf, issuer, response, now)
	if revoked != nil {
		return &Fault{Kind: FaultRevoked, Detail: fmt.Sprintf("the certificate of %s was revoked on %s", subject(leaf), date(*revoked))}
	}
	if good {
		return nil
	}
	if mustStaple(leaf) {
		return &Fault{Kind: FaultRevoked, Detail: fmt.Sprintf("the certificate of %s demands a current proof that it is not revoked (must-staple), and the server sent none", subject(leaf))}
	}
	return nil
}

// stapled says whether an OCSP answer proves that a certificate is not revoked.
func stapled(leaf, issuer *x509.Certificate, response []byte, now time.Time) bool {
	good, _ := ocspAnswer(leaf, issuer, response, now)
	return good
}

// ocspAnswer reads an OCSP answer: whether it is a good one, or since when the certificate is revoked.
func ocspAnswer(leaf, issuer *x509.Certificate, response []byte, now time.Time) (good bool, revoked *time.Time) {
	if len(response) == 0 {
		return false, nil
	}
	r, err := ocsp.ParseResponseForCert(response, leaf, issuer)
	if err != nil || !mayAnswer(r.Certificate, issuer, now) {
		return false, nil
	}
	next := r.NextUpdate
	if next.IsZero() {
		next = r.ThisUpdate.Add(ocspLife)
	}
	switch {
	case r.Status == ocsp.Revoked:
		return false, &r.RevokedAt
	case r.Status == ocsp.Good && !now.Add(ocspSkew).Before(r.ThisUpdate) && now.Before(next):
		return true, nil
	}
	return false, nil
}

// mayAnswer says whether an OCSP answer may be signed by responder, nil for the issuer itself: a certificate of the issuer's
// that it has made for this (RFC 6960, 4.2.2.2), and no other one. That the issuer signed it is known.
func mayAnswer(responder, issuer *x509.Certificate, now time.Time) bool {
	if responder == nil || responder.Equal(issuer) {
		return true
	}
	return slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) && within(responder, now) == nil &&
		weakKey(responder) == nil && weakSignature(responder) == nil
}

// mustStaple says whether a certificate demands that an OCSP answer be stapled.
func mustStaple(c *x509.Certificate) bool {
	i := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidTLSFeature) })
	if i < 0 {
		return false
	}
	var list cryptobyte.String
	s := cryptobyte.String(c.Extensions[i].Value)
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) {
		return true // it demands something, and cannot be read: as strictly as it can be meant
	}
	for !list.Empty() {
		var feature int
		if !list.ReadASN1Integer(&feature) || feature == statusRequest {
			return true
		}
	}
	return false
}
