package mail

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"lazaret/test/harness"
)

// secured has the rest of a session go by TLS.
func (k *talk) secured(g *harness.Gateway) *talk {
	k.t.Helper()
	pem, err := os.ReadFile(g.CAFile())
	if err != nil {
		k.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := tls.Client(k.c, &tls.Config{ServerName: "localhost", RootCAs: roots})
	if err := c.HandshakeContext(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	return &talk{k.t, c, bufio.NewReader(c)}
}

// multiline reads a reply of several lines.
func (k *talk) multiline(command string) (out string) {
	k.t.Helper()
	if got := k.says("%s", command); !strings.HasPrefix(got, "+OK") {
		k.t.Fatalf("%s: %s", command, got)
	}
	for l := k.line(); l != "."; l = k.line() {
		out += l + "\n"
	}
	return out
}

// TestAuth: SASL exchanges of one and of several steps with a real server, by STLS and by POP3S, after what goes wrong in them.
func TestAuth(t *testing.T) {
	d := startDovecot(t, "127.0.0.1", "", "", mailbox())
	secure := harness.FreePort(t)
	scanner := fmt.Sprintf("type = \"clamd\"\naddress = %q\n", "unix:"+harness.StartClamd(t).Socket)
	gateway := func(pop3 string) *harness.Gateway {
		return harness.Start(t, harness.Settings{"pop3": pop3, "[scanner]": scanner}, d.root)
	}
	g := gateway(fmt.Sprintf("upstream = \"tls://localhost:%s\"\nlisten_tls = [%q]\n", d.tls, secure))
	onPlain := gateway("upstream = \"localhost:" + d.plain + "\"\n")
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	plain, wrong := b64("\x00"+user+"\x00"+password), b64("\x00"+user+"\x00babbage")
	for name, v := range map[string]struct {
		g     *harness.Gateway
		begin func(t *testing.T) *talk
	}{
		"STLS": {onPlain, func(t *testing.T) *talk {
			k := talkTo(t, onPlain.POP3)
			if got := k.says("STLS"); !strings.HasPrefix(got, "+OK") {
				t.Fatalf("STLS: %s", got)
			}
			return k.secured(onPlain)
		}},
		"POP3S": {g, func(t *testing.T) *talk {
			c, err := net.Dial("tcp", secure)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			k := (&talk{t, c, nil}).secured(g)
			k.line()
			return k
		}},
	} {
		for how, steps := range map[string][]string{
			"PLAIN at once":      {"AUTH PLAIN " + plain + " +OK"},
			"PLAIN in two steps": {"AUTH PLAIN +", plain + " +OK"},
			"LOGIN":              {"AUTH LOGIN +", b64(user) + " +", b64(password) + " +OK"},
			"after a wrong one":  {"AUTH PLAIN " + wrong + " -ERR", "AUTH LOGIN +", b64(user) + " +", b64(password) + " +OK"},
			"after a cancel":     {"AUTH LOGIN +", "* -ERR", "AUTH PLAIN +", plain + " +OK"},
			"after no mechanism": {"AUTH NONESUCH -ERR", "AUTH PLAIN " + plain + " +OK"},
			"SASL in lower case": {"auth plain +", plain + " +OK"},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				k := v.begin(t)
				if capa := k.multiline("CAPA"); !strings.Contains(capa, "SASL PLAIN LOGIN") {
					t.Errorf("capabilities:\n%s", capa)
				}
				for _, s := range steps {
					i := strings.LastIndexByte(s, ' ')
					if got := k.says("%s", s[:i]); !strings.HasPrefix(got, s[i+1:]) {
						t.Fatalf("%s: %s", s[:i], got)
					}
				}
				if got := k.says("STAT"); !strings.HasPrefix(got, "+OK 3 ") {
					t.Errorf("STAT: %s", got)
				}
				if mail := k.multiline("RETR 2"); strings.Contains(mail, secret[:40]) || !strings.Contains(mail, "Eicar") {
					t.Errorf("no notice:\n%s", mail)
				}
				k.says("RSET")
				if got := k.says("QUIT"); !strings.HasPrefix(got, "+OK") {
					t.Errorf("QUIT: %s", got)
				}
			})
		}
		for _, bad := range []string{password, b64(password), plain, wrong} {
			if v.g.Log.Logs(bad) {
				t.Errorf("%s: %q is in the log", name, bad)
			}
		}
		if !v.g.Log.Logs(`"user":"` + user + `"`) {
			t.Errorf("%s: the log does not say whose mail it was", name)
		}
	}
}
