package tls

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/test/harness"
)

const passphraseEnv = "LAZARET_CA_PASSPHRASE"

// lazaret runs the program with more in its environment.
func lazaret(t *testing.T, env string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), args...)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestGatewayWithAnEncryptedKey: with the passphrase in its environment the gateway starts, hands it over to a new process of its own,
// and to no other program; without it, or with a wrong one, it says why it does not start, and makes no other CA.
func TestGatewayWithAnEncryptedKey(t *testing.T) {
	const right = "correct horse battery"
	t.Setenv(passphraseEnv, right)
	seen := filepath.Join(t.TempDir(), "environment")
	program := filepath.Join(t.TempDir(), "scanner")
	script := "#!/bin/sh\nenv >> " + seen + "\ngrep -qa ANTIVIRUS \"$1\" && exit 1\nexit 0\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	g := harness.Start(t, harness.Settings{"sandbox": "mode = \"off\"\n", "[scanner]": "type = \"command\"\ncommand = [\"" + program + "\", \"{file}\"]\nclean_codes = [0]\ninfected_codes = [1]\n"})
	if err := os.Unsetenv(passphraseEnv); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(g.CAFile())
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	key, certificate := read("ca.key"), read("ca.pem")
	if !strings.Contains(key, "BEGIN ENCRYPTED PRIVATE KEY") {
		t.Fatalf("the first start has left the key as\n%s", key)
	}
	if env, err := os.ReadFile(seen); err != nil || !strings.Contains(string(env), "PATH=") || strings.Contains(string(env), "PASSPHRASE") {
		t.Errorf("the scanner has seen (%v)\n%s", err, env)
	}

	g.Signal(t, syscall.SIGUSR2)
	if !g.Log.Logs("another process has taken over") {
		t.Fatalf("nothing has taken over\n%s", g.Log)
	}
	m := regexp.MustCompile(`"?pid"?[=:]([0-9]+)`).FindStringSubmatch(g.Log.String())
	if m == nil {
		t.Fatalf("the log has no process id\n%s", g.Log)
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) }) // it has ended by then, but for failures
	resp, err := http.Get("http://" + g.Admin + "/ca.pem")       //nolint:noctx // of this test's gateway
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the new process does not serve: %v", err)
	} else {
		resp.Body.Close()
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(t, time.Minute); err != nil { // the end of both: they write to one log
		t.Error(err)
	}

	for env, want := range map[string]string{
		"NOTHING=": "no passphrase was given", passphraseEnv + "=": "is empty", passphraseEnv + "=incorrect horse": "not that of the key",
		"CREDENTIALS_DIRECTORY=" + t.TempDir(): "no passphrase was given",
	} {
		out, err := lazaret(t, env, "run", "--config", g.Config)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s", env, err, out)
		}
	}
	if read("ca.key") != key || read("ca.pem") != certificate {
		t.Error("another CA was made")
	}
	out, err := lazaret(t, "NOTHING=", "check", "--config", g.Config)
	if err != nil || !strings.Contains(out, "was not tried") {
		t.Errorf("check: %v: %s", err, out)
	}
}

// TestPassphraseCommands sets, changes and removes one; systemd's credential opens the key.
func TestPassphraseCommands(t *testing.T) {
	dir := t.TempDir()
	state := []string{"--state-dir", filepath.Join(dir, "state")}
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	credentials := "CREDENTIALS_DIRECTORY=" + filepath.Join(dir, "credentials")
	first, second := file("first", "the first one\nand more\n"), file("second", "the second one")
	file("credentials/ca-passphrase", "the second one\n")
	// ca export opens the key; the password of the file is another matter.
	export := []string{"ca", "export", "--format", "p12", "--with-key", "--password-file", first}
	for _, step := range []struct {
		env  string
		args []string
		want string // in what is printed; "!" before it: and it fails
	}{
		{"NOTHING=", []string{"ca", "passphrase", "set", "--new-file", first}, "!there is no certificate authority"},
		{"NOTHING=", []string{"ca", "init", "--permit-domain", "school.example"}, "Kept to      school.example and all below it"},
		{"NOTHING=", []string{"ca", "passphrase", "remove"}, "!not encrypted"},
		{"NOTHING=", []string{"ca", "passphrase", "set"}, "!no terminal"},
		{"NOTHING=", []string{"ca", "passphrase", "set", "--new-file", file("short", "short\n")}, "!at least 8"},
		{"NOTHING=", []string{"ca", "passphrase", "set", "--new-file", first}, "is encrypted"},
		{"NOTHING=", []string{"ca", "passphrase", "set", "--new-file", first}, "!encrypted already"},
		{"NOTHING=", []string{"ca", "show"}, "Key          encrypted"},
		{"NOTHING=", export, "!no passphrase was given"},
		{credentials, export, "!not that of the key"},
		{passphraseEnv + "=the first one", export, ""},
		{passphraseEnv + "=wrong wrong", []string{"ca", "passphrase", "change", "--new-file", second}, "!not that of the key"},
		{"NOTHING=", []string{"ca", "passphrase", "change", "--current-file", first, "--new-file", second}, "is encrypted"},
		{credentials, export, ""},
		{"NOTHING=", []string{"ca", "rotate"}, "!no passphrase was given"},
		{credentials, []string{"ca", "rotate"}, "Kept to      school.example"},
		{"NOTHING=", []string{"ca", "show"}, "Key          encrypted"},
		{credentials, []string{"ca", "passphrase", "remove"}, "not encrypted any more"},
		{"NOTHING=", export, ""},
	} {
		want, fails := strings.CutPrefix(step.want, "!")
		out, err := lazaret(t, step.env, append(step.args, state...)...)
		if (err != nil) != fails || !strings.Contains(out, want) {
			t.Errorf("%s lazaret %v: %v: %s", step.env, step.args, err, out)
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "state", "ca", "ca.key"))
	if err != nil || !strings.Contains(string(key), "BEGIN PRIVATE KEY") {
		t.Errorf("%v: %s", err, key)
	}
}
