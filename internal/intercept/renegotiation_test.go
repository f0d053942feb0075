package intercept

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRenegotiationIsNoticed has OpenSSL's server ask for a client certificate on a connection that is in use.
func TestRenegotiationIsNoticed(t *testing.T) {
	root := newRoot(t)
	i := gatewayOf(t, root)
	leaf := root.leaf([]string{"site.example"}, nil)
	der, err := x509.MarshalECPrivateKey(leaf.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "leaf.pem")
	writeFile(t, file, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd := exec.CommandContext(t.Context(), "openssl", "s_server", "-accept", addr, "-cert", file, "-tls1_2", "-naccept", "1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	at := netip.MustParseAddrPort(addr)
	conn, err := i.Open(t.Context(), to("site.example", at))
	for range 200 {
		if err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond) // it does not listen yet
		conn, err = i.Open(t.Context(), to("site.example", at))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(in, "R\n"); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	if !Renegotiates(err) {
		t.Fatalf("error %v is not known as a renegotiation", err)
	}
	learned := 0
	if f := (&Session{renegotiated: func() { learned++ }}).Failed(err); f == nil || f.Kind != FaultClientCertificate || learned != 1 {
		t.Errorf("fault %v, learned %d times", f, learned)
	}
	for _, s := range []*Session{nil, {}} {
		if f := s.Failed(err); f == nil || f.Kind != FaultNotAllowed || !strings.Contains(f.Detail, "client certificate") {
			t.Errorf("fault %v", f)
		}
	}
	if f := (&Session{}).Failed(io.EOF); f != nil {
		t.Errorf("an end is taken for %v", f)
	}
}
