package clamd_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/scantest"
	"lazaret/test/ports"
)

// marker is harmless, and found wherever it is by a signature of the test database.
const marker = "lazaret-test-marker-that-is-found-anywhere"

// realClamd is a clamd of this machine, on a small database and sockets of its own.
type realClamd struct {
	unix, tcp, db string
	conf          string
	mu            sync.Mutex
	cmd           *exec.Cmd
}

// startReal starts a clamd with the given lines added to its configuration, and waits until it answers.
func startReal(t testing.TB, lines ...string) *realClamd {
	t.Helper()
	if _, err := exec.LookPath("clamd"); err != nil {
		t.Skip("no clamd on this machine (Debian: clamav-daemon)")
	}
	dir, err := os.MkdirTemp("", "lzr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &realClamd{db: filepath.Join(dir, "db"), conf: filepath.Join(dir, "clamd.conf"), unix: "unix:" + filepath.Join(dir, "s")}
	addr, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	r.tcp = "tcp:" + addr
	for _, d := range []string{r.db, filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.addSignature(t, "Marker", []byte(marker))
	r.addSignature(t, "Eicar", scan.EICAR())
	sum := md5.Sum(scan.EICAR())
	write(t, filepath.Join(r.db, "test.hdb"), hex.EncodeToString(sum[:])+":68:Eicar-Test-Hash\n")
	conf := append([]string{
		"LocalSocket " + filepath.Join(dir, "s"),
		"TCPAddr 127.0.0.1",
		"TCPSocket " + addr[strings.LastIndexByte(addr, ':')+1:],
		"DatabaseDirectory " + r.db,
		"TemporaryDirectory " + filepath.Join(dir, "tmp"),
		"Foreground yes",
	}, lines...)
	write(t, r.conf, strings.Join(conf, "\n")+"\n")
	r.start(t)
	t.Cleanup(r.kill)
	return r
}

func write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// addSignature adds one that finds content anywhere.
func (r *realClamd) addSignature(t testing.TB, name string, content []byte) {
	t.Helper()
	write(t, filepath.Join(r.db, name+".ndb"), name+"-Test:0:*:"+hex.EncodeToString(content)+"\n")
}

func (r *realClamd) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command("clamd", "-c", r.conf)
	// To a file: a pipe would need a goroutine, which the suite would find.
	out, err := os.OpenFile(r.conf+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.cmd = cmd
	r.mu.Unlock()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, err := clamd.Command(context.Background(), r.unix, "PING")
		if err == nil && got == "PONG" {
			return
		}
		if time.Now().After(end) {
			r.kill()
			log, _ := os.ReadFile(out.Name())
			t.Fatalf("clamd does not answer: %v\n%s", err, log)
		}
	}
}

func (r *realClamd) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

func (r *realClamd) signal(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd != nil {
		_ = r.cmd.Process.Signal(sig)
	}
}

func (r *realClamd) address(network string) string {
	if network == "unix" {
		return r.unix
	}
	return r.tcp
}

// eachTransport runs f with a Scanner by FILDES and one by INSTREAM.
func eachTransport(t *testing.T, r *realClamd, f func(t *testing.T, s *clamd.Scanner)) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s := newScanner(t, r.address(network))
			defer func() { _ = s.Close() }()
			f(t, s)
			if st := s.States()[0]; st.HandsOver != (network == "unix") {
				t.Errorf("over %s: files handed over: %v", network, st.HandsOver)
			}
		})
	}
}

func TestConformanceOfRealClamd(t *testing.T) {
	r := startReal(t)
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			scantest.Run(t, scantest.Harness{
				New:   func(t *testing.T) scan.Scanner { return newScanner(t, r.address(network)) },
				Large: 3 << 20,
				Faulty: func(t *testing.T, fault scantest.Fault) *scantest.Faulty {
					return realFault(t, r, network, fault)
				},
			})
		})
	}
}

// realFault has the real clamd stopped, killed, or killed and started again.
func realFault(t *testing.T, r *realClamd, network string, fault scantest.Fault) *scantest.Faulty {
	f := &scantest.Faulty{}
	s := newScanner(t, r.address(network))
	// It has shown the fault for every scan that has ended since, and shows it for those under way.
	var met atomic.Int64
	f.Scanner, f.Met = s, func() int {
		if st := s.States()[0]; int64(st.Busy)+st.Scans > met.Load() {
			met.Store(int64(st.Busy) + st.Scans)
		}
		return int(met.Load())
	}
	switch fault {
	case scantest.Stall:
		r.signal(syscall.SIGSTOP)
		f.Heal = func() { r.signal(syscall.SIGCONT) }
		t.Cleanup(f.Heal)
	case scantest.Absent:
		r.kill()
		f.Heal = func() { r.start(t) }
	default:
		_ = s.Close()
		return nil
	}
	return f
}

// TestRestartBetweenScansCostsNothing has clamd killed and started again while sessions are kept.
func TestRestartBetweenScansCostsNothing(t *testing.T) {
	r := startReal(t)
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		p := scantest.Pool(t)
		for range 3 {
			if v := scan.Ask(t.Context(), s, scantest.Object(t, p, scan.EICAR())); v.Outcome != scan.Infected {
				t.Fatalf("EICAR is %+v", v)
			}
			if s.States()[0].Idle == 0 {
				t.Fatal("no session was kept: nothing is tested")
			}
			r.kill()
			r.start(t)
		}
	})
}

// TestRestartInMidScan kills clamd while it has an object, and starts it again.
func TestRestartInMidScan(t *testing.T) {
	r := startReal(t)
	eachTransport(t, r, func(t *testing.T, s *clamd.Scanner) {
		o := scantest.Object(t, scantest.Pool(t), scan.EICAR())
		if v := scan.Ask(t.Context(), s, o); v.Outcome != scan.Infected {
			t.Fatalf("EICAR is %+v", v)
		}
		r.signal(syscall.SIGSTOP)
		done := make(chan scan.Verdict, 1)
		go func() { done <- scan.Ask(t.Context(), s, o) }()
		for s.States()[0].Busy == 0 {
			time.Sleep(time.Millisecond)
		}
		r.kill()
		r.start(t)
		if v := <-done; v.Outcome != scan.Infected && (v.Outcome != scan.Incomplete || v.Reason != scan.Unavailable) {
			t.Errorf("EICAR is %+v", v)
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			v := scan.Ask(t.Context(), s, o)
			if v.Outcome == scan.Infected {
				break
			}
			if v.Outcome == scan.Clean || time.Now().After(end) {
				t.Fatalf("afterwards EICAR is %+v", v)
			}
		}
	})
}
