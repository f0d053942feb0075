package tls

import (
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lazaret/test/harness"
)

// ownStores runs a script in which this machine's trust stores are a copy: what is done to them is gone with the script. The
// arguments are $1 and so on.
func ownStores(t *testing.T, home, script string, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: mount namespaces need root")
	}
	work := t.TempDir()
	mounts := `set -eu
work=$1 && shift
mount --make-rprivate /
for dir in /etc/ssl /usr/local/share /etc/ca-certificates; do
	mkdir -p "$work$dir" && cp -a "$dir/." "$work$dir/" && mount --bind "$work$dir" "$dir"
done
mkdir -p /usr/local/share/ca-certificates
find /etc/ssl /usr/local/share | grep -i lazaret && exit 9
` + script + `
find /etc/ssl /usr/local/share | grep -i lazaret && exit 8 || true
`
	cmd := exec.Command("sh", append([]string{"-c", mounts, "sh", work}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Env = append(os.Environ(), "HOME="+home, "SUDO_USER=")
	out, err := cmd.CombinedOutput()
	if err != nil && (strings.Contains(string(out), "mount:") || strings.Contains(err.Error(), "fork/exec")) {
		t.Skipf("NOT TESTED: this machine makes no mount namespaces: %v: %s", err, out)
	}
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return string(out)
}

// TestInstalledCAIsTrusted has "lazaret ca install" put the CA into the system's store and Chromium's. Then curl, which is told
// of no certificate, fetches through the proxy; so it does while a rotation lasts; and after "ca uninstall" no longer.
func TestInstalledCAIsTrusted(t *testing.T) {
	ca := harness.NewCA(t)
	o := serve(t, &tls.Config{Certificates: []tls.Certificate{ca.Leaf(t, nil, "localhost", "127.0.0.1")}})
	g := harness.Start(t, nil, ca.File)
	home := t.TempDir()
	nss := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(nss, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("certutil", "-N", "-d", "sql:"+nss, "--empty-password").CombinedOutput(); err != nil {
		t.Fatalf("certutil (Debian package libnss3-tools): %v\n%s", err, out)
	}
	out := ownStores(t, home, `
lazaret=$1 config=$2 proxy=$3 url=$4 nss=$5
visit() { curl -sS -m 30 -x "http://$proxy" "$url"; }
count() { certutil -L -d "sql:$nss" | grep -c 'lazaret-.*C,,' || true; }
visit && exit 2 || true
"$lazaret" ca install --config "$config"
[ "$(visit)" = hello ] || exit 3
[ "$(count)" = 1 ] || exit 4
"$lazaret" ca install --config "$config" | grep -c '^unchanged' | grep -qx 2 || exit 5
"$lazaret" ca rotate --config "$config"
"$lazaret" ca install --config "$config"
[ "$(visit)" = hello ] || exit 6
[ "$(count)" = 2 ] || exit 7
"$lazaret" ca uninstall --config "$config"
visit && exit 10 || true
[ "$(count)" = 0 ] || exit 11
`, harness.Binary(t), g.Config, g.Proxy, "https://"+o.addr+"/", nss)
	t.Log(out)
	if o.requests.Load() != 2 {
		t.Errorf("%d requests have reached the origin, not 2", o.requests.Load())
	}
}
