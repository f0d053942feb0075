package supervise_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// helperEnv has the test binary run a clamd and wait, for the test that kills it.
const helperEnv = "LAZARET_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if conf := os.Getenv(helperEnv); conf != "" {
		os.Exit(superviseUntilKilled(conf))
	}
	os.Exit(m.Run())
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// database makes a directory of signatures that everybody may read.
func database(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lzr-db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum(scan.EICAR())
	add(t, dir, "eicar.hdb", hex.EncodeToString(sum[:])+":68:Eicar-Test\n")
	addBody(t, dir, "Eicar-Body", scan.EICAR())
	return dir
}

func add(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func addBody(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	add(t, dir, name+".ndb", name+":0:*:"+hex.EncodeToString(content)+"\n")
}

func config(t testing.TB) supervise.Config {
	t.Helper()
	if _, err := supervise.FindProgram(); err != nil {
		t.Skip(err)
	}
	cfg := supervise.Default()
	cfg.Dir, cfg.Database = filepath.Join(t.TempDir(), "clamd"), database(t)
	cfg.MaxObject, cfg.MaxHTML = 2*units.MiB, units.MiB
	return cfg
}

// output collects a log.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) has(part string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Contains(o.b.String(), part)
}

func logTo(o *output) *slog.Logger {
	return slog.New(slog.NewTextHandler(o, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// run starts a clamd of cfg and a client for it, both of which end with the test.
func run(t *testing.T, cfg supervise.Config) (*supervise.Supervisor, *clamd.Scanner, *output) {
	t.Helper()
	out := &output{}
	s, err := supervise.New(cfg, logTo(out))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatalf("Start: %v\n%s", err, out.b.String())
	}
	c, err := s.Scanner()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, c, out
}

func expect(t *testing.T, s scan.Scanner, what string, content []byte, want scan.Outcome, reason scan.Reason) {
	t.Helper()
	v := scan.Ask(t.Context(), s, scantest.Object(t, scantest.Pool(t), content))
	if v.Outcome != want || v.Reason != reason {
		t.Errorf("%s: %+v, want %v %s", what, v, want, reason)
	}
}

func TestSupervisedClamdScans(t *testing.T) {
	s, c, out := run(t, config(t))
	if err := scan.Prove(t.Context(), scantest.Pool(t), c); err != nil {
		t.Fatal(err)
	}
	eicar := scan.EICAR()
	expect(t, c, "at the limit", append(scantest.Text(2<<20-len(eicar)), eicar...), scan.Infected, "")
	expect(t, c, "above the limit", append(scantest.Text(2<<20), eicar...), scan.Incomplete, scan.TooLarge)
	html := append([]byte("<html>"), scantest.Text(1<<20)...)
	expect(t, c, "HTML at the limit", html[:1<<20], scan.Clean, "")
	expect(t, c, "HTML above the limit", html, scan.Incomplete, scan.TooLarge)
	eventually(t, "it counts as unpacking", c.Unpacks)
	eventually(t, "it has a version", func() bool { v, ok := c.Version(); return ok && strings.HasPrefix(v.Engine, "ClamAV ") })
	st := s.State()
	if !st.Ready || st.PID == 0 || st.Restarts != 0 {
		t.Errorf("the state is %+v", st)
	}
	if !out.has("clamd runs") || !out.has("clamd: Limits") {
		t.Errorf("clamd's log is not carried over: %s", out.b.String())
	}
	if got := supervise.Find(t.Context(), []string{"unix:/nonexistent/socket", s.Address(), "tcp:127.0.0.1:1", s.Address()}); !slices.Equal(got, []string{s.Address()}) {
		t.Errorf("Find: %q", got)
	}
	if os.Geteuid() == 0 {
		status, err := os.ReadFile("/proc/" + strconv.Itoa(st.PID) + "/status")
		if err != nil || bytes.Contains(status, []byte("\nUid:\t0")) {
			t.Errorf("clamd runs as root: %v", err)
		}
	}
}

// TestMD5CollisionIsNotAnsweredFromMemory asks about a harmless file, and then about a harmful one with the same MD5.
func TestMD5CollisionIsNotAnsweredFromMemory(t *testing.T) {
	harmless, harmful := collision(t)
	cfg := config(t)
	addBody(t, cfg.Database, "Collision", harmful)
	_, c, _ := run(t, cfg)
	for range 2 {
		expect(t, c, "harmless", harmless, scan.Clean, "")
		expect(t, c, "harmful, with the same MD5", harmful, scan.Infected, "")
	}
	remembering := cfg
	remembering.Dir, remembering.Cache = filepath.Join(t.TempDir(), "other"), true
	_, c, _ = run(t, remembering)
	expect(t, c, "harmless", harmless, scan.Clean, "")
	v := scan.Ask(t.Context(), c, scantest.Object(t, scantest.Pool(t), harmful))
	t.Logf("with clamd's own cache the harmful one is %v", v.Outcome)
}

// collision returns two files with the same MD5, found by X. Wang and others in 2004.
func collision(t *testing.T) (a, b []byte) {
	t.Helper()
	a, err := hex.DecodeString("d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f89" +
		"55ad340609f4b30283e488832571415a085125e8f7cdc99fd91dbdf280373c5b" +
		"d8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0" +
		"e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70")
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Clone(a)
	for _, i := range []int{19, 45, 59, 83, 109, 123} {
		b[i] ^= 0x80
	}
	if md5.Sum(a) != md5.Sum(b) || bytes.Equal(a, b) {
		t.Fatal("the files do not collide")
	}
	return a, b
}

func TestEncryptedArchiveIsIncomplete(t *testing.T) {
	_, c, _ := run(t, config(t))
	// A ZIP archive with one stored member whose headers say that it is encrypted.
	b := []byte("PK\x03\x04\x0a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00\x14\x00\x00\x00\x01\x00\x00\x00a" + strings.Repeat("x", 20) +
		"PK\x01\x02\x0a\x00\x0a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00\x14\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a" +
		"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00\x2f\x00\x00\x00\x33\x00\x00\x00\x00\x00")
	expect(t, c, "encrypted", b, scan.Incomplete, scan.Encrypted)
}

func TestKilledClamdIsStartedAgain(t *testing.T) {
	s, c, out := run(t, config(t))
	expect(t, c, "before", scan.EICAR(), scan.Infected, "")
	before := s.State()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another one is ready", func() bool {
		st := s.State()
		return st.Ready && st.PID != before.PID && st.Restarts == 1
	})
	eventually(t, "it scans", func() bool {
		v := scan.Ask(t.Context(), c, scantest.Object(t, scantest.Pool(t), scan.EICAR()))
		if v.Outcome == scan.Clean {
			t.Fatal("EICAR is clean")
		}
		return v.Outcome == scan.Infected
	})
	if !out.has("started again") || !out.has("killed") {
		t.Errorf("nothing is said of it: %s", out.b.String())
	}
}

