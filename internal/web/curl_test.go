package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool returns the path of a real client, and skips the test where it is not installed.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// caFile writes the gateway's certificate.
func (r *rig) caFile() string {
	path := filepath.Join(r.t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, r.ca.PEM(), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// run runs a client, and returns what it wrote and its exit status.
func run(t *testing.T, path string, args ...string) (out string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "http_proxy=", "https_proxy=", "no_proxy=", "ALL_PROXY=", "HOME="+t.TempDir())
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

func TestCurl(t *testing.T) {
	curl := tool(t, "curl")
	r := newRig(t)
	plain, secure := r.origin(virusOrigin), r.tlsOrigin(virusOrigin)
	base := []string{"-sS", "--max-time", "20", "--proxy", "http://" + r.addr, "--cacert", r.caFile(), "-w", "\n%{http_code} %{http_version}"}
	virus := filepath.Join(t.TempDir(), "virus")
	if err := os.WriteFile(virus, []byte(eicarText()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string // the end of the output
	}{
		{"http", []string{plain.URL + "/clean"}, "harmless, by HTTP/1.1\n200 1.1"},
		{"https, HTTP/2", []string{"--http2", secure.URL + "/clean"}, "harmless, by HTTP/2.0\n200 2"},
		{"https, HTTP/1.1", []string{"--http1.1", secure.URL + "/clean"}, "harmless, by HTTP/1.1\n200 1.1"},
		{"http inside CONNECT", []string{"--proxytunnel", plain.URL + "/clean"}, "harmless, by HTTP/1.1\n200 1.1"},
		{"HTTP/1.0", []string{"--http1.0", plain.URL + "/clean"}, "harmless, by HTTP/1.1\n200 1"},
		{"TLS 1.2", []string{"--tls-max", "1.2", secure.URL + "/clean"}, "200 2"},
		{"virus, http", []string{plain.URL + "/eicar.com"}, "\n403 1.1"},
		{"virus, https", []string{secure.URL + "/eicar.com"}, "\n403 2"},
		{"virus in pieces", []string{"-r", "0-33", secure.URL + "/eicar.com"}, "\n403 2"},
		{"upload", []string{"--data-binary", "letter", secure.URL + "/upload"}, "took letter\n200 2"},
		{"upload with Expect", []string{"-H", "Expect: 100-continue", "--http1.1", "-T", virus, secure.URL + "/upload"}, "\n403 1.1"},
		{"virus as a form", []string{"-F", "f=@" + virus, secure.URL + "/upload"}, "\n403 2"},
		{"virus, compressed", []string{"--compressed", secure.URL + "/eicar.com"}, "\n403 2"},
		{"head", []string{"-I", secure.URL + "/clean"}, "\n200 2"},
		{"several over one connection", []string{secure.URL + "/clean", secure.URL + "/clean", secure.URL + "/clean"}, "200 2"},
	} {
		out, status := run(t, curl, append(append([]string{}, base...), c.args...)...)
		if status != 0 || !strings.HasSuffix(out, c.want) {
			t.Errorf("%s: exit status %d\n%s", c.name, status, out)
		}
		if eicarIn(out) {
			t.Errorf("%s: the virus got through", c.name)
		}
	}
}

func TestCurlDoesNotTrustTheGatewayUnasked(t *testing.T) {
	curl := tool(t, "curl")
	r := newRig(t)
	out, status := run(t, curl, "-sS", "--max-time", "20", "--proxy", "http://"+r.addr, r.tlsOrigin(virusOrigin).URL+"/clean")
	if status != 60 { // CURLE_PEER_FAILED_VERIFICATION
		t.Errorf("exit status %d: %s", status, out)
	}
}

func TestResumedDownloads(t *testing.T) {
	file := seq(3 << 20)
	sum := sha256.Sum256(file)
	for _, c := range []struct {
		tool string
		args func(r *rig, u, out string) []string
	}{
		{"curl", func(r *rig, u, out string) []string {
			return []string{"-sS", "--max-time", "20", "--proxy", "http://" + r.addr, "--cacert", r.caFile(), "-C", "-", "-o", out, u}
		}},
		{"wget", func(r *rig, u, out string) []string {
			return []string{
				"-nv", "-T", "20", "-t", "1", "--ca-certificate", r.caFile(), "-c", "-O", out, "-e", "use_proxy=yes",
				"-e", "http_proxy=http://" + r.addr, "-e", "https_proxy=http://" + r.addr, u,
			}
		}},
	} {
		t.Run(c.tool, func(t *testing.T) {
			path := tool(t, c.tool)
			r := newRig(t)
			for _, u := range []string{r.origin(rangeOrigin(t, file)).URL, r.tlsOrigin(rangeOrigin(t, file)).URL} {
				u = strings.Replace(u, "127.0.0.1", "localhost", 1)
				out := filepath.Join(t.TempDir(), "file")
				if err := os.WriteFile(out, file[:1<<20], 0o600); err != nil {
					t.Fatal(err)
				}
				if log, status := run(t, path, c.args(r, u+"/file", out)...); status != 0 {
					t.Fatalf("exit status %d: %s", status, log)
				}
				got, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				if s := sha256.Sum256(got); s != sum {
					t.Errorf("%s: %d bytes with the sum %s", u, len(got), hex.EncodeToString(s[:]))
				}
			}
		})
	}
}

func TestCurlSeesEachEventAtOnce(t *testing.T) {
	curl := tool(t, "curl")
	r := newRig(t)
	next := make(chan string)
	o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for s := range next {
			_, _ = io.WriteString(w, s)
			_ = http.NewResponseController(w).Flush()
		}
	})
	cmd := exec.Command(curl, "-sS", "-N", "--max-time", "20", "--proxy", "http://"+r.addr, "--cacert", r.caFile(), o.URL)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }).Stop()
	buf := make([]byte, 100)
	for range 3 {
		next <- "data: x\n\n"
		if n, err := out.Read(buf); err != nil || string(buf[:n]) != "data: x\n\n" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	close(next)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
