package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/policy"
	"lazaret/internal/scan"

	"go.uber.org/goleak"
	"howett.net/plist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func authority(t testing.TB, name string, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: name}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sources returns a gateway that is well.
func sources(t testing.TB) Sources {
	ca := authority(t, "Lazaret CA of gw", time.Now().Add(time.Hour))
	l := audit.New(slog.New(slog.DiscardHandler), audit.Default())
	return Sources{
		Version: "1.2.3",
		Scanners: func() []audit.ScannerStatus {
			return []audit.ScannerStatus{{
				Name: "clamd", Address: "unix:/run/clamd", Required: true, Up: true,
				Version: scan.Version{Engine: "ClamAV 1.4.3", Signatures: "27453", Updated: time.Now().Add(-50 * time.Hour)},
			}}
		},
		Spool: func() (int64, int64) { return 2048, 3 << 20 }, CA: func() *x509.Certificate { return ca },
		ProxyAddrs: func() []string { return []string{"127.0.0.1:3128"} }, Records: l, Metrics: l.Registry(),
	}
}

func server(t testing.TB, cfg Config, src Sources) *Server {
	t.Helper()
	s, err := New(cfg, src, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	insider  = "127.0.0.1:50000"
	outsider = "192.0.2.7:50000"
)

// get asks s by a request made to host from the client's address.
func get(s *Server, method, host, client, path string) (*http.Response, string) {
	r := httptest.NewRequest(method, path, nil)
	r.Host, r.RemoteAddr = host, client
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	res := w.Result()
	b, _ := io.ReadAll(res.Body)
	return res, string(b)
}

var paths = map[string]string{
	"/": "text/html; charset=utf-8", "/healthz": plain, "/readyz": "application/json", "/metrics": "text/plain; version=0.0.4",
	"/ca.pem": "application/x-pem-file", "/ca.der": "application/x-x509-ca-cert", "/ca.crt": "application/x-x509-ca-cert",
	"/ca.mobileconfig": "application/x-apple-aspen-config", "/proxy.pac": "application/x-ns-proxy-autoconfig",
	"/wpad.dat": "application/x-ns-proxy-autoconfig",
}

func TestEveryPathAnswersWithSafeHeaders(t *testing.T) {
	s := server(t, Default(), sources(t))
	for path, contentType := range paths {
		res, body := get(s, http.MethodGet, "127.0.0.1:8128", insider, path)
		if res.StatusCode != http.StatusOK || body == "" {
			t.Errorf("%s: status %d: %q", path, res.StatusCode, body)
		}
		if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, contentType) {
			t.Errorf("%s: Content-Type %q, want %q", path, got, contentType)
		}
		for k, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
		} {
			if got := res.Header.Get(k); got != want {
				t.Errorf("%s: %s is %q, want %q", path, k, got, want)
			}
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy %q", path, csp)
		}
		head, body := get(s, http.MethodHead, "127.0.0.1:8128", insider, path)
		if head.StatusCode != http.StatusOK || path != "/metrics" && body != "" {
			t.Errorf("HEAD %s: status %d, %d bytes", path, head.StatusCode, len(body))
		}
	}
	for _, path := range []string{"/nothing", "/healthz/x", "/ca.key", "/../etc/passwd"} {
		if res, _ := get(s, http.MethodGet, "127.0.0.1", insider, path); res.StatusCode == http.StatusOK {
			t.Errorf("%s: status %d", path, res.StatusCode)
		}
	}
}

func TestOnlyGetAndHead(t *testing.T) {
	s := server(t, Default(), sources(t))
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"} {
		for path := range paths {
			res, _ := get(s, method, "127.0.0.1", insider, path)
			if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: status %d, Allow %q", method, path, res.StatusCode, res.Header.Get("Allow"))
			}
		}
	}
}

func TestDNSRebindingIsRefused(t *testing.T) {
	cfg := Default()
	cfg.AllowHosts = []string{"GW.corp.example"}
	s := server(t, cfg, sources(t))
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for host, ok := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:8128": true, "192.0.2.1": true, "[::1]:8128": true, "[2001:db8::1]": true, "localhost:8128": true,
		"LOCALHOST.": true, name: true, strings.ToUpper(name) + ":8128": true, "lazaret.internal": true, "gw.corp.example": true,
		"gw.corp.example.:8128": true, "": true, "wpad": true, "WPAD:80": true, "wpad.evil.example": false,
		"evil.example": false, "evil.example:8128": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false,
		"x.gw.corp.example": false, "127.0.0.1@evil.example": false, "[::1": false, "127.1": false, "0x7f000001": false,
		"evil.example\r\nX: y": false, "<script>": false, "[evil.example]": false,
	} {
		for path := range paths {
			res, body := get(s, http.MethodGet, host, insider, path)
			if got := res.StatusCode != http.StatusMisdirectedRequest; got != ok {
				t.Errorf("%s under %q: status %d", path, host, res.StatusCode)
			}
			if !ok && (!strings.Contains(body, "allow_hosts") || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain")) {
				t.Errorf("%s under %q is refused without an explanation: %q", path, host, body)
			}
		}
	}
}

