package intercept

import (
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// faultCase is a row of the table: an origin for https://site.example/ and what is to become of it.
type faultCase struct {
	what   string
	host   string // "" is site.example
	cert   tls.Certificate
	server func(*tls.Config)
	want   FaultKind // "" is none
	detail string    // a part of what is shown
}

func names(n ...string) []string { return n }

// faultCases makes the table. root is trusted.
func faultCases(t *testing.T, root, rsaRoot *authority, i *Interceptor) []faultCase {
	inter := root.child(t, "Intermediate")
	stranger := newRoot(t)
	site := names("site.example")
	certOf := func(names []string, edit ...func(*x509.Certificate)) tls.Certificate {
		return root.leaf(names, nil, edit...)
	}
	below := func(a *authority, edit ...func(*x509.Certificate)) tls.Certificate {
		return a.leaf(site, []*authority{a}, edit...)
	}
	var cases []faultCase
	add := func(what string, want FaultKind, detail string, cert tls.Certificate) *faultCase {
		cases = append(cases, faultCase{what: what, cert: cert, want: want, detail: detail})
		return &cases[len(cases)-1]
	}

	// What is good.
	add("good", "", "", certOf(site))
	add("good, below an intermediate", "", "", below(inter))
	second := inter.child(t, "Second Intermediate")
	reversed := second.leaf(site, []*authority{root, inter, second})
	add("chain in the wrong order", "", "", reversed)
	add("wildcard", "", "", certOf(names("*.example.org"))).host = "www.example.org"
	add("IP address", "", "", certOf(names("192.0.2.7"))).host = "192.0.2.7"
	add("IPv6 address", "", "", certOf(names("2001:db8::7"))).host = "2001:db8::7"
	add("IDN as A-label", "", "", certOf(names("xn--bcher-kva.example"))).host = "xn--bcher-kva.example"
	add("RSA 2048", "", "", root.leafFor(newRSAKey(t, 2048), site, nil))
	add("valid below a constrained authority", "", "", below(root.child(t, "Constrained", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example"}, true
	})))

	// Who signed it.
	add("untrusted authority", FaultUntrusted, "no trusted authority", stranger.leaf(site, []*authority{stranger}))
	self := (*authority)(nil).child(t, "self")
	add("self-signed", FaultSelfSigned, "self-signed", self.selfLeaf(site))
	add("intermediate not sent", FaultUntrusted, "no trusted authority", inter.leaf(site, nil))
	broken := certOf(site)
	broken.Certificate[0][len(broken.Certificate[0])-4] ^= 1
	add("bad signature", FaultUntrusted, "", broken)
	forged := newRoot(t) // of the same name as the trusted one
	add("forged issuer name", FaultUntrusted, "", forged.leaf(site, nil))
	forgedInter := stranger.child(t, "Intermediate", func(c *x509.Certificate) { c.SubjectKeyId = inter.cert.SubjectKeyId })
	add("forged, below a real intermediate", FaultUntrusted, "not validly signed", forgedInter.leaf(site, []*authority{inter}))
	own := &authority{t: t, cert: i.ca.cert, key: i.ca.key}
	add("signed by the gateway's own CA", FaultOwnCA, "own CA", own.leaf(site, nil))
	add("signed by the gateway's own CA, sent along", FaultOwnCA, "own CA", own.leaf(site, []*authority{own}))
	ours, err := i.leaves.mint("site.example", nil, ecdsaLeaf)
	if err != nil {
		t.Fatal(err)
	}
	add("a leaf of this gateway", FaultOwnCA, "circle", *ours)

	// Names.
	add("wrong name", FaultName, "for other.example", certOf(names("other.example")))
	add("common name only", FaultName, "common name", certOf(nil, func(c *x509.Certificate) { c.Subject.CommonName = "site.example" }))
	add("no name at all", FaultName, "no name", certOf(nil, func(c *x509.Certificate) { c.Subject = pkix.Name{Country: []string{"XX"}} }))
	add("IP address in a DNS name", FaultName, "the DNS name 192.0.2.7", madeLeaf(t, rsaRoot, func(h *handmade) { h.extensions = []pkix.Extension{sanOf(t, "192.0.2.7")} })).host = "192.0.2.7"
	add("IP address without an IP entry", FaultName, "not for 192.0.2.7", certOf(site)).host = "192.0.2.7"
	add("NUL in the name", FaultName, "site.example?", madeLeaf(t, rsaRoot, func(h *handmade) { h.extensions = []pkix.Extension{sanOf(t, "site.example\x00.evil.example")} }))
	add("partial wildcard", FaultName, "", madeLeaf(t, rsaRoot, func(h *handmade) { h.extensions = []pkix.Extension{sanOf(t, "s*.example")} }))
	add("wildcard over two labels", FaultName, "", certOf(names("*.example.org"))).host = "a.b.example.org"
	add("wildcard for the domain itself", FaultName, "", certOf(names("*.example.org"))).host = "example.org"
	add("wildcard over a public suffix", FaultName, "public suffix", certOf(names("*.co.uk"))).host = "bank.co.uk"
	add("wildcard over a top-level domain", FaultName, "public suffix", certOf(names("*.example", "*.com"))).host = "bank.com"
	add("wildcard over a top-level name of one's own", FaultName, "*.intranet", certOf(names("*.intranet"))).host = "files.intranet"
	add("wildcard over a suffix of the public list's private section", "", "", certOf(names("*.github.io"))).host = "someone.github.io"
	add("name below a wildcard's top-level name, in full", "", "", certOf(names("*.intranet", "files.intranet"))).host = "files.intranet"
	add("bare wildcard", FaultName, "", madeLeaf(t, rsaRoot, func(h *handmade) { h.extensions = []pkix.Extension{sanOf(t, "*")} })).host = "localhost"

	// What it is for.
	usageOf := func(k x509.KeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.KeyUsage = k }
	}
	authorityOf := func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true }
	add("without keyUsage", "", "", certOf(site, usageOf(0)))
	add("basicConstraints that deny an authority", "", "", certOf(site, func(c *x509.Certificate) { c.BasicConstraintsValid = true }))
	add("keyUsage for key agreement only", FaultUsage, "digitalSignature", certOf(site, usageOf(x509.KeyUsageKeyAgreement)))
	add("keyUsage for key encipherment only", FaultUsage, "digitalSignature", root.leafFor(newRSAKey(t, 2048), site, nil, usageOf(x509.KeyUsageKeyEncipherment)))
	add("keyUsage without any usage", FaultUsage, "digitalSignature", certOf(site, func(c *x509.Certificate) {
		c.KeyUsage, c.ExtraExtensions = 0, []pkix.Extension{{Id: oidKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0}}}
	}))
	add("an authority's own", FaultUsage, "authority's own", certOf(site, authorityOf))
	add("an authority's own, below an intermediate", FaultUsage, "authority's own", inter.leaf(site, []*authority{inter}, authorityOf))
	appliance := newRoot(t, func(c *x509.Certificate) { c.DNSNames = site })
	i.verifier.roots.AddCert(appliance.cert)
	add("an appliance's own, among the roots", FaultUsage, "authority's own", tls.Certificate{Certificate: [][]byte{appliance.cert.Raw}, PrivateKey: appliance.key})

	// Dates.
	long := 48 * time.Hour
	add("expired", FaultExpired, "expired on", certOf(site, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*long), time.Now().Add(-long) }))
	add("not yet valid", FaultNotYetValid, "not valid before", certOf(site, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(long) }))
	add("expired intermediate", FaultExpired, "expired on", below(root.child(t, "Old", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*long), time.Now().Add(-long) })))
	add("intermediate not yet valid", FaultNotYetValid, "not valid before", below(root.child(t, "Early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(long) })))

	// Authorities.
	add("intermediate that is no CA", FaultUntrusted, "", below(root.child(t, "No CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })))
	add("intermediate without basicConstraints", FaultUntrusted, "", below(root.child(t, "Bare", func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false })))
	add("intermediate without keyCertSign", FaultUntrusted, "", below(root.child(t, "Mute", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })))
	short := root.child(t, "Short", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	deep := short.child(t, "Deep")
	add("path too long", FaultUntrusted, "path length", deep.leaf(site, []*authority{deep, short}))
	add("outside the name constraints", FaultUntrusted, "name constraints", below(root.child(t, "Elsewhere", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
	})))
	add("excluded by the name constraints", FaultUntrusted, "name constraints", below(root.child(t, "Excluding", func(c *x509.Certificate) {
		c.ExcludedDNSDomains, c.PermittedDNSDomainsCritical = []string{"site.example"}, true
	})))
	v1Key := newRSAKey(t, 2048)
	v1 := handmade{version: 0, issuer: rsaRoot.cert.RawSubject, subject: pkix.Name{CommonName: "Version 1"}, public: v1Key.Public(), hash: crypto.SHA256}.sign(t, rsaRoot.key.(*rsa.PrivateKey))
	v1Cert, err := x509.ParseCertificate(v1)
	if err != nil || v1Cert.Version != 1 {
		t.Fatalf("the certificate of version 1 was not made: %v", err)
	}
	add("intermediate of version 1", FaultUntrusted, "", below(&authority{t: t, cert: v1Cert, key: v1Key}))

	// Extensions.
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}
	add("unknown critical extension", FaultMalformed, "critical extension", certOf(site, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{unknown} }))
	add("unknown critical extension above", FaultMalformed, "critical extension", below(root.child(t, "Odd", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{unknown} })))
	plain := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}
	add("duplicate extension", FaultMalformed, "duplicate", madeLeaf(t, rsaRoot, func(h *handmade) { h.extensions = append(h.extensions, plain, plain) }))
	add("two subjectAltName extensions", FaultMalformed, "duplicate", madeLeaf(t, rsaRoot, func(h *handmade) { h.extensions = append(h.extensions, sanOf(t, "other.example")) }))
	add("not for servers", FaultMalformed, "extended key usage", certOf(site, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }))
	add("authority not for servers", FaultMalformed, "extended key usage", below(root.child(t, "Mail", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} })))
	feature := pkix.Extension{Id: oidTLSFeature, Value: []byte{0x30, 3, 2, 1, statusRequest}}
	add("must-staple without a staple", FaultRevoked, "must-staple", certOf(site, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{feature} }))

	// Keys and hashes.
	add("RSA 1024", FaultWeak, "1024 bits", root.leafFor(newRSAKey(t, 1024), site, nil))
	add("intermediate with RSA 1024", FaultWeak, "1024 bits", below(root.childFor(newRSAKey(t, 1024), t, "Small")))
	add("SHA-1", FaultWeak, "SHA1", madeLeaf(t, rsaRoot, func(h *handmade) { h.hash = crypto.SHA1 }))
	add("MD5", FaultWeak, "MD5", madeLeaf(t, rsaRoot, func(h *handmade) { h.hash = crypto.MD5 }))
	sha1Key := newRSAKey(t, 2048)
	sha1Inter := handmade{version: 2, issuer: rsaRoot.cert.RawSubject, subject: pkix.Name{CommonName: "SHA-1 Intermediate"}, public: sha1Key.Public(), hash: crypto.SHA1, extensions: []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}},
	}}.sign(t, rsaRoot.key.(*rsa.PrivateKey))
	sha1Cert, err := x509.ParseCertificate(sha1Inter)
	if err != nil || !sha1Cert.IsCA {
		t.Fatalf("the intermediate with SHA-1 was not made: %v", err)
	}
	add("intermediate signed with SHA-1", FaultWeak, "SHA1", below(&authority{t: t, cert: sha1Cert, key: sha1Key}))

	// Pathological ones: what counts is that an answer comes.
	many := make([]string, 10_000)
	for n := range many {
		many[n] = fmt.Sprintf("n%d.example", n)
	}
	add("10,000 names, none right", FaultName, "and 9996 more", certOf(many))
	add("10,000 names, the last one right", "", "", certOf(append(many[:9_999:9_999], "site.example")))
	add("10,000 names under constraints", FaultUntrusted, "name constraints", func() tls.Certificate {
		narrow := root.child(t, "Narrow", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical = true
			for n := range 500 {
				c.PermittedDNSDomains = append(c.PermittedDNSDomains, fmt.Sprintf("p%d.example", n))
			}
		})
		return narrow.leaf(many[:5_000], []*authority{narrow})
	}())
	add("many intermediates of one name", FaultUntrusted, "", func() tls.Certificate {
		// Each could have signed each other by its name, and none has: the paths to try grow without bound.
		var maze []*authority
		up := stranger
		for range 60 {
			up = up.child(t, "Maze")
			maze = append(maze, up)
		}
		return up.leaf(site, maze)
	}())

	// The protocol.
	old := func(f func(*tls.Config)) *faultCase {
		c := add("", FaultWeak, "", certOf(site))
		c.server = f
		return c
	}
	old(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }).what = "TLS 1.1"
	old(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS10 }).what = "TLS 1.0"
	c := old(func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	})
	c.what, c.want, c.detail = "CBC only", FaultHandshake, "refused the TLS handshake"
	c = add("RSA key exchange only", FaultHandshake, "refused the TLS handshake", root.leafFor(newRSAKey(t, 2048), site, nil))
	c.server = func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	}
	return cases
}

