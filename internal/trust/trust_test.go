package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// authority returns a new CA certificate.
func authority(t *testing.T, cn string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// debian returns the real update-ca-certificates on directories of the test's own.
func debian(t *testing.T) (s system, bundle, links string) {
	t.Helper()
	tool := find("update-ca-certificates")
	if tool == "" {
		t.Skip("NOT TESTED: update-ca-certificates is not installed (Debian package ca-certificates)")
	}
	dir := t.TempDir()
	links = filepath.Join(dir, "etc-ssl-certs")
	for _, d := range []string{links, filepath.Join(dir, "hooks"), filepath.Join(dir, "share")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "ca-certificates.conf")
	if err := os.WriteFile(conf, []byte("# none of Debian's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(dir, "local")
	args := []string{"--certsconf", conf, "--certsdir", filepath.Join(dir, "share"), "--localcertsdir", local, "--etccertsdir", links, "--hooksdir", filepath.Join(dir, "hooks")}
	s = system{name: "Debian", dir: local, tool: tool, args: args, dropped: append([]string{"--fresh"}, args...), make: true}
	return s, filepath.Join(links, "ca-certificates.crt"), links
}

// verify asks openssl whether the bundle and the directory of links make it trust c.
func verify(t *testing.T, bundle, links string, c *x509.Certificate) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := func(args ...string) bool {
		out, err := exec.Command("openssl", append(append([]string{"verify", "-no-CAstore"}, args...), file)...).CombinedOutput()
		return err == nil && strings.Contains(string(out), ": OK")
	}
	byBundle := ok("-CAfile", bundle, "-no-CApath")
	if byLink := ok("-CApath", links, "-no-CAfile"); byLink != byBundle {
		t.Errorf("the bundle and the links differ about %s", c.Subject)
	}
	return byBundle
}

func TestSystemStoreOfDebian(t *testing.T) {
	s, bundle, links := debian(t)
	ctx := context.Background()
	first, second, foreign := authority(t, "first"), authority(t, "second"), authority(t, "foreign")
	step := func(r Report, state State, trusted ...*x509.Certificate) {
		t.Helper()
		t.Logf("%+v", r)
		if r.State != state || r.Place != s.dir {
			t.Fatalf("%+v, want %v", r, state)
		}
		for _, c := range []*x509.Certificate{first, second, foreign} {
			if want := slices.Contains(trusted, c); verify(t, bundle, links, c) != want {
				t.Errorf("%s is trusted: %v, want %v", c.Subject, !want, want)
			}
		}
	}
	from := []system{s}
	step(installSystem(ctx, from, []*x509.Certificate{first}), Changed, first)
	step(installSystem(ctx, from, []*x509.Certificate{first}), Unchanged, first)
	// What an administrator has put there stays.
	if err := place(s.dir, "school.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: foreign.Raw})); err != nil {
		t.Fatal(err)
	}
	step(installSystem(ctx, from, []*x509.Certificate{second, first}), Changed, first, second, foreign)
	step(installSystem(ctx, from, []*x509.Certificate{second}), Changed, second, foreign)
	step(uninstallSystem(ctx, from), Changed, foreign)
	step(uninstallSystem(ctx, from), Unchanged, foreign)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.dir), "*", "*lazaret*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Two links of the foreign one, and the bundle.
	if entries, err := os.ReadDir(links); err != nil || len(entries) != 3 {
		t.Errorf("left in %s: %v, %v", links, entries, err)
	}
}

// TestSystemStoreByDirectoryAndTool has a directory and a tool for each distribution; the tool writes down how it was called.
func TestSystemStoreByDirectoryAndTool(t *testing.T) {
	for _, model := range systems {
		t.Run(model.name, func(t *testing.T) {
			dir := t.TempDir()
			s := model
			s.dir, s.tool = filepath.Join(dir, "anchors"), filepath.Join(dir, model.tool)
			calls := filepath.Join(dir, "calls")
			if err := os.WriteFile(s.tool, []byte("#!/bin/sh\necho \"called $*\" >> "+calls+"\nls "+s.dir+" >> "+calls+"\n"), 0o700); err != nil { //nolint:gosec // a program
				t.Fatal(err)
			}
			if _, _, ok := pick([]system{s}); ok != model.make {
				t.Errorf("without its directory the system is known: %v", ok)
			}
			if err := os.MkdirAll(s.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			c := authority(t, "ca")
			if r := installSystem(context.Background(), []system{s}, []*x509.Certificate{c}); r.State != Changed {
				t.Fatal(r)
			}
			if r := uninstallSystem(context.Background(), []system{s}); r.State != Changed {
				t.Fatal(r)
			}
			b, err := os.ReadFile(calls)
			want := strings.TrimSpace("called "+strings.Join(s.args, " ")) + "\n" + name(c) + ".crt\n" + strings.TrimSpace("called "+strings.Join(s.dropped, " ")) + "\n"
			if got := strings.ReplaceAll(string(b), " \n", "\n"); err != nil || got != want {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		})
	}
}

func TestSystemStoreSaysWhatToDo(t *testing.T) {
	c := []*x509.Certificate{authority(t, "ca")}
	none := []system{{name: "x", dir: t.TempDir(), tool: "no-such-tool-at-all"}}
	if r := installSystem(context.Background(), none, c); r.State != Refused || !strings.Contains(r.Detail, "ca-certificates") {
		t.Errorf("without a tool: %+v", r)
	}
	if r := uninstallSystem(context.Background(), none); r.State != Absent {
		t.Errorf("without a tool: %+v", r)
	}
	// A tool that fails is no success, and runs again the next time although the file is there.
	bad := []system{{name: "x", dir: t.TempDir(), tool: "/bin/false"}}
	for range 2 {
		if r := installSystem(context.Background(), bad, c); r.State != Refused || !strings.Contains(r.Detail, "false") {
			t.Errorf("a tool that fails: %+v", r)
		}
	}
	if os.Geteuid() != 0 {
		locked := t.TempDir()
		if err := os.Chmod(locked, 0o500); err != nil {
			t.Fatal(err)
		}
		if r := installSystem(context.Background(), []system{{name: "x", dir: locked, tool: "/bin/true"}}, c); r.State != Refused || !strings.Contains(r.Detail, "sudo") {
			t.Errorf("without rights: %+v", r)
		}
	}
}

// database makes an NSS database.
func database(t *testing.T, dir string, args ...string) {
	t.Helper()
	if find("certutil") == "" {
		t.Skip("NOT TESTED: certutil is not installed (Debian package libnss3-tools)")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if len(args) == 0 {
		args = []string{"--empty-password"}
	}
	certutil(t, dir, append([]string{"-N"}, args...)...)
}

func certutil(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.Command(find("certutil"), append([]string{"-d", "sql:" + dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("certutil %v: %v: %s", args, err, out)
	}
	return string(out)
}

func someone(home string) User {
	return User{Name: "someone", Home: home, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} //nolint:gosec // numbers of users
}

func TestNSSDatabases(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home [of *somebody*]")
	dbs := []string{filepath.Join(home, ".pki/nssdb"), filepath.Join(home, ".mozilla/firefox/abc.default-release"), filepath.Join(home, "snap/firefox/common/.mozilla/firefox/x")}
	for _, dir := range dbs {
		database(t, dir)
	}
	if err := os.MkdirAll(filepath.Join(home, ".mozilla/firefox/Crash Reports"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	s := Stores{NSS: true, User: someone(home)}
	first, second, foreign := authority(t, "Lazaret CA 1"), authority(t, "Lazaret CA 2"), authority(t, "foreign")
	for _, dir := range dbs {
		file := filepath.Join(t.TempDir(), "f.pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: foreign.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		certutil(t, dir, "-A", "-n", "not lazaret's", "-t", "C,,", "-i", file)
	}
	step := func(reports []Report, state State, trusted ...*x509.Certificate) {
		t.Helper()
		if len(reports) != len(dbs) {
			t.Fatalf("%d reports: %+v", len(reports), reports)
		}
		for _, r := range reports {
			if r.State != state || !slices.Contains(dbs, r.Place) {
				t.Errorf("%+v, want %v", r, state)
			}
			list := certutil(t, r.Place, "-L")
			if !strings.Contains(list, "not lazaret's") {
				t.Errorf("another's certificate has gone:\n%s", list)
			}
			for _, c := range []*x509.Certificate{first, second} {
				want := slices.Contains(trusted, c)
				if strings.Contains(list, name(c)) != want {
					t.Errorf("%s is there: %v:\n%s", c.Subject, !want, list)
				}
				// -u L: may it issue certificates of TLS servers?
				err := exec.Command(find("certutil"), "-d", "sql:"+r.Place, "-V", "-n", name(c), "-u", "L").Run()
				if (err == nil) != want {
					t.Errorf("NSS trusts %s: %v, want %v", c.Subject, err == nil, want)
				}
			}
		}
	}
	install := func(certs ...*x509.Certificate) []Report {
		t.Helper()
		r, err := Install(ctx, s, certs)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	step(install(first), Changed, first)
	step(install(first), Unchanged, first)
	step(install(second, first), Changed, first, second)
	step(install(second), Changed, second)
	step(Uninstall(ctx, s, nil), Changed)
	step(Uninstall(ctx, s, nil), Unchanged)
	if _, err := Install(ctx, s, nil); err == nil {
		t.Error("nothing was installed without an error")
	}
}

// TestNSSKnowsWhatWasImportedByHand has a certificate in the database under the name that somebody has given it.
func TestNSSKnowsWhatWasImportedByHand(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".pki/nssdb")
	database(t, dir)
	c := authority(t, "Lazaret CA")
	file := filepath.Join(t.TempDir(), "c.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	certutil(t, dir, "-A", "-n", "my lazaret", "-t", "C,,", "-i", file)
	s := Stores{NSS: true, User: someone(home)}
	r, err := Install(context.Background(), s, []*x509.Certificate{c})
	if err != nil || len(r) != 1 || r[0].State != Unchanged {
		t.Errorf("%v: %+v", err, r)
	}
	if r := Uninstall(context.Background(), s, nil); r[0].State != Unchanged {
		t.Errorf("not known to be ours, and yet: %+v", r)
	}
	if r := Uninstall(context.Background(), s, []*x509.Certificate{c}); r[0].State != Changed || strings.Contains(certutil(t, dir, "-L"), "lazaret") {
		t.Errorf("%+v", r)
	}
}

func TestNSSSaysWhatToDo(t *testing.T) {
	c := []*x509.Certificate{authority(t, "ca")}
	install := func(home string) Report {
		t.Helper()
		r, err := Install(context.Background(), Stores{NSS: true, User: someone(home)}, c)
		if err != nil || len(r) != 1 {
			t.Fatalf("%v: %+v", err, r)
		}
		return r[0]
	}
	if r := install(t.TempDir()); r.State != Absent || !strings.Contains(r.Detail, "start Chromium") {
		t.Errorf("without a database: %+v", r)
	}
	if r := install(""); r.State != Refused {
		t.Errorf("without a home: %+v", r)
	}
	// Of a database with a password the certificate is not left there without trust.
	home := t.TempDir()
	dir, file := filepath.Join(home, ".mozilla/firefox/p"), filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	database(t, dir, "-f", file)
	if r := install(home); r.State != Refused || !strings.Contains(r.Detail, "password") || strings.Contains(certutil(t, dir, "-L"), "lazaret") {
		t.Errorf("with a password: %+v\n%s", r, certutil(t, dir, "-L"))
	}
	// One that is broken is no success either.
	broken := filepath.Join(t.TempDir(), ".pki/nssdb")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "cert9.db"), bytes.Repeat([]byte("x"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := install(filepath.Dir(filepath.Dir(broken))); r.State != Refused || r.Detail == "" {
		t.Errorf("a broken database: %+v", r)
	}
}

// TestSudoWorksOnTheCallersStores: under sudo the databases are those of who called it, and stay theirs.
func TestSudoWorksOnTheCallersStores(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: becoming another user needs root")
	}
	t.Setenv("SUDO_USER", "nobody")
	u, err := CallingUser()
	if err != nil || u.Name != "nobody" || u.UID == 0 {
		t.Fatalf("%+v, %v", u, err)
	}
	home, err := os.MkdirTemp("", "lazaret-trust-") // below TempDir of a test nobody else may go
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	u.Home = home
	dir := filepath.Join(home, ".pki/nssdb")
	database(t, dir)
	if out, err := exec.Command("chown", "-R", strconv.Itoa(int(u.UID)), home).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := Install(context.Background(), Stores{NSS: true, User: u}, []*x509.Certificate{authority(t, "ca")})
	if err != nil || len(r) != 1 || r[0].State != Changed {
		t.Fatalf("%v: %+v", err, r)
	}
	out, err := exec.Command("find", home, "!", "-uid", strconv.Itoa(int(u.UID))).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("files that the user does not own: %v: %s", err, out)
	}
	t.Setenv("SUDO_USER", "no such user")
	if _, err := CallingUser(); err == nil {
		t.Error("an unknown SUDO_USER is taken for nobody")
	}
}
