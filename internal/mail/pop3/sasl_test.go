package pop3

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestSASLUser(t *testing.T) {
	for _, c := range []struct {
		mechanism string
		n         int
		response  string // before base64
		want      string
	}{
		{"PLAIN", 0, "\x00ada\x00secret", "ada"},
		{"plain", 0, "admin\x00ada\x00secret", "ada"},
		{"PLAIN", 0, "ada\x00secret", ""},
		{"PLAIN", 0, "ada", ""},
		{"LOGIN", 0, "ada@example.org", "ada@example.org"},
		{"LOGIN", 1, "secret", ""},
		{"CRAM-MD5", 0, "ada b913a602c7eda7a495b4e6e7334d3890", "ada"},
		{"CRAM-MD5", 0, "b913a602c7eda7a495b4e6e7334d3890", ""},
		{"SCRAM-SHA-256", 0, "n,,n=a=2Cda,r=nonce", "a,da"},
		{"SCRAM-SHA-256", 1, "c=biws,r=nonce,p=proof", ""},
		{"OAUTHBEARER", 0, "n,a=ada@example.org,\x01host=x\x01auth=Bearer token\x01\x01", "ada@example.org"},
		{"XOAUTH2", 0, "user=ada\x01auth=Bearer token\x01\x01", "ada"},
		{"GSSAPI", 0, "ada", ""},
		{"LOGIN", 0, "a\r\nb", ""},
		{"LOGIN", 0, strings.Repeat("a", 300), ""},
	} {
		if got := saslUser(c.mechanism, c.n, base64.StdEncoding.EncodeToString([]byte(c.response))+"\r\n"); got != c.want {
			t.Errorf("%s %d %q: %q, want %q", c.mechanism, c.n, c.response, got, c.want)
		}
	}
	if got := saslUser("LOGIN", 0, "*"); got != "" {
		t.Errorf("a cancelled exchange: %q", got)
	}
}

func FuzzSASLUser(f *testing.F) {
	for _, s := range []string{"AGFkYQBsb3ZlbGFjZQ==", "YWRh", "bixhPWFkYSwB", "", "=", "*"} {
		for _, m := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", ""} {
			f.Add(m, s)
		}
	}
	f.Fuzz(func(t *testing.T, mechanism, response string) {
		if u := saslUser(mechanism, 0, response); len(u) > longestUser || strings.ContainsAny(u, "\r\n\x00") {
			t.Errorf("%q", u)
		}
	})
}
