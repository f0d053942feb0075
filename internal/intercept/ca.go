package intercept

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// The names of the CA's files in its directory.
const (
	caCertFile = "ca.pem"
	caKeyFile  = "ca.key"
	caOldGlob  = "ca-old-*.pem"
)

// caLifetime is ten years; caBackdate forgives clients whose clocks are behind.
const (
	caLifetime = 3652 * 24 * time.Hour
	caBackdate = 24 * time.Hour
)

// CA is the certificate authority whose leaves the clients are given. It is immutable.
type CA struct {
	cert      *x509.Certificate
	issuers   []*x509.Certificate // what is behind it in its file
	key       crypto.Signer       // nil: of CAStore.Read
	encrypted bool                // the key's file is
	chain     [][]byte            // what is sent behind a leaf: nothing for a self-signed CA, else the CA and its issuers
	old       []*x509.Certificate // former ones, whose keys are gone
	rotation  *Rotation           // nil: none is under way
}

// randomSerial returns a positive serial number of 127 random bits (RFC 5280, 4.1.2.2; CA/B Forum asks for 64).
func randomSerial() (*big.Int, error) {
	for {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
		if err != nil {
			return nil, fmt.Errorf("making a serial number: %w", err)
		}
		if n.Sign() > 0 {
			return n, nil
		}
	}
}

// parseCA puts a CA together from its files' contents. More certificates behind the first one are its issuers.
func parseCA(certPEM, keyPEM, passphrase []byte) (*CA, error) {
	certs, err := parsePEMCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caCertFile, err)
	}
	key, encrypted, err := parseKey(keyPEM, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caKeyFile, err)
	}
	ca := &CA{cert: certs[0], issuers: certs[1:], key: key, encrypted: encrypted}
	if !ca.cert.IsCA || !ca.cert.BasicConstraintsValid {
		return nil, fmt.Errorf("%s: the certificate %q is not a CA's (basicConstraints)", caCertFile, ca.cert.Subject)
	}
	if ca.cert.KeyUsage != 0 && ca.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("%s: the certificate %q may not sign certificates (keyUsage)", caCertFile, ca.cert.Subject)
	}
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(ca.cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", caKeyFile, caCertFile)
	}
	if !bytes.Equal(ca.cert.RawIssuer, ca.cert.RawSubject) {
		for _, c := range certs {
			ca.chain = append(ca.chain, c.Raw)
		}
	}
	return ca, nil
}

// parsePEMCerts returns the certificates of a PEM file, at least one.
func parsePEMCerts(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

// readOld returns the former CAs in dir.
func readOld(dir string) ([]*x509.Certificate, error) {
	paths, err := filepath.Glob(filepath.Join(dir, caOldGlob))
	if err != nil {
		return nil, err
	}
	var old []*x509.Certificate
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("a former CA: %w", err)
		}
		certs, err := parsePEMCerts(b)
		if err != nil {
			return nil, fmt.Errorf("a former CA, %s: %w", p, err)
		}
		old = append(old, certs[0])
	}
	return old, nil
}

// Certificate returns the CA's certificate.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Trusted returns the certificates that clients are to trust: the CA's, and the next one's while a rotation lasts. Former ones
// sign nothing any more.
func (ca *CA) Trusted() []*x509.Certificate {
	out := []*x509.Certificate{ca.cert}
	if ca.rotation != nil {
		out = append(out, ca.rotation.Next)
	}
	return out
}

// known returns every certificate that is the gateway's own, in use, to come or gone. None of them is an origin's to use.
func (ca *CA) known() []*x509.Certificate { return append(ca.Trusted(), ca.old...) }

// Encrypted says whether the key's file is encrypted.
func (ca *CA) Encrypted() bool { return ca.encrypted }

// PEM returns the CA's certificate in PEM.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// DER returns the CA's certificate in DER.
func (ca *CA) DER() []byte { return bytes.Clone(ca.cert.Raw) }

// TrustStore returns the certificates that clients are to trust as a PKCS#12 file, protected by password. It holds no key.
func (ca *CA) TrustStore(password string) ([]byte, error) {
	return pkcs12.Modern2023.EncodeTrustStore(ca.Trusted(), password)
}

// PKCS12 returns the certificate and its private key as a PKCS#12 file, to be moved to another gateway. Whoever has it and
// the password can read all traffic of the clients that trust the CA; the password must have at least eight characters.
func (ca *CA) PKCS12(password string) ([]byte, error) {
	if len(password) < 8 {
		return nil, errors.New("the password must have at least eight characters: it protects the CA's key")
	}
	return pkcs12.Modern2023.Encode(ca.key, ca.cert, nil, password)
}

// Fingerprint returns the SHA-256 of a certificate as people compare it: "AB:CD:…".
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// isOurs says whether a certificate is the CA's, the next or a former one's, by its key: a cross-signed copy is ours too.
func (ca *CA) isOurs(c *x509.Certificate) bool {
	for _, own := range ca.known() {
		if bytes.Equal(own.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
			return true
		}
	}
	return false
}

// signed says whether the CA, the next or a former one signed c.
func (ca *CA) signed(c *x509.Certificate) bool {
	for _, own := range ca.known() {
		if bytes.Equal(own.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(own) == nil {
			return true
		}
	}
	return false
}