func TestStateIsForInsidersOnly(t *testing.T) {
	src := sources(t)
	src.Records.(*audit.Log).Record(audit.Record{Event: audit.Object, Facts: policy.Facts{Host: "secret.example"}})
	src.Ready = func(context.Context) []string { return []string{"disk /var/spool is full"} }
	cfg := Default()
	cfg.StatusClients = append(cfg.StatusClients, netip.MustParsePrefix("198.51.100.0/24"))
	s := server(t, cfg, src)
	secrets := []string{"secret.example", "ClamAV 1.4.3", "disk /var/spool", "go_goroutines", "/run/clamd"}
	for client, may := range map[string]bool{
		insider: true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "198.51.100.9:1": true, outsider: false, "[2001:db8::1]:1": false,
		"": false, "nonsense": false, "@": false,
	} {
		seen := ""
		for _, path := range []string{"/", "/readyz", "/metrics"} {
			_, body := get(s, http.MethodGet, "127.0.0.1", client, path)
			seen += body
		}
		for _, secret := range secrets {
			if strings.Contains(seen, secret) != may {
				t.Errorf("client %q, %q: shown is %v", client, secret, !may)
			}
		}
		for path := range paths {
			res, body := get(s, http.MethodGet, "127.0.0.1", client, path)
			want := http.StatusOK
			switch {
			case path == "/metrics" && !may:
				want = http.StatusForbidden
			case path == "/readyz":
				want = http.StatusServiceUnavailable
			}
			if res.StatusCode != want {
				t.Errorf("client %q, %s: status %d, want %d: %s", client, path, res.StatusCode, want, body)
			}
		}
	}
}

func TestReady(t *testing.T) {
	down := []audit.ScannerStatus{{Name: "clamd", Required: true, Problem: "connection refused"}, {Name: "signatures", Up: true}}
	expired := authority(t, "x", time.Now().Add(-time.Minute))
	for name, c := range map[string]struct {
		change func(*Sources)
		want   []string
	}{
		"well":             {func(*Sources) {}, nil},
		"required is down": {func(s *Sources) { s.Scanners = func() []audit.ScannerStatus { return down } }, []string{"scanner clamd is down: connection refused"}},
		"another is down": {func(s *Sources) {
			s.Scanners = func() []audit.ScannerStatus { return append(slices.Clone(down[1:]), audit.ScannerStatus{Name: "x"}) }
		}, nil},
		"none": {func(s *Sources) { s.Scanners = func() []audit.ScannerStatus { return nil } }, []string{"no scanner is up"}},
		"all are down": {func(s *Sources) {
			s.Scanners = func() []audit.ScannerStatus { return []audit.ScannerStatus{{Name: "x"}} }
		}, []string{"no scanner is up"}},
		"nothing wired": {func(s *Sources) { *s = Sources{} }, []string{"no scanner is up", "the CA is not loaded"}},
		"no CA":         {func(s *Sources) { s.CA = func() *x509.Certificate { return nil } }, []string{"the CA is not loaded"}},
		"expired CA":    {func(s *Sources) { s.CA = func() *x509.Certificate { return expired } }, []string{"the CA's certificate has expired: make a new one with lazaret ca rotate"}},
		"spool":         {func(s *Sources) { s.Ready = func(context.Context) []string { return []string{"spool full"} } }, []string{"spool full"}},
		"panic":         {func(s *Sources) { s.Ready = func(context.Context) []string { panic("oh") } }, []string{"the check of readiness panicked: oh"}},
	} {
		src := sources(t)
		c.change(&src)
		res, body := get(server(t, Default(), src), http.MethodGet, "127.0.0.1", insider, "/readyz")
		var got struct {
			Ready    bool
			Problems []string
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v in %q", name, err, body)
		}
		if got.Ready != (len(c.want) == 0) || !slices.Equal(got.Problems, c.want) || (res.StatusCode == http.StatusOK) != got.Ready {
			t.Errorf("%s: status %d, %+v, want %q", name, res.StatusCode, got, c.want)
		}
	}
}

func TestReadinessCheckThatHangsIsNotStartedTwice(t *testing.T) {
	src := sources(t)
	release, started := make(chan struct{}), make(chan struct{}, 10)
	src.Ready = func(context.Context) []string {
		started <- struct{}{}
		<-release
		return nil
	}
	s := server(t, Default(), src)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			r := httptest.NewRequest(http.MethodGet, "/readyz", nil).WithContext(ctx)
			r.Host, r.RemoteAddr = "127.0.0.1", insider
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "does not come to an end") {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
	}
	<-started
	cancel() // the clients go away, or their patience ends
	wg.Wait()
	if len(started) != 0 {
		t.Errorf("%d more checks were started", len(started))
	}
	s.check.mu.Lock()
	done := s.check.running
	s.check.mu.Unlock()
	close(release)
	<-done
	if res, body := get(s, http.MethodGet, "127.0.0.1", insider, "/readyz"); res.StatusCode != http.StatusOK {
		t.Errorf("afterwards: status %d: %s", res.StatusCode, body)
	}
}

