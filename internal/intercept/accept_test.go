package intercept

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// to returns the target of a CONNECT for name, with the address that a resolver would have found.
func to(name string, addr netip.AddrPort) Target {
	return Target{Host: name, Port: addr.Port(), Addr: addr}
}

// fetch gets https://name/ through a door by Go's client.
func fetch(t *testing.T, d *door, roots *x509.CertPool, name string, conf *tls.Config) (string, *tls.ConnectionState, error) {
	t.Helper()
	if conf == nil {
		conf = &tls.Config{}
	}
	conf.RootCAs = roots
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, DialContext: dialTo(d.addr)}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + name + "/")
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), resp.TLS, err
}

func TestInspectedConnectionIsAnsweredUnderALeafOfOurs(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"site.example", "*.site.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org))
	body, cs, err := fetch(t, d, i.ca.pool(), "site.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	if body != "hello from HTTP/2.0 for site.example" {
		t.Errorf("body %q", body)
	}
	s := d.session(t)
	if s.Mode != Inspect || s.Proto != "h2" || s.Fault != nil {
		t.Errorf("session: %v %v %v", s.Mode, s.Proto, s.Fault)
	}
	leaf := cs.PeerCertificates[0]
	if got := strings.Join(leaf.DNSNames, " "); got != "site.example *.site.example" {
		t.Errorf("names %q", got)
	}
	if cs.CurveID != tls.X25519MLKEM768 {
		t.Errorf("key exchange %v, want the post-quantum one", cs.CurveID)
	}
	if _, _, err := fetch(t, d, i.ca.pool(), "site.example", nil); err != nil {
		t.Fatal(err)
	}
	if n := i.Stats().Minted; n != 1 {
		t.Errorf("two visits minted %d leaves, want 1", n)
	}
}

func TestALPNIsMirrored(t *testing.T) {
	root := newRoot(t)
	for _, tc := range []struct{ origin, client, want []string }{
		{[]string{"h2", "http/1.1"}, []string{"h2", "http/1.1"}, []string{"h2"}},
		{[]string{"http/1.1"}, []string{"h2", "http/1.1"}, []string{"http/1.1"}},
		{[]string{"h2", "http/1.1"}, []string{"http/1.1"}, []string{"http/1.1"}},
		{nil, []string{"h2", "http/1.1"}, []string{""}},
		{[]string{"h2", "http/1.1"}, nil, []string{""}},
	} {
		t.Run(fmt.Sprint(tc.origin, tc.client), func(t *testing.T) {
			ln := rawOrigin(t, &tls.Config{Certificates: []tls.Certificate{root.leaf([]string{"site.example"}, nil)}, NextProtos: tc.origin})
			i := gatewayOf(t, root)
			d := openDoor(t, i, to("site.example", ln))
			c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: "site.example", NextProtos: tc.client})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.ConnectionState().NegotiatedProtocol; got != tc.want[0] {
				t.Errorf("client got %q, want %q", got, tc.want[0])
			}
			s := d.session(t)
			if got := s.Origin.ConnectionState().NegotiatedProtocol; got != tc.want[0] {
				t.Errorf("origin got %q, want %q", got, tc.want[0])
			}
		})
	}
}

func TestRealClients(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, i.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	connect := fmt.Sprintf("site.example:%d:%s", d.addr.Port(), d.addr.Addr())
	for _, tc := range []struct {
		name, stdin, want string
		argv              []string
	}{
		{"curl HTTP/2", "", "hello from HTTP/2.0", []string{"curl", "-sS", "--resolve", connect, "--cacert", ca, "--http2"}},
		{"curl HTTP/1.1", "", "hello from HTTP/1.1", []string{"curl", "-sS", "--resolve", connect, "--cacert", ca, "--http1.1"}},
		{"curl TLS 1.2", "", "hello from HTTP/2.0", []string{"curl", "-sS", "--resolve", connect, "--cacert", ca, "--tls-max", "1.2"}},
		{"openssl RSA only", "", "Peer signature type: RSA", []string{
			"openssl", "s_client", "-connect", d.addr.String(), "-servername", "site.example",
			"-CAfile", ca, "-verify_return_error", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256",
		}},
		{"openssl TLS 1.3", "", "Verification: OK", []string{
			"openssl", "s_client", "-connect", d.addr.String(), "-servername", "site.example",
			"-CAfile", ca, "-verify_return_error", "-tls1_3",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			argv := tc.argv
			if argv[0] == "curl" {
				argv = append(argv, fmt.Sprintf("https://site.example:%d/", d.addr.Port()))
			}
			out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tc.want) {
				t.Fatalf("%v: %v\n%s", argv, err, out)
			}
		})
	}
}
