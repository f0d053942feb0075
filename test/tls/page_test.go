package tls

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/test/harness"
)

// TestPageAboutTheCA: the same page through the proxy, at http://lazaret.internal/, and on the console; after a rotation it has
// both certificates, with which a client can go on before and after the gateway's next start.
func TestPageAboutTheCA(t *testing.T) {
	g := harness.Start(t, nil)
	get := func(through, path string) string {
		t.Helper()
		args := []string{"-sS", "-f", "-m", "30", "-H", "Accept-Language: fr"}
		if through == "proxy" {
			args = append(args, "-x", "http://"+g.Proxy, "http://lazaret.internal"+path)
		} else {
			args = append(args, "http://"+g.Admin+path)
		}
		out, err := exec.Command("curl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s%s: %v: %s", through, path, err, out)
		}
		return string(out)
	}
	fingerprint := func(file string) string {
		t.Helper()
		out, err := exec.Command("openssl", "x509", "-in", file, "-noout", "-fingerprint", "-sha256").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out[strings.IndexByte(string(out), '=')+1:]))
	}
	before := fingerprint(g.CAFile())
	inUse, err := os.ReadFile(g.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := lazaret(t, "NOTHING=", "ca", "rotate", "--config", g.Config); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after := fingerprint(filepath.Join(filepath.Dir(g.CAFile()), "ca-next.pem"))
	for _, through := range []string{"proxy", "console"} {
		page := get(through, "/")
		if !strings.Contains(page, before) || !strings.Contains(page, after) || !strings.Contains(page, "Certificat") || !strings.Contains(page, "le prochain") {
			t.Errorf("by %s the page lacks something:\n%s", through, page)
		}
		if get(through, "/ca.pem") != string(inUse) {
			t.Errorf("by %s ca.pem is not the one in use", through)
		}
		n := 0
		for block, rest := pem.Decode([]byte(get(through, "/ca-all.pem"))); block != nil; block, rest = pem.Decode(rest) {
			n++
		}
		if n != 2 {
			t.Errorf("by %s ca-all.pem has %d certificates", through, n)
		}
	}
}

// TestConstrainedCA: with a CA that is kept to one domain, curl takes what is inside, and is told of what is not; explain says why.
func TestConstrainedCA(t *testing.T) {
	ca := harness.NewCA(t)
	o := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "localhost", "127.0.0.1", "other.example")}})
	_, port, err := net.SplitHostPort(o.addr)
	if err != nil {
		t.Fatal(err)
	}
	for setting, want := range map[string]string{"refuse": "failed", "tunnel": "200"} {
		g := harness.Start(t, harness.Settings{"web.tls": "permit_domains = [\"localhost\"]\nnot_permitted = \"" + setting + "\"\n"}, ca.File)
		if status, body := curl(g, "https://localhost:"+port+"/"); status != "200" || body != "hello" {
			t.Errorf("%s: inside: %s %s", setting, status, body)
		}
		// Passed through, the origin's own certificate is what curl sees.
		status, body := curl(g, "--cacert", ca.File, "https://"+o.addr+"/")
		if status != want {
			t.Errorf("%s: outside: %s %s", setting, status, body)
		}
		for host, outcome := range map[string]string{"localhost:" + port: "scanned", o.addr: map[string]string{"refuse": "refused", "tunnel": "tunnelled"}[setting]} {
			out, _ := lazaret(t, "NOTHING=", "explain", "--config", g.Config, "https://"+host+"/")
			if !strings.Contains(out, outcome) || strings.Contains(out, "name constraints") == (outcome == "scanned") {
				t.Errorf("%s: explain %s: %s", setting, host, out)
			}
		}
		if setting == "refuse" && !g.Log.Logs("name constraints") {
			t.Error("the log does not say why")
		}
	}
}
