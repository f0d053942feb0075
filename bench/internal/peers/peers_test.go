package peers

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
)

func have(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed: ./scripts/peers installs it", program)
	}
}

// socketDir is short enough for the path of a unix socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lazaret-peers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func talk(t *testing.T, socket string, request []byte) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(b), "\x00")
}

// The database must have a version, or a gateway that remembers verdicts does not, and it must find EICAR.
func TestClamdHasAVersionAndFindsEICAR(t *testing.T) {
	have(t, "clamd")
	c, err := StartClamd(t.Context(), socketDir(t), Database{Bodies: 50, Hashes: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if v := talk(t, c.Socket, []byte("zVERSION\x00")); !regexp.MustCompile(`^ClamAV [0-9.]+/1/.+ 20\d\d$`).MatchString(v) {
		t.Errorf("the version is %q", v)
	}
	body := scan.EICAR()
	request := append([]byte("zINSTREAM\x00\x00\x00\x00"), byte(len(body)))
	request = append(append(request, body...), 0, 0, 0, 0)
	if v := talk(t, c.Socket, request); !strings.Contains(v, "Eicar-Test-Signature") || !strings.HasSuffix(v, "FOUND") {
		t.Errorf("EICAR: %q", v)
	}
	c.Stop()
	if c.Running() {
		t.Error("clamd still runs")
	}
}

func TestDatabaseIsTheSameEachTime(t *testing.T) {
	var files [2][]byte
	for i := range files {
		dir := t.TempDir()
		if err := (Database{Bodies: 100, Hashes: 100}).write(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"bench.ndb", "bench.hsb"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte("\n")); n < 100 {
				t.Errorf("%s has %d lines", name, n)
			}
			files[i] = append(files[i], b...)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two databases of the same size differ")
	}
}

// What Squid needs beyond its program must be there, or a run ends after minutes.
func TestSquidScansAndIsStopped(t *testing.T) {
	for _, p := range []string{"clamd", "squid", "c-icap"} {
		have(t, p)
	}
	dir := socketDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clamd, err := StartClamd(t.Context(), dir, Database{Bodies: 1, Hashes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer clamd.Stop()
	ca := filepath.Join(dir, "origin-ca.pem")
	if err := writeCA(filepath.Join(dir, "unused.pem"), ca); err != nil {
		t.Fatal(err)
	}
	i := len(Alternatives) - 1
	for Alternatives[i].Name != SquidScan {
		i--
	}
	r, err := Alternatives[i].Start(t.Context(), Env{Dir: dir, OriginCA: ca, ClamdSocket: clamd.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	if err := r.Health(); err != nil || len(r.PIDs()) != 2 {
		t.Errorf("%d processes, %v", len(r.PIDs()), err)
	}
	if _, err := r.Roots(); err != nil {
		t.Error(err)
	}
	r.Stop()
	if r.Health() == nil {
		t.Error("processes run after Stop")
	}
}

func TestLazaretMissing(t *testing.T) {
	_, err := startLazaret(t.Context(), Env{Dir: t.TempDir(), Lazaret: filepath.Join(t.TempDir(), "none")}, "lazaret", "")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("got %v", err)
	}
}

func TestChildThatEndsAtOnceIsExplained(t *testing.T) {
	c, err := Start("broken", t.TempDir(), "sh", "-c", "echo the disk is full >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = c.WaitReady(t.Context(), time.Minute, func() error { return errors.New("nobody answers") })
	if err == nil || !strings.Contains(err.Error(), "the disk is full") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}

// Stop must end what ignores SIGTERM, and what it has started.
func TestStopEndsTheFamily(t *testing.T) {
	c, err := Start("stubborn", t.TempDir(), "sh", "-c", `trap "" TERM; sleep 600 & echo $! >&2; wait; wait; sleep 600`)
	if err != nil {
		t.Fatal(err)
	}
	var pid string
	for pid == "" {
		b, err := os.ReadFile(c.log)
		if err != nil {
			t.Fatal(err)
		}
		pid = strings.TrimSpace(string(b))
		time.Sleep(5 * time.Millisecond)
	}
	c.Stop()
	for range 500 {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s was left behind", pid)
}
