package intercept

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
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
	cert  *x509.Certificate
	key   crypto.Signer
	chain [][]byte            // what is sent behind a leaf: nothing for a self-signed CA, else the CA and its issuers
	old   []*x509.Certificate // former ones, still to be trusted by clients and never by us
}

// InitCA makes a new CA (ECDSA P-256, ten years, path length 0) in dir, which is made for the owner alone where it is
// missing. It never overwrites: the error is an fs.ErrExist where any of the two files is there.
func InitCA(dir string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the CA: %w", err)
	}
	for _, name := range []string{caKeyFile, caCertFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("%s: %w; a CA is never overwritten: use `ca rotate`, or move both files away",
				filepath.Join(dir, name), os.ErrExist)
		}
	}
	certPEM, keyPEM, err := newCA(time.Now())
	if err != nil {
		return nil, err
	}
	if err := writeNew(filepath.Join(dir, caKeyFile), keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("key of the CA: %w", err)
	}
	if err := writeNew(filepath.Join(dir, caCertFile), certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("certificate of the CA: %w", err)
	}
	return LoadCA(dir)
}

// LoadOrInitCA returns the CA in dir, and makes it where there is none; created says so.
func LoadOrInitCA(dir string) (ca *CA, created bool, err error) {
	if ca, err = LoadCA(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return ca, false, err
	}
	if ca, err = InitCA(dir); errors.Is(err, os.ErrExist) {
		// Another process made it just now, or one of the two files is missing: loading says which.
		ca, err = LoadCA(dir)
		return ca, false, err
	}
	return ca, err == nil, err
}

// newCA returns a new certificate and its key in PEM. The name ends in a random part, so that two gateways, or a gateway
// and its successor, are told apart in a trust store.
func newCA(now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the key of the CA: %w", err)
	}
	var suffix [4]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return nil, nil, fmt.Errorf("making the name of the CA: %w", err)
	}
	serial, err := randomSerial()
	if err != nil {
		return nil, nil, err
	}
	name := pkix.Name{
		CommonName:   "Lazaret CA " + hex.EncodeToString(suffix[:]),
		Organization: []string{"Lazaret virus-scanning gateway"}, //nolint:misspell // the field's name
	}
	tpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               name,
		NotBefore:             now.Add(-caBackdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the certificate of the CA: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the key of the CA: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
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

// LoadCA returns the CA in dir. The error is an fs.ErrNotExist where there is none, and says what to do where its files
// cannot be used: a key that others can read, a certificate that is no CA's or has expired, a key that is another's.
func LoadCA(dir string) (*CA, error) {
	certPath, keyPath := filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile)
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := readKeyFile(keyPath)
	if errors.Is(certErr, os.ErrNotExist) && errors.Is(keyErr, os.ErrNotExist) {
		return nil, fmt.Errorf("no CA in %s: %w", dir, os.ErrNotExist)
	}
	if errors.Is(certErr, os.ErrNotExist) || errors.Is(keyErr, os.ErrNotExist) {
		// Not an fs.ErrNotExist: half a CA must not be taken for none, and be made anew.
		return nil, fmt.Errorf("%s and %s belong together, but one of them is missing: put it back, or move the other away", certPath, keyPath)
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	ca, err := parseCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("the CA in %s: %w", dir, err)
	}
	if now := time.Now(); now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("%s expired on %s: `ca rotate` makes a new one", certPath, ca.cert.NotAfter.Format(time.DateOnly))
	}
	if ca.old, err = readOld(dir); err != nil {
		return nil, err
	}
	return ca, nil
}

// ReadCA returns the CA in dir without its key, for whoever only has to know its certificates: it recognises them, and
// signs nothing. The error is an fs.ErrNotExist where there is none.
func ReadCA(dir string) (*CA, error) {
	b, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no CA in %s: %w", dir, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	certs, err := parsePEMCerts(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, caCertFile), err)
	}
	ca := &CA{cert: certs[0]}
	if ca.old, err = readOld(dir); err != nil {
		return nil, err
	}
	return ca, nil
}

// parseCA puts a CA together from its files' contents. More certificates behind the first one are its issuers.
func parseCA(certPEM, keyPEM []byte) (*CA, error) {
	certs, err := parsePEMCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caCertFile, err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caKeyFile, err)
	}
	ca := &CA{cert: certs[0], key: key}
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

// parseKey reads a private key in PEM: PKCS#8, SEC 1 or PKCS#1.
func parseKey(b []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		var (
			key any
			err error
		)
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, errors.New("the private key cannot be read (its contents are not repeated here)")
		}
		if s, ok := key.(crypto.Signer); ok {
			return s, nil
		}
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return nil, errors.New("no PEM private key in it")
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

// RotateCA makes a new CA in dir. The former certificate is kept as ca-old-N.pem, to be trusted by clients until they have
// the new one; its key is destroyed by being replaced. It returns the new CA; leaves are signed by it from the moment that
// the gateway loads it.
func RotateCA(dir string) (*CA, error) {
	if _, err := LoadCA(dir); err != nil && !strings.Contains(err.Error(), "expired") {
		return nil, err
	}
	certPEM, keyPEM, err := newCA(time.Now())
	if err != nil {
		return nil, err
	}
	certPath, keyPath := filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile)
	kept := false
	for n := 1; !kept; n++ {
		err := os.Link(certPath, filepath.Join(dir, fmt.Sprintf("ca-old-%d.pem", n)))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("keeping the former certificate: %w", err)
		}
		kept = err == nil
	}
	if err := errors.Join(replace(keyPath, keyPEM, 0o600), replace(certPath, certPEM, 0o644)); err != nil {
		return nil, fmt.Errorf("writing the new CA: %w", err)
	}
	return LoadCA(dir)
}

// Certificate returns the CA's certificate.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Trusted returns the certificates that clients are to trust: the CA's, and the former ones that have not expired.
func (ca *CA) Trusted() []*x509.Certificate {
	out := []*x509.Certificate{ca.cert}
	for _, c := range ca.old {
		if time.Now().Before(c.NotAfter) {
			out = append(out, c)
		}
	}
	return out
}

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

// isOurs says whether a certificate is the CA's or a former CA's, by its key: a cross-signed copy is ours too.
func (ca *CA) isOurs(c *x509.Certificate) bool {
	for _, own := range append([]*x509.Certificate{ca.cert}, ca.old...) {
		if bytes.Equal(own.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
			return true
		}
	}
	return false
}

// signed says whether the CA or a former one signed c.
func (ca *CA) signed(c *x509.Certificate) bool {
	for _, own := range append([]*x509.Certificate{ca.cert}, ca.old...) {
		if bytes.Equal(own.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(own) == nil {
			return true
		}
	}
	return false
}
