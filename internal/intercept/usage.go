package intercept

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
)

var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// leafUsage returns what makes a certificate none of a server's, which crypto/x509 looks at only in authorities: it is an
// authority's own, or its key may not sign a handshake. hasPath says that a trusted root stands behind it.
//
// A self-signed one without such a root says so by that fault already. That it calls itself an authority adds nothing to it: nobody
// vouches for what it says, and it is what `openssl req -x509` makes, that is most appliances. Their exceptions name
// self-signed, and go on holding.
func leafUsage(leaf *x509.Certificate, hasPath bool) (faults []*Fault) {
	if leaf.BasicConstraintsValid && leaf.IsCA && (hasPath || !selfIssued(leaf)) {
		return []*Fault{{
			Kind: FaultUsage, Detail: fmt.Sprintf("the certificate of %s is an authority's own (basicConstraints), and no server's", subject(leaf)),
		}}
	}
	if hasExtension(leaf, oidKeyUsage) && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		// All suites that are used have the server sign (RFC 8446, 4.4.2.2; RFC 8422, 2.1 and 2.3).
		return []*Fault{{
			Kind: FaultUsage, Detail: fmt.Sprintf("the key of the certificate of %s is not for signatures (keyUsage without digitalSignature)", subject(leaf)),
		}}
	}
	return nil
}

func hasExtension(c *x509.Certificate, id asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
}
