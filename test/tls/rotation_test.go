package tls

import (
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lazaret/test/harness"
)

// TestRotationOverRestarts: clients that trust the former certificate alone go on after a rotation was begun, also when the gateway is
// started again; when its time is over, the running gateway signs with the next one.
func TestRotationOverRestarts(t *testing.T) {
	ca := harness.NewCA(t)
	o := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "localhost", "127.0.0.1")}})
	g := harness.Start(t, nil, ca.File)
	dir := filepath.Dir(g.CAFile())
	former, next := filepath.Join(t.TempDir(), "former.pem"), filepath.Join(t.TempDir(), "next.pem")
	keep := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	visit := func(what, trusted, want string) {
		t.Helper()
		cmd := exec.Command("curl", "-sS", "-m", "30", "-x", "http://"+g.Proxy, "--cacert", trusted, "https://"+o.addr+"/")
		out, err := cmd.CombinedOutput()
		if (err == nil && string(out) == "hello") != (want == "hello") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
	keep(g.CAFile(), former)
	if out, err := lazaret(t, "NOTHING=", "ca", "rotate", "--config", g.Config); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	keep(filepath.Join(dir, "ca-next.pem"), next)
	visit("a rotation has begun", former, "hello")
	settings, err := os.ReadFile(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	g = harness.StartFile(t, g, string(settings))
	visit("started again", former, "hello")
	visit("the next one signs too early", next, "fails")
	if err := os.WriteFile(filepath.Join(dir, "ca-rotation.json"), []byte(`{"until":"2026-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if !g.Log.Logs("the rotation of the CA is finished") {
		t.Fatalf("it is not finished when its time is over\n%s", g.Log)
	}
	visit("its time is over", next, "hello")
	visit("the former one signs", former, "fails")
}