func TestReloadChangesTheVersion(t *testing.T) {
	cfg := config(t)
	s, c, _ := run(t, cfg)
	before := s.Loaded()
	if before == "" {
		t.Fatal("it has loaded nothing")
	}
	fresh := []byte("a threat that is new today")
	expect(t, c, "before", fresh, scan.Clean, "")
	addBody(t, cfg.Database, "Fresh", fresh)
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the version changes", func() bool { return s.Loaded() != before })
	eventually(t, "the new signature is used", func() bool {
		return scan.Ask(t.Context(), c, scantest.Object(t, scantest.Pool(t), fresh)).Outcome == scan.Infected
	})
}

func TestStartSaysWhyItFails(t *testing.T) {
	cfg := config(t)
	add(t, cfg.Database, "broken.ndb", "this is no signature\n")
	s, err := supervise.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "Malformed database") {
		t.Errorf("Start with a broken database: %v", err)
	}
	if st := s.State(); st.PID != 0 || st.Ready {
		t.Errorf("the state is %+v", st)
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	empty := t.TempDir()
	add(t, empty, "freshclam.dat", "x")
	notProgram := filepath.Join(t.TempDir(), "clamd")
	add(t, filepath.Dir(notProgram), "clamd", "not executable")
	for _, c := range []struct {
		want   string
		change func(*supervise.Config)
	}{
		{"is empty: run freshclam", func(c *supervise.Config) { c.Database = empty }},
		{"does not exist: install freshclam", func(c *supervise.Config) { c.Database = filepath.Join(empty, "none") }},
		{"program: ", func(c *supervise.Config) { c.Program = filepath.Join(empty, "none") }},
		{"program: ", func(c *supervise.Config) { c.Program = notProgram }},
		{"dir: is missing", func(c *supervise.Config) { c.Dir = "" }},
		{"max_object: ", func(c *supervise.Config) { c.MaxObject = 1 }},
		{"max_html: ", func(c *supervise.Config) { c.MaxHTML = 1 }},
		{"threads: ", func(c *supervise.Config) { c.Threads = -1 }},
		{"timeout: ", func(c *supervise.Config) { c.Timeout = 0 }},
		{"start_timeout: ", func(c *supervise.Config) { c.StartTimeout = 0 }},
		{"database: ", func(c *supervise.Config) { c.Database = "/a\nUser root" }},
	} {
		cfg := config(t)
		c.change(&cfg)
		s, err := supervise.New(cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			_ = s.Close()
			t.Errorf("want %q, and New takes it", c.want)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("the error is %q, want %q in it", err, c.want)
		}
	}
}

