package intercept

import (
	"crypto"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// handmade is a certificate put together field by field, for what crypto/x509 refuses to make.
type handmade struct {
	version    int // as encoded: 2 is v3
	issuer     []byte
	subject    pkix.Name
	from, to   time.Time
	public     any
	extensions []pkix.Extension
	hash       crypto.Hash // of the signature, by the issuer's RSA key
}

type tbs struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   struct{ From, To time.Time }
	Subject    asn1.RawValue
	Public     asn1.RawValue
	Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

var rsaOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.MD5:    {1, 2, 840, 113549, 1, 1, 4},
	crypto.SHA1:   {1, 2, 840, 113549, 1, 1, 5},
	crypto.SHA256: {1, 2, 840, 113549, 1, 1, 11},
}

// sign returns the certificate in DER, signed by an RSA key.
func (h handmade) sign(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	must := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if h.from.IsZero() {
		h.from, h.to = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	alg := pkix.AlgorithmIdentifier{Algorithm: rsaOIDs[h.hash], Parameters: asn1.NullRawValue}
	body := tbs{Version: h.version, Serial: nextSerial(), Algorithm: alg, Extensions: h.extensions}
	body.Issuer.FullBytes = h.issuer
	body.Subject.FullBytes = must(asn1.Marshal(h.subject.ToRDNSequence()))
	body.Public.FullBytes = must(x509.MarshalPKIXPublicKey(h.public))
	body.Validity.From, body.Validity.To = h.from.UTC(), h.to.UTC()
	signed := must(asn1.Marshal(body))
	var sum []byte
	switch h.hash {
	case crypto.MD5:
		s := md5.Sum(signed)
		sum = s[:]
	case crypto.SHA1:
		s := sha1.Sum(signed)
		sum = s[:]
	default:
		s := sha256.Sum256(signed)
		sum = s[:]
	}
	sig := must(rsa.SignPKCS1v15(rand.Reader, key, h.hash, sum))
	return must(asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, alg, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}}))
}

// sanOf returns a subjectAltName extension with DNS names as they are, whatever bytes they have.
func sanOf(t testing.TB, names ...string) pkix.Extension {
	t.Helper()
	var raw []asn1.RawValue
	for _, n := range names {
		raw = append(raw, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(n)})
	}
	der, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}
}

// madeLeaf returns an origin's certificate that is made by hand below an RSA authority.
func madeLeaf(t testing.TB, ca *authority, edit func(*handmade)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	h := handmade{
		version: 2, issuer: ca.cert.RawSubject, subject: pkix.Name{CommonName: "made by hand"}, public: key.Public(),
		hash: crypto.SHA256, extensions: []pkix.Extension{sanOf(t, "site.example")},
	}
	edit(&h)
	return tls.Certificate{Certificate: [][]byte{h.sign(t, ca.key.(*rsa.PrivateKey))}, PrivateKey: key}
}

func newRSAKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
