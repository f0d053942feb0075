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

// oidTLSFeature is the extension by which a certificate demands a stapled answer (RFC 7633).
var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// statusRequest is the TLS feature "the OCSP answer is stapled".
const statusRequest = 5

// staple judges the OCSP answer that an origin stapled to its handshake (RFC 6066, 8). A good answer, and none where none
// is demanded, are no fault. One that is broken, outdated or another certificate's counts as none.
func staple(leaf, issuer *x509.Certificate, response []byte, now time.Time) *Fault {
	if len(response) > 0 {
		r, err := ocsp.ParseResponseForCert(response, leaf, issuer)
		switch {
		case err != nil:
		case r.Status == ocsp.Revoked:
			return &Fault{Kind: FaultRevoked, Detail: fmt.Sprintf("the certificate of %s was revoked on %s", subject(leaf), date(r.RevokedAt))}
		case r.Status == ocsp.Good && !now.Add(ocspSkew).Before(r.ThisUpdate) && (r.NextUpdate.IsZero() || now.Before(r.NextUpdate)):
			return nil
		}
	}
	if mustStaple(leaf) {
		return &Fault{Kind: FaultRevoked, Detail: fmt.Sprintf("the certificate of %s demands a current proof that it is not revoked (must-staple), and the server sent none", subject(leaf))}
	}
	return nil
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
