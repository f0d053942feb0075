package pop3

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// longestUser bounds the login that is kept of an AUTH exchange, in bytes.
const longestUser = 255

// saslUser reads who logs in out of the response number n (from 0) of an AUTH exchange (RFC 5034), for records: never a
// password, nor anything that one could be made out of. It is empty for mechanisms and responses that are not known.
func saslUser(mechanism string, n int, response string) string {
	response = strings.TrimRight(response, "\r\n")
	b, err := base64.StdEncoding.DecodeString(response)
	if err != nil || n > 0 {
		return ""
	}
	text, user := string(b), ""
	switch strings.ToUpper(mechanism) {
	case "PLAIN": // RFC 4616: authzid NUL authcid NUL password
		if f := strings.Split(text, "\x00"); len(f) == 3 {
			user = f[1]
		}
	case "LOGIN": // the first response is the name, the second the password
		user = text
	case "CRAM-MD5": // RFC 2195: name SP digest
		if i := strings.LastIndexByte(text, ' '); i > 0 {
			user = text[:i]
		}
	case "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512": // RFC 5802: n,,n=name,r=nonce
		user = attribute(text, ",", "n=")
		user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user)
	case "OAUTHBEARER": // RFC 7628: n,a=name,^A…
		head, _, _ := strings.Cut(text, "\x01")
		user = attribute(head, ",", "a=")
	case "XOAUTH2": // user=name^A…
		user = attribute(text, "\x01", "user=")
	}
	if len(user) > longestUser || !utf8.ValidString(user) || strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return ""
	}
	return user
}

// attribute returns the value of the field of text that begins with name.
func attribute(text, separator, name string) string {
	for f := range strings.SplitSeq(text, separator) {
		if v, ok := strings.CutPrefix(f, name); ok {
			return v
		}
	}
	return ""
}