func TestTwoCannotShareADirectory(t *testing.T) {
	cfg := config(t)
	a, err := supervise.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := supervise.New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second one: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := supervise.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("after the first one ended: %v", err)
	}
	_ = b.Close()
}

func TestLongPathsWorkToo(t *testing.T) {
	cfg := config(t)
	cfg.Dir = filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	s, c, _ := run(t, cfg)
	if len(s.Address()) > 112 {
		t.Errorf("the address is %s", s.Address())
	}
	expect(t, c, "EICAR", scan.EICAR(), scan.Infected, "")
	dir := filepath.Dir(strings.TrimPrefix(s.Address(), "unix:"))
	_ = c.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", dir, err)
	}
}

func TestCloseEndsClamd(t *testing.T) {
	s, _, _ := run(t, config(t))
	pid := s.State().PID
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("process %d is still there", pid)
	}
}

// superviseUntilKilled is the other side of TestClamdEndsWithUs: it says which process clamd is, and waits.
func superviseUntilKilled(conf string) int {
	dir, db, _ := strings.Cut(conf, "|")
	cfg := supervise.Default()
	cfg.Dir, cfg.Database = dir, db
	s, err := supervise.New(cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		err = s.Start(context.Background())
	}
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println(s.State().PID)
	time.Sleep(time.Minute)
	return 0
}

func TestClamdEndsWithUs(t *testing.T) {
	cfg := config(t)
	cfg.Dir = filepath.Join(t.TempDir(), strings.Repeat("long", 30)) // too long for a socket
	temporary, err := os.MkdirTemp("", "lzr")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	if err := os.Chmod(temporary, 0o711); err != nil { //nolint:gosec // clamd's account passes through
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temporary)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+cfg.Dir+"|"+cfg.Database)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 1000)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatalf("the other process says %q", line[:n])
	}
	comm := func() string {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		return strings.TrimSpace(string(b))
	}
	if comm() != "clamd" {
		t.Fatalf("process %d is %q", pid, comm())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "clamd ends too", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || bytes.Contains(stat, []byte(") Z ")) || comm() != "clamd"
	})
	// What the killed one has left behind is removed by the next one.
	before, err := filepath.Glob(filepath.Join(temporary, "lazaret-clamd-*"))
	if err != nil || len(before) != 1 {
		t.Fatalf("the killed one has left %q, %v: want one directory", before, err)
	}
	s, err := supervise.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := filepath.Glob(filepath.Join(temporary, "lazaret-clamd-*")); err != nil || len(after) != 0 {
		t.Errorf("left behind: %q, %v", after, err)
	}
}

func TestUsualAddressesCanBeParsed(t *testing.T) {
	cfg := clamd.Default()
	cfg.Addresses = supervise.UsualAddresses()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
