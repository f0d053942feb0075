package intercept

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidNoRevocationAvailable    = asn1.ObjectIdentifier{2, 5, 29, 56} // RFC 9608
)

// maxRevoked bounds the entries of one list.
const maxRevoked = 500_000

// revokedCert is an entry of a list: the serial number's hash, and the second since 1970 from which it is revoked. A list
// of hundreds of thousands is kept in a few megabytes by that.
type revokedCert struct {
	serial [12]byte
	at     int64
}

// crl is what has to be known of a certificate revocation list (RFC 5280, 5) whose signature holds.
type crl struct {
	revoked            []revokedCert // sorted by serial
	thisUpdate, until  time.Time     // until is its nextUpdate
	onlyUsers, onlyCAs bool
	places             []string  // its own distribution points, where it is one part of several
	refresh            time.Time // when a newer one is to be fetched
}

func serialHash(n *big.Int) [12]byte {
	sum := sha256.Sum256(n.Bytes())
	return [12]byte(sum[:12])
}

// parseCRL reads a list in DER and verifies that issuer has signed it. A list with what is not understood, and a delta to
// another list, cannot be used: what it does not name could be revoked all the same.
func parseCRL(der []byte, issuer *x509.Certificate, now time.Time) (*crl, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("it is not a certificate revocation list: %w", err)
	}
	if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		return nil, fmt.Errorf("it is the list of another authority, %s", clean(l.Issuer.String()))
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("its signature does not hold: %w", err)
	}
	switch l.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
		return nil, fmt.Errorf("it is signed with %v, which can be forged", l.SignatureAlgorithm)
	}
	c := &crl{thisUpdate: l.ThisUpdate, until: l.NextUpdate}
	switch {
	case now.Add(ocspSkew).Before(l.ThisUpdate):
		return nil, fmt.Errorf("it holds from %s only", date(l.ThisUpdate))
	case l.NextUpdate.IsZero():
		return nil, errors.New("it does not say until when it holds")
	case !now.Before(l.NextUpdate):
		return nil, fmt.Errorf("it is outdated since %s", date(l.NextUpdate))
	case len(l.RevokedCertificateEntries) > maxRevoked:
		return nil, fmt.Errorf("it has more than %d entries", maxRevoked)
	}
	for _, e := range l.Extensions {
		switch {
		case e.Id.Equal(oidIssuingDistributionPoint):
			if err := c.distributionPoint(e.Value); err != nil {
				return nil, err
			}
		case e.Critical:
			return nil, fmt.Errorf("it has a critical extension that is not understood (%v)", e.Id)
		}
	}
	c.revoked = make([]revokedCert, 0, len(l.RevokedCertificateEntries))
	for _, e := range l.RevokedCertificateEntries {
		if slices.ContainsFunc(e.Extensions, func(x pkix.Extension) bool { return x.Critical }) {
			return nil, errors.New("an entry has a critical extension that is not understood")
		}
		c.revoked = append(c.revoked, revokedCert{serialHash(e.SerialNumber), e.RevocationTime.Unix()})
	}
	slices.SortFunc(c.revoked, func(a, b revokedCert) int { return bytes.Compare(a.serial[:], b.serial[:]) })
	return c, nil
}

// distributionPoint reads the issuingDistributionPoint (RFC 5280, 5.2.5): which certificates the list is for.
func (c *crl) distributionPoint(b []byte) error {
	errBad := errors.New("its issuingDistributionPoint is malformed")
	s := cryptobyte.String(b)
	var seq cryptobyte.String
	if !s.ReadASN1(&seq, cbasn1.SEQUENCE) || !s.Empty() {
		return errBad
	}
	context := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }
	for !seq.Empty() {
		var (
			v   cryptobyte.String
			tag cbasn1.Tag
		)
		if !seq.ReadAnyASN1(&v, &tag) {
			return errBad
		}
		set := len(v) == 1 && v[0] != 0
		switch tag {
		case context(0).Constructed():
			var names cryptobyte.String
			if !v.ReadASN1(&names, context(0).Constructed()) {
				return errors.New("its issuingDistributionPoint is named in a way that is not understood")
			}
			for !names.Empty() {
				var name cryptobyte.String
				if !names.ReadAnyASN1(&name, &tag) {
					return errBad
				}
				if tag == context(6) {
					c.places = append(c.places, string(name))
				}
			}
			if len(c.places) == 0 {
				return errors.New("its issuingDistributionPoint has no URL")
			}
		case context(1):
			c.onlyUsers = set
		case context(2):
			c.onlyCAs = set
		default: // onlySomeReasons, indirectCRL, onlyContainsAttributeCerts
			return errors.New("it is a list of some reasons only, or an indirect one, or not for these certificates")
		}
	}
	return nil
}

// covers says whether the list speaks of a certificate at all.
func (c *crl) covers(cert *x509.Certificate) bool {
	if c.onlyUsers && cert.IsCA || c.onlyCAs && !cert.IsCA {
		return false
	}
	return c.places == nil || slices.ContainsFunc(c.places, func(p string) bool { return slices.Contains(cert.CRLDistributionPoints, p) })
}

// find returns since when a certificate is revoked.
func (c *crl) find(cert *x509.Certificate) (at time.Time, revoked bool) {
	want := serialHash(cert.SerialNumber)
	n, ok := slices.BinarySearchFunc(c.revoked, want, func(e revokedCert, h [12]byte) int { return bytes.Compare(e.serial[:], h[:]) })
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(c.revoked[n].at, 0), true
}
