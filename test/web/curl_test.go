package web

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"
)

// gateways returns what the table below is run against: each engine with the real binary.
func gateways(t *testing.T) map[string]func(t *testing.T, roots ...string) *harness.Gateway {
	clamd := harness.StartClamd(t)
	return map[string]func(t *testing.T, roots ...string) *harness.Gateway{
		"signatures": func(t *testing.T, roots ...string) *harness.Gateway { return harness.Start(t, nil, roots...) },
		"clamd": func(t *testing.T, roots ...string) *harness.Gateway {
			return harness.Start(t, harness.Settings{
				"[scanner]": "type = \"clamd\"\naddress = \"unix:" + clamd.Socket + "\"\n",
			}, roots...)
		},
	}
}

func TestCurl(t *testing.T) {
	secure := harness.NewOrigin(t, site(t))
	plain := harness.NewPlainOrigin(t, site(t))
	eicar := filepath.Join(t.TempDir(), "eicar.com")
	clean := filepath.Join(t.TempDir(), "clean.txt")
	for name, body := range map[string][]byte{eicar: scan.EICAR(), clean: []byte(cleanText)} {
		if err := os.WriteFile(name, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rows := []struct {
		path, status string
		body         []byte // nil: a page of the gateway
		args         []string
	}{
		{"/clean.txt", "200", []byte(cleanText), nil},
		{"/clean.txt", "200", []byte(cleanText), []string{"--http1.1"}},
		{"/empty", "200", []byte{}, nil},
		{"/big.bin", "200", bigBody(), nil},
		{"/big.bin", "206", bigBody()[1000:2000], []string{"-r", "1000-1999"}},
		{"/gzip/clean", "200", []byte(cleanText), []string{"--compressed"}},
		{"/deflate/clean", "200", []byte(cleanText), []string{"--compressed"}},
		{"/br/clean", "200", []byte(cleanText), []string{"--compressed"}},
		{"/zstd/clean", "200", []byte(cleanText), []string{"-H", "Accept-Encoding: zstd"}},
		{"/upload", "200", []byte("got 45 bytes"), []string{"-T", clean}},
		{"/upload", "200", []byte("got 45 bytes"), []string{"-T", clean, "-H", "Transfer-Encoding: chunked"}},
		{"/eicar.com", "403", nil, nil},
		{"/eicar.com", "403", nil, []string{"--http1.1"}},
		{"/eicar.com", "403", nil, []string{"-r", "20-"}},
		{"/eicar.zip", "403", nil, nil},
		{"/nested.zip", "403", nil, nil},
		{"/eicar-late.bin", "403", nil, nil},
		{"/chunked-eicar", "403", nil, nil},
		{"/gzip/eicar", "403", nil, nil},
		{"/deflate/eicar", "403", nil, nil},
		{"/br/eicar", "403", nil, nil},
		{"/zstd/eicar", "403", nil, nil},
		{"/upload", "403", nil, []string{"-T", eicar}},
		{"/upload", "403", nil, []string{"--data-binary", "@" + eicar}},
		{"/upload", "403", nil, []string{"-F", "file=@" + eicar}},
		{"/upload", "403", nil, []string{"-T", eicar, "-H", "Transfer-Encoding: chunked"}},
	}
	for engine, start := range gateways(t) {
		t.Run(engine, func(t *testing.T) {
			g := start(t, secure.CA.File)
			for _, base := range []string{secure.URL, plain.URL} {
				for _, row := range rows {
					name := strings.Join(append([]string{base[:5], row.path}, row.args...), " ")
					uploads := count(append(secure.Seen(), plain.Seen()...), "/upload")
					r := curl(t, g, append(row.args, base+row.path)...)
					if r.status != row.status {
						t.Errorf("%s: status %s, want %s", name, r.status, row.status)
						continue
					}
					if row.body != nil && !bytes.Equal(r.body, row.body) {
						t.Errorf("%s: %d bytes differ from the origin's %d", name, len(r.body), len(row.body))
					}
					if bytes.Contains(r.body, []byte("EICAR-STANDARD")) {
						t.Errorf("%s: the virus came through", name)
					}
					if row.body == nil && !strings.Contains(r.header, "X-Lazaret-Reference:") && !strings.Contains(r.header, "x-lazaret-reference:") {
						t.Errorf("%s: no reference number in\n%s", name, r.header)
					}
					if strings.Contains(strings.ToLower(r.header), "alt-svc") {
						t.Errorf("%s: Alt-Svc came through", name)
					}
					if now := count(append(secure.Seen(), plain.Seen()...), "/upload"); row.status == "403" && now != uploads {
						t.Errorf("%s: a refused upload reached the origin", name)
					}
				}
			}
		})
	}
}

func count(seen []string, path string) int {
	n := 0
	for _, s := range seen {
		if strings.HasSuffix(s, path) {
			n++
		}
	}
	return n
}

func TestEventStreamFlows(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, nil, o.CA.File)
	r := curl(t, g, "-N", "--max-time", "3", o.URL+"/events")
	if !strings.Contains(string(r.body), "event 2") {
		t.Errorf("of an event stream that does not end came %q", r.body)
	}
	if !g.Log.Logs("event-stream") {
		t.Error("the exception is not recorded")
	}
}

func TestEventStreamWithAVirusIsCutOff(t *testing.T) {
	first := make(chan struct{})
	o := harness.NewPlainOrigin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: first\n\n")
		w.(http.Flusher).Flush()
		select { // what comes together is judged together
		case <-first:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "data: %s\n\n", scan.EICAR())
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	g := harness.Start(t, nil)
	cmd := exec.Command("curl", "-sN", "--max-time", "30", "-x", "http://"+g.Proxy, o.URL+"/")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if line != "data: first\n" {
		t.Errorf("the first event came as %q, %v", line, err)
	}
	close(first)
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Error(err)
	}
	if bytes.Contains(rest, scan.EICAR()) {
		t.Errorf("after it came %q", rest)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("curl took the stream for complete")
	}
	if !g.Log.Logs("Eicar") {
		t.Error("the log says nothing of it")
	}
}

