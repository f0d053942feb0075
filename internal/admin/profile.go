package admin

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strings"
	"text/template"
)

// profileTemplate is a configuration profile for iOS, iPadOS and macOS with one payload, a root certificate (Apple's
// "Certificate Root" payload, com.apple.security.root). It is not signed: the device says so and asks.
var profileTemplate = template.Must(template.New("profile").Parse(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadContent</key>
	<array>
		<dict>
			<key>PayloadCertificateFileName</key>
			<string>lazaret-ca.cer</string>
			<key>PayloadContent</key>
			<data>{{.Data}}</data>
			<key>PayloadDescription</key>
			<string>Lets this device trust the certificates of the virus-scanning gateway.</string>
			<key>PayloadDisplayName</key>
			<string>{{.Name}}</string>
			<key>PayloadIdentifier</key>
			<string>internal.lazaret.ca.{{.ID}}.root</string>
			<key>PayloadType</key>
			<string>com.apple.security.root</string>
			<key>PayloadUUID</key>
			<string>{{.CertificateUUID}}</string>
			<key>PayloadVersion</key>
			<integer>1</integer>
		</dict>
	</array>
	<key>PayloadDescription</key>
	<string>Installs the root certificate {{.Name}}. SHA-256 fingerprint: {{.Fingerprint}}</string>
	<key>PayloadDisplayName</key>
	<string>{{.Name}}</string>
	<key>PayloadIdentifier</key>
	<string>internal.lazaret.ca.{{.ID}}</string>
	<key>PayloadRemovalDisallowed</key>
	<false/>
	<key>PayloadType</key>
	<string>Configuration</string>
	<key>PayloadUUID</key>
	<string>{{.ProfileUUID}}</string>
	<key>PayloadVersion</key>
	<integer>1</integer>
</dict>
</plist>
`))

// profile returns the configuration profile that installs c. The same certificate always gives the same profile, so that
// installing it again replaces it.
func profile(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.Raw)
	var b bytes.Buffer
	err := profileTemplate.Execute(&b, map[string]string{
		"Data": base64.StdEncoding.EncodeToString(c.Raw), "Name": escapeXML(certName(c)), "ID": hex.EncodeToString(sum[:8]),
		"Fingerprint": fingerprint(c), "CertificateUUID": uuid(sum, "certificate"), "ProfileUUID": uuid(sum, "profile"),
	})
	if err != nil {
		panic(err) // a template of fixed fields, written to memory
	}
	return b.Bytes()
}

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails; what XML does not allow becomes U+FFFD
	return b.String()
}

// certName returns what a certificate is called.
func certName(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return c.Subject.String()
}

// fingerprint returns the SHA-256 of the certificate as people compare it, "AB:CD:…".
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return colons(sum[:])
}

// uuid derives a UUID (RFC 9562, version 8) from a fingerprint and a purpose.
func uuid(sum [sha256.Size]byte, purpose string) string {
	h := sha256.Sum256(append([]byte("lazaret "+purpose+" "), sum[:]...))
	u := h[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]))
}