func TestPanicOfASourceCostsOneAnswer(t *testing.T) {
	src := sources(t)
	broken := true
	good := src.Scanners
	src.Scanners = func() []audit.ScannerStatus {
		if broken {
			panic("oh")
		}
		return good()
	}
	s := server(t, Default(), src)
	if res, _ := get(s, http.MethodGet, "127.0.0.1", insider, "/readyz"); res.StatusCode != http.StatusInternalServerError {
		t.Errorf("status %d", res.StatusCode)
	}
	broken = false
	if res, _ := get(s, http.MethodGet, "127.0.0.1", insider, "/readyz"); res.StatusCode != http.StatusOK {
		t.Errorf("afterwards: status %d", res.StatusCode)
	}
}

func TestCertificateInEveryForm(t *testing.T) {
	src := sources(t)
	ca := authority(t, `<b>R&D</b> "CA" ]]> Zürich`, time.Now().Add(time.Hour))
	src.CA = func() *x509.Certificate { return ca }
	s := server(t, Default(), src)
	_, body := get(s, http.MethodGet, "127.0.0.1", outsider, "/ca.pem")
	block, rest := pem.Decode([]byte(body))
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 || string(block.Bytes) != string(ca.Raw) {
		t.Errorf("/ca.pem: %q", body)
	}
	for _, path := range []string{"/ca.der", "/ca.crt"} {
		if _, body := get(s, http.MethodGet, "127.0.0.1", outsider, path); body != string(ca.Raw) {
			t.Errorf("%s is not the certificate", path)
		}
	}
	_, body = get(s, http.MethodGet, "127.0.0.1", outsider, "/ca.mobileconfig")
	type payload struct {
		PayloadType, PayloadUUID, PayloadIdentifier, PayloadDisplayName string
		PayloadVersion                                                  int
		PayloadContent                                                  []byte
	}
	var p struct {
		PayloadType, PayloadUUID, PayloadIdentifier, PayloadDisplayName string
		PayloadVersion                                                  int
		PayloadContent                                                  []payload
	}
	if format, err := plist.Unmarshal([]byte(body), &p); err != nil || format != plist.XMLFormat {
		t.Fatalf("format %d, %v in %s", format, err, body)
	}
	uuidForm := regexp.MustCompile(`^[0-9A-F]{8}-[0-9A-F]{4}-8[0-9A-F]{3}-[89AB][0-9A-F]{3}-[0-9A-F]{12}$`)
	if p.PayloadType != "Configuration" || p.PayloadVersion != 1 || p.PayloadDisplayName != ca.Subject.CommonName || !uuidForm.MatchString(p.PayloadUUID) {
		t.Errorf("profile: %+v", p)
	}
	if len(p.PayloadContent) != 1 {
		t.Fatalf("%d payloads", len(p.PayloadContent))
	}
	c := p.PayloadContent[0]
	if c.PayloadType != "com.apple.security.root" || string(c.PayloadContent) != string(ca.Raw) || c.PayloadVersion != 1 ||
		!uuidForm.MatchString(c.PayloadUUID) || c.PayloadUUID == p.PayloadUUID || c.PayloadIdentifier == p.PayloadIdentifier {
		t.Errorf("payload: %+v", c)
	}
	if _, again := get(s, http.MethodGet, "127.0.0.1", outsider, "/ca.mobileconfig"); again != body {
		t.Error("the same certificate gives another profile")
	}
	other := authority(t, "other", time.Now().Add(time.Hour))
	if string(profile(other)) == body || strings.Contains(string(profile(other)), c.PayloadUUID) {
		t.Error("another certificate has the same UUID")
	}
	src.CA = nil
	s = server(t, Default(), src)
	for _, path := range []string{"/ca.pem", "/ca.der", "/ca.mobileconfig"} {
		if res, _ := get(s, http.MethodGet, "127.0.0.1", outsider, path); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s without a CA: status %d", path, res.StatusCode)
		}
	}
}

func TestServeOnASocket(t *testing.T) {
	s := server(t, Default(), sources(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{}}
	base := "http://" + l.Addr().String()
	for path := range paths {
		res, err := client.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK || len(b) == 0 {
			t.Errorf("%s: status %d, %d bytes", path, res.StatusCode, len(b))
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a huge header: status %d", res.StatusCode)
	}
	client.CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := client.Get(base + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

func TestConfigValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("Default: %v", err)
	}
	for key, c := range map[string]Config{
		"listen":         {Listen: "8128"},
		"allow_hosts":    {AllowHosts: []string{"http://x"}},
		"status_clients": {StatusClients: []netip.Prefix{{}}},
		"direct":         {Direct: []string{"a b"}},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
		if _, err := New(c, Sources{}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: New takes it", key)
		}
	}
	if err := (Config{Listen: ":99999"}).Validate(); err == nil {
		t.Error("port 99999 is taken")
	}
}
