package intercept

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/youmark/pkcs8"
)

// Errors of a key that is encrypted.
var (
	ErrNoPassphrase    = errors.New("the key is encrypted, and no passphrase was given: give it as the systemd credential ca-passphrase, or in the environment variable LAZARET_CA_PASSPHRASE")
	ErrWrongPassphrase = errors.New("the passphrase that was given is not that of the key")
)

// minPassphrase is the fewest bytes that a new passphrase may have, and maxPassphrase the most.
const (
	minPassphrase = 8
	maxPassphrase = 1024
)

// encryptedBlock is the PEM label of an EncryptedPrivateKeyInfo (RFC 7468, 11).
const encryptedBlock = "ENCRYPTED PRIVATE KEY"

// keyEncryption is PBES2 (RFC 8018) with AES-256-CBC and scrypt (RFC 7914). It takes 16 MiB; OpenSSL refuses what takes 32.
var keyEncryption = &pkcs8.Opts{
	Cipher:  pkcs8.AES256CBC,
	KDFOpts: pkcs8.ScryptOpts{SaltSize: 16, CostParameter: 1 << 14, BlockSize: 8, ParallelizationParameter: 4},
}

// newCA returns a new certificate and its key in PEM, the key encrypted where there is a passphrase. The name ends in a
// random part, so that two gateways, or a gateway and its successor, are told apart in a trust store.
func newCA(now time.Time, permit Permit, passphrase []byte) (certPEM, keyPEM []byte, err error) {
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
	if err := permit.constrain(tpl); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the certificate of the CA: %w", err)
	}
	keyPEM, err = encodeKey(key, passphrase)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM, err
}

// encodeKey returns the key in PEM: PKCS#8, encrypted where there is a passphrase.
func encodeKey(key crypto.Signer, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encoding the key of the CA: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	}
	if err := CheckPassphrase(passphrase); err != nil {
		return nil, err
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, keyEncryption)
	if err != nil {
		return nil, fmt.Errorf("encrypting the key of the CA: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: encryptedBlock, Bytes: der}), nil
}

// CheckPassphrase says why a passphrase is not fit to protect a key.
func CheckPassphrase(p []byte) error {
	switch {
	case len(p) < minPassphrase:
		return fmt.Errorf("the passphrase must have at least %d characters: it protects the CA's key", minPassphrase)
	case len(p) > maxPassphrase:
		return fmt.Errorf("the passphrase must have at most %d bytes", maxPassphrase)
	case bytes.ContainsAny(p, "\n\r\x00"):
		return errors.New("the passphrase must be one line of text")
	}
	return nil
}

// parseKey reads a private key in PEM: PKCS#8, encrypted or not, SEC 1 or PKCS#1. encrypted says what it was.
func parseKey(b, passphrase []byte) (key crypto.Signer, encrypted bool, err error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		var key any
		encrypted := false
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case encryptedBlock:
			encrypted = true
			if len(passphrase) == 0 {
				return nil, true, ErrNoPassphrase
			}
			if key, err = decrypt(block.Bytes, passphrase); errors.Is(err, ErrWrongPassphrase) {
				return nil, true, err
			}
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, encrypted, errors.New("the private key cannot be read (its contents are not repeated here)")
		}
		if s, ok := key.(crypto.Signer); ok {
			return s, encrypted, nil
		}
		return nil, encrypted, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return nil, false, errors.New("no PEM private key in it")
}

// decrypt opens an EncryptedPrivateKeyInfo (RFC 5958, 3). Where it decrypts to nonsense the passphrase is wrong.
func decrypt(der, passphrase []byte) (key any, err error) {
	defer func() {
		if p := recover(); p != nil { // the library trusts the lengths in the file
			key, err = nil, fmt.Errorf("a malformed encrypted key: %v", p)
		}
	}()
	if err := affordable(der); err != nil {
		return nil, err
	}
	if key, err = pkcs8.ParsePKCS8PrivateKey(der, passphrase); err != nil && wrongPassphrase(err) {
		return nil, ErrWrongPassphrase
	}
	return key, err
}

// affordable says whether deriving the key takes no more than a start may take: a broken file must not take all memory.
func affordable(der []byte) error {
	const maxIterations, maxMemory = 10_000_000, 256 << 20
	var info struct {
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params struct{ KDF, Cipher pkix.AlgorithmIdentifier }
		}
		Data []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return errors.New("not PBES2")
	}
	kdf := info.Algorithm.Params.KDF.Parameters.FullBytes
	var scrypt struct {
		Salt          []byte
		N, R, P       int
		KeyLengthAlso int `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(kdf, &scrypt); err == nil {
		if scrypt.N <= 0 || scrypt.R <= 0 || scrypt.P <= 0 || scrypt.R > 1<<10 || scrypt.P > 1<<10 || scrypt.N > maxMemory/128/scrypt.R {
			return errors.New("scrypt with these parameters takes too much memory or time")
		}
		return nil
	}
	var pbkdf2 struct {
		Salt       []byte
		Iterations int
		Length     int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(kdf, &pbkdf2); err != nil || pbkdf2.Iterations <= 0 || pbkdf2.Iterations > maxIterations {
		return errors.New("not a key derivation that is known, or one that takes too long")
	}
	return nil
}

// wrongPassphrase tells the library's error about what was decrypted from those about the file's form, which it has no types for.
func wrongPassphrase(err error) bool { return err.Error() == "pkcs8: incorrect password" }