func TestEveryFaultOfAnOriginIsNamedAndNothingIsSentToIt(t *testing.T) {
	root := newRoot(t)
	rsaRoot := (*authority)(nil).childFor(newRSAKey(t, 2048), t, "RSA Root")
	i := gatewayOf(t, root, func(c *Config) { c.ExtraRoots = append(c.ExtraRoots, rootFile(t, rsaRoot)) })
	i.verifier.roots.AddCert(i.ca.cert) // as on a machine that trusts its gateway's CA
	cases := faultCases(t, root, rsaRoot, i)
	if len(cases) < 50 {
		t.Fatalf("only %d cases", len(cases))
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "origin\texpected\tseen")
	for _, tc := range cases {
		t.Run(tc.what, func(t *testing.T) {
			if tc.host == "" {
				tc.host = "site.example"
			}
			got := make(chan string, 10)
			addr := listeningOrigin(t, tc, got)
			d := openDoor(t, i, to(tc.host, addr))
			c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: tc.host})
			if err != nil {
				t.Fatalf("the client could not be answered: %v", err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("a request with a secret")); err != nil {
				t.Fatal(err)
			}
			s := d.session(t)
			kind, detail := FaultKind(""), ""
			if s.Fault != nil {
				kind, detail = s.Fault.Kind, s.Fault.Detail
			}
			fmt.Fprintf(w, "%s\t%s\t%s %s\n", tc.what, or(tc.want, "none"), or(kind, "none"), detail)
			if kind != tc.want || !strings.Contains(detail, tc.detail) {
				t.Errorf("fault %q (%s), want %q (…%s…); cause: %v", kind, detail, tc.want, tc.detail, s.Fault)
			}
			if tc.want == "" {
				if sent := <-got; sent == "" {
					t.Error("a good origin was sent nothing")
				}
				return
			}
			if s.Origin != nil {
				t.Error("there is a connection to a faulty origin")
			}
			if sent := <-got; sent != "" {
				t.Errorf("the faulty origin was sent %q", sent)
			}
			if _, err := s.Redial(t.Context()); err == nil {
				t.Error("a faulty origin can be dialled again")
			}
		})
	}
	_ = w.Flush()
	t.Log("\n" + table.String())
}

func or(k FaultKind, s string) string {
	if k == "" {
		return s
	}
	return string(k)
}

// listeningOrigin serves TLS once as the case says, and tells what it was sent behind the handshake.
func listeningOrigin(t *testing.T, tc faultCase, got chan<- string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{tc.cert}, MinVersion: tls.VersionTLS10}
	if tc.server != nil {
		tc.server(conf)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 100)
		n, _ := tls.Server(c, conf).Read(buf)
		got <- string(buf[:n])
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}
