package intercept

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/relay"
)

// program returns the path of a real client, and skips the test where it is not installed.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// TestClientsWithOpenSSLThatRefuseOurCertificatesAreNoticed: in TLS 1.3 OpenSSL refuses in the clear what has to be encrypted.
func TestClientsWithOpenSSLThatRefuseOurCertificatesAreNoticed(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"app.example"}, nil))
	_, port, err := net.SplitHostPort(org.String())
	if err != nil {
		t.Fatal(err)
	}
	wrong := rootFile(t, newRoot(t))
	sClient := func(version string) func(door, ca string) []string {
		return func(door, ca string) []string {
			return []string{"openssl", "s_client", version, "-connect", door, "-servername", "app.example", "-CAfile", ca, "-verify_return_error", "-no_middlebox"}
		}
	}
	for _, tc := range []struct {
		what string
		args func(door, ca string) []string
	}{
		{"openssl, TLS 1.2", sClient("-tls1_2")},
		{"openssl, TLS 1.3", sClient("-tls1_3")},
		{"openssl, TLS 1.3 as middleboxes like it", func(door, ca string) []string {
			a := sClient("-tls1_3")(door, ca)
			return a[:len(a)-1]
		}},
		{"curl", func(door, ca string) []string {
			return []string{"curl", "--noproxy", "*", "-sS", "--max-time", "20", "--connect-to", "app.example:" + port + ":" + door, "--cacert", ca, "https://app.example:" + port + "/"}
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			var log lockedBuffer
			var later atomic.Int64 // alerts that follow each other at once count as one
			now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			i := gatewayWith(t, root, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: now}, func(c *Config) { c.PinnedAlerts = 2 })
			d := openDoor(t, i, to("app.example", org))
			visit := func(ca string) (*Session, error) {
				later.Add(int64(2 * alertBurst))
				args := tc.args(d.addr.String(), ca)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_ = exec.CommandContext(ctx, program(t, args[0]), args[1:]...).Run() // how it ended is for the gateway to know
				select {
				case s := <-d.sessions:
					return s, nil
				case err := <-d.errs:
					return nil, err
				case <-ctx.Done():
					t.Fatal("Accept did not end")
				}
				return nil, nil
			}
			// Without our CA in the client, the log says what is wrong there.
			if _, err := visit(wrong); err == nil || !strings.Contains(err.Error(), "remote error: tls: unknown certificate authority") {
				t.Errorf("the client's refusal: %v", err)
			}
			if said := log.String(); !strings.Contains(said, "is the gateway's CA installed there?") || !strings.Contains(said, "alert=unknown_ca") {
				t.Errorf("the log does not say what is wrong: %s", said)
			}
			if l := i.Learned(); len(l) != 0 {
				t.Errorf("learned of a client without our CA: %+v", l)
			}
			// With it, and a program that does not want it.
			ours := filepath.Join(t.TempDir(), "ca.pem")
			writeFile(t, ours, i.ca.PEM())
			if s, err := visit(ours); err != nil || s.Mode != Inspect {
				t.Fatalf("%+v, %v", s, err)
			}
			for range 2 {
				if _, err := visit(wrong); err == nil {
					t.Fatal("the client took a certificate of nobody that it knows")
				}
			}
			if l := i.Learned(); len(l) != 1 || !strings.Contains(l[0].Reason, "unknown_ca") {
				t.Errorf("learned: %+v", l)
			}
			if s, err := visit(wrong); err != nil || s.Mode != Tunnel || s.Rule != RulePinned {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// TestAlertsInTheClear: only a fatal alert, whole and last, says why a record could not be decrypted, in whatever pieces it came.
func TestAlertsInTheClear(t *testing.T) {
	mac := &net.OpError{Op: "local error", Err: tls.AlertError(alertBadRecordMAC)}
	change, ciphered := []byte{20, 3, 3, 0, 1, 1}, []byte{23, 3, 3, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	alert := func(level, code byte) []byte { return []byte{21, 3, 3, 0, 2, level, code} }
	for _, tc := range []struct {
		what string
		sent [][]byte
		err  error
		want string // the alert's name; empty: none
	}{
		{"alone", [][]byte{alert(2, 48)}, mac, "unknown_ca"},
		{"behind others", [][]byte{ciphered, change, alert(2, 42)}, mac, "bad_certificate"},
		{"behind an empty record", [][]byte{{23, 3, 3, 0, 0}, alert(2, 46)}, mac, "certificate_unknown"},
		{"of something else", [][]byte{alert(2, 40)}, mac, ""},
		{"a warning", [][]byte{alert(1, 48)}, mac, ""},
		{"not whole", [][]byte{alert(2, 48)[:6]}, mac, ""},
		{"too long", [][]byte{{21, 3, 3, 0, 3, 2, 48, 0}}, mac, ""},
		{"before another record", [][]byte{alert(2, 48), ciphered}, mac, ""},
		{"encrypted", [][]byte{ciphered}, mac, ""},
		{"nothing", nil, mac, ""},
		{"another error", [][]byte{alert(2, 48)}, &net.OpError{Op: "local error", Err: tls.AlertError(10)}, ""},
		{"no alert", [][]byte{alert(2, 48)}, io.EOF, ""},
	} {
		all := bytes.Join(tc.sent, nil)
		for size := 1; size <= max(1, len(all)); size++ {
			w := &alertWatch{}
			for b := all; len(b) > 0; b = b[min(size, len(b)):] {
				w.follow(b[:min(size, len(b))])
			}
			err := w.meant(tc.err)
			if name, ok := certificateAlert(err); name != tc.want || ok != (tc.want != "") {
				t.Errorf("%s, in pieces of %d: %q, want %q", tc.what, size, name, tc.want)
			}
			if tc.want == "" && tc.what != "of something else" && !errors.Is(err, tc.err) {
				t.Errorf("%s: the error is %v now", tc.what, err)
			}
		}
	}
}

// TestServedConnectionIsNotHidden: who looks for the TCP connection below TLS finds it.
func TestServedConnectionIsNotHidden(t *testing.T) {
	root := newRoot(t)
	org := newOrigin(t, root.leaf([]string{"site.example"}, nil))
	i := gatewayOf(t, root)
	d := openDoor(t, i, to("site.example", org))
	c, err := tls.Dial("tcp", d.addr.String(), &tls.Config{RootCAs: i.ca.pool(), ServerName: "site.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	below, ok := d.session(t).Client.NetConn().(interface{ NetConn() net.Conn })
	if !ok {
		t.Fatal("the connection below TLS does not say what is below it")
	}
	if p, ok := below.NetConn().(*relay.Prefixed); !ok || p.TCPConn() == nil {
		t.Errorf("below it is %T", below.NetConn())
	}
}

// lockedBuffer is a log that is written while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
