package sandbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// prisonEnv has the test binary enter the sandbox, and try to get out.
const prisonEnv = "LAZARET_TEST_PRISON"

func TestMain(m *testing.M) {
	switch os.Getenv(prisonEnv) {
	case "":
		os.Exit(m.Run())
	case "user":
		// As root it does not come back: the program is started anew.
		err := BecomeUser("nobody")
		fmt.Printf("user %t: %v\n", os.Geteuid() != 0, err)
	case "again":
		for i := range 20 {
			if _, err := Enter(Default(), Needs{}); err != nil {
				fmt.Printf("time %d: %v\n", i+1, err)
				os.Exit(1)
			}
		}
		_, err := os.ReadFile("/root/.bashrc")
		fmt.Printf("outside: %v\n", err)
	default:
		prisoner(os.Getenv(prisonEnv))
	}
}

// prisoner enters with dir as its only folder to write to, and prints what each attempt came to.
func prisoner(dir string) {
	inForce, err := Enter(Default(), Needs{Read: []string{filepath.Join(dir, "settings")}, Write: []string{filepath.Join(dir, "state")}, Exec: []string{filepath.Join(dir, "scanner"), "cat"}})
	fmt.Printf("entered: %s, %v\n", strings.Join(inForce, ", "), err)
	say := func(what string, err error) { fmt.Printf("%s: %v\n", what, err) }
	_, err = os.ReadFile(filepath.Join(dir, "settings", "a"))
	say("read settings", err)
	say("write settings", os.WriteFile(filepath.Join(dir, "settings", "b"), nil, 0o600))
	say("write state", os.WriteFile(filepath.Join(dir, "state", "a"), []byte("x"), 0o600))
	_, err = os.ReadFile(filepath.Join(dir, "secret"))
	say("read secret", err)
	say("write /etc", os.WriteFile("/etc/lazaret-was-here", nil, 0o600))
	say("start scanner", exec.Command(filepath.Join(dir, "scanner")).Run())
	say("start cat", exec.Command("cat", "/etc/hostname").Run())
	say("start ls", exec.Command("/bin/ls").Run())
	say("start from state", func() error {
		path := filepath.Join(dir, "state", "mine")
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
			return fmt.Errorf("writing it: %w", err)
		}
		return exec.Command(path).Run()
	}())
	out, err := exec.Command("cat", filepath.Join(dir, "secret")).CombinedOutput()
	say("read secret by a child", fmt.Errorf("%w %s", err, out))
	say("mount", unix.Mount("none", filepath.Join(dir, "state"), "tmpfs", 0, ""))
	say("ptrace", unix.PtraceAttach(os.Getppid()))
	say("unshare", unix.Unshare(unix.CLONE_NEWNS))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		err = l.Close()
	}
	say("listen", err)
}

func TestNobodyEscapes(t *testing.T) {
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 3 {
		t.Skipf("NOT TESTED: this kernel's Landlock has version %d: %v", abi, err)
	}
	// Not below the temporary folder, which may be written to.
	dir, err := os.MkdirTemp(home(t), "prison")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"settings", "state", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"settings/a": "x", "secret": "TOP SECRET", "scanner": "#!/bin/sh\nexit 0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	// The checkout itself may be below the usual temporary folder.
	cmd.Env = append(os.Environ(), prisonEnv+"="+dir, "TMPDIR="+filepath.Join(dir, "tmp"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		what, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[what] = result
	}
	for _, may := range []string{"read settings", "write state", "start scanner", "start cat", "listen"} {
		if got[may] != "<nil>" {
			t.Errorf("%s: %s", may, got[may])
		}
	}
	for _, not := range []string{"write settings", "read secret", "write /etc", "start ls", "start from state", "read secret by a child", "mount", "ptrace", "unshare"} {
		if r := got[not]; !strings.Contains(strings.ToLower(r), "permission denied") && !strings.Contains(r, "operation not permitted") {
			t.Errorf("%s: %q", not, r)
		}
	}
	if strings.Contains(string(out), "TOP SECRET") || !strings.Contains(got["entered"], "Landlock") || !strings.Contains(got["entered"], "seccomp") {
		t.Errorf("%s", out)
	}
}

// TestManyUpgrades lays one sandbox over another, as a row of upgrades does, more often than the kernel has places for.
func TestManyUpgrades(t *testing.T) {
	if abi, err := ll.LandlockGetABIVersion(); err != nil || abi < 3 {
		t.Skipf("NOT TESTED: this kernel's Landlock has version %d: %v", abi, err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), prisonEnv+"=again")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("%v: %s", err, out)
	}
}

// home is a folder outside of the temporary ones.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRootIsGivenUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can give root up")
	}
	// The program must be one that nobody may start.
	dir, err := os.MkdirTemp("", "prison")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "test")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), prisonEnv+"=user")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	out, err := cmd.CombinedOutput()
	// Started anew as nobody, it is no root any more, and says nothing of an error.
	if err != nil || strings.TrimSpace(string(out)) != "user true: <nil>" {
		t.Errorf("%v: %s", err, out)
	}
	if err := BecomeUser("no-such-user-here"); err == nil {
		t.Error("a user that is not there is nobody's fault")
	}
}

func TestSettings(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Mode: "maybe", Read: []string{"relative"}, Exec: []string{"ls"}}.Validate()
	for _, key := range []string{"mode:", "read:", "exec:"} {
		if err == nil || !slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(l string) bool { return strings.HasPrefix(l, key) }) {
			t.Errorf("nothing about %s in %v", key, err)
		}
	}
}

func FuzzInterpreter(f *testing.F) {
	for _, s := range []string{"#!/bin/sh\n", "#! /usr/bin/env perl\n", "#!", "\x7fELF", ""} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := interpreter(path); strings.ContainsAny(got, " \n\t") {
			t.Errorf("%q has the interpreter %q", b, got)
		}
	})
}