func TestFaultyOriginGetsAPageAndNoRequest(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, nil) // the origin's CA is not trusted
	r := curl(t, g, "-H", "Accept: application/json", o.URL+"/clean.txt")
	if r.status != "502" || !strings.Contains(string(r.body), "reference") {
		t.Errorf("status %s, %s", r.status, r.body)
	}
	if seen := o.Seen(); len(seen) != 0 {
		t.Errorf("the origin saw %v", seen)
	}
}

func TestTunnelListPassesUnopened(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, harness.Settings{"web.tls": "tunnel = [\"localhost\"]\n"}, o.CA.File)
	url := strings.Replace(o.URL, "127.0.0.1", "localhost", 1)
	r := curl(t, g, "--cacert", o.CA.File, url+"/eicar.com")
	if r.status != "200" || !bytes.Equal(r.body, scan.EICAR()) {
		t.Errorf("through the tunnel came %s, %d bytes", r.status, len(r.body))
	}
	r = curl(t, g, o.URL+"/eicar.com") // 127.0.0.1 is not listed
	if r.status != "403" {
		t.Errorf("a host that is not listed: %s", r.status)
	}
}

func TestClamdCrashCostsNoUnscannedObject(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	clamd := harness.StartClamd(t)
	g := harness.Start(t, harness.Settings{
		"[scanner]": "type = \"clamd\"\naddress = \"unix:" + clamd.Socket + "\"\n",
		"gate":      "cache = false\n",
	}, o.CA.File)
	if r := curl(t, g, o.URL+"/clean.txt"); r.status != "200" {
		t.Fatalf("before: %s", r.status)
	}
	clamd.Kill(t)
	for _, path := range []string{"/clean.txt", "/eicar.com"} {
		if r := curl(t, g, o.URL+path); r.status != "503" {
			t.Errorf("%s without clamd: %s", path, r.status)
		}
	}
	clamd.Start(t)
	deadline := time.Now().Add(30 * time.Second)
	for {
		r := curl(t, g, o.URL+"/clean.txt")
		if r.status == "200" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("clamd is back, but still %s", r.status)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if r := curl(t, g, o.URL+"/eicar.com"); r.status != "403" {
		t.Errorf("after: %s", r.status)
	}
}

func TestReloadKeepsServingWithTheOldSettingsWhenTheNewAreWrong(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, nil, o.CA.File)
	good, err := os.ReadFile(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.Config, append(good, []byte("\n[wbe]\nx = 1\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Signal(t, syscall.SIGHUP)
	waitFor(t, func() bool { return strings.Contains(g.Log.String(), "wbe") }, "the log to name the unknown table")
	if r := curl(t, g, o.URL+"/eicar.com"); r.status != "403" {
		t.Errorf("after a bad reload: %s", r.status)
	}
	tunnelled := strings.Replace(string(good), "[web.tls]\n", "[web.tls]\ntunnel = [\"127.0.0.1\"]\n", 1)
	if err := os.WriteFile(g.Config, []byte(tunnelled), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Signal(t, syscall.SIGHUP)
	waitFor(t, func() bool {
		return curl(t, g, "--cacert", o.CA.File, o.URL+"/clean.txt").status == "200"
	}, "the new tunnel list to be in force")
}

func TestTermDrains(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, nil, o.CA.File)
	if r := curl(t, g, o.URL+"/clean.txt"); r.status != "200" {
		t.Fatalf("status %s", r.status)
	}
	g.Signal(t, syscall.SIGTERM)
	if err := g.Wait(t, 20*time.Second); err != nil {
		t.Errorf("TERM: %v", err)
	}
}

func TestAuditHasNoSecrets(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	g := harness.Start(t, nil, o.CA.File)
	curl(t, g, "-u", "alice:wonderland", "-b", "session=rabbit", "-d", "secret=hatter", o.URL+"/upload")
	curl(t, g, "-u", "alice:wonderland", "-b", "session=rabbit", o.URL+"/eicar.com")
	log := g.Log.String()
	if !strings.Contains(log, "Eicar") {
		t.Fatalf("the log says nothing of the block:\n%s", log)
	}
	if i := slices.IndexFunc([]string{"wonderland", "rabbit", "hatter"}, func(s string) bool { return strings.Contains(log, s) }); i >= 0 {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

func waitFor(t *testing.T, ok func() bool, what string) {
	t.Helper()
	for range 300 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
