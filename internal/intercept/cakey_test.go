package intercept

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKeyWithAPassphrase(t *testing.T) {
	right := []byte("correct horse")
	store := CAStore{Dir: filepath.Join(t.TempDir(), "ca"), Passphrase: right}
	ca, created, err := store.LoadOrInit()
	if err != nil || !created || !ca.Encrypted() {
		t.Fatalf("%v, created %v", err, created)
	}
	key, err := os.ReadFile(store.keyPath())
	if err != nil || !bytes.HasPrefix(key, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")) || bytes.Count(key, []byte("BEGIN")) != 1 {
		t.Fatalf("%v: the key's file is\n%s", err, key)
	}
	if yes, err := store.Encrypted(); !yes || err != nil {
		t.Errorf("encrypted %v, %v", yes, err)
	}
	before := filesIn(t, store.Dir)
	for name, tc := range map[string]struct {
		passphrase string
		want       error
	}{
		"missing": {"", ErrNoPassphrase}, "wrong": {"correct horsf", ErrWrongPassphrase}, "longer": {"correct horse ", ErrWrongPassphrase},
		"short": {"c", ErrWrongPassphrase},
	} {
		s := CAStore{Dir: store.Dir, Passphrase: []byte(tc.passphrase)}
		if _, created, err := s.LoadOrInit(); created || !errors.Is(err, tc.want) || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: created %v, %v", name, created, err)
		}
		if _, err := s.Rotate(0); !errors.Is(err, tc.want) {
			t.Errorf("%s: rotated: %v", name, err)
		}
		if err := s.SetPassphrase([]byte("another passphrase")); !errors.Is(err, tc.want) {
			t.Errorf("%s: changed: %v", name, err)
		}
	}
	if filesIn(t, store.Dir) != before {
		t.Error("the files were changed")
	}
	again, err := store.Load()
	if err != nil || !again.Certificate().Equal(ca.Certificate()) {
		t.Fatal(err)
	}
	if _, err := store.Read(); err != nil { // needs no passphrase
		t.Error(err)
	}
	if next, err := store.Rotate(0); err != nil || !next.Encrypted() {
		t.Errorf("a rotation: %v", err)
	}
	// A rotation that is under way has the next key encrypted, too, and its passphrase changed with the other one's.
	if _, err := store.Rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := store.SetPassphrase([]byte("another passphrase")); err != nil {
		t.Fatal(err)
	}
	if _, err := store.FinishRotation(); !errors.Is(err, ErrWrongPassphrase) {
		t.Errorf("the former passphrase: %v", err)
	}
	store.Passphrase = []byte("another passphrase")
	if ca, err := store.Load(); err != nil || ca.Rotation() == nil {
		t.Errorf("the rotation that could not be finished has left %v, %v", ca, err)
	}
	if next, err := store.FinishRotation(); err != nil || !next.Encrypted() {
		t.Errorf("a rotation: %v", err)
	}
}

// TestOpenSSLReadsTheEncryptedKey in both directions: operators have keys that OpenSSL has encrypted.
func TestOpenSSLReadsTheEncryptedKey(t *testing.T) {
	store := CAStore{Dir: filepath.Join(t.TempDir(), "ca"), Passphrase: []byte("correct horse")}
	ca, err := store.Init()
	if err != nil {
		t.Fatal(err)
	}
	openssl := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("openssl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
		return out
	}
	plain := openssl("pkey", "-in", store.keyPath(), "-passin", "pass:correct horse")
	if key, encrypted, err := parseKey(plain, nil); err != nil || encrypted || !ca.key.Public().(*ecdsa.PublicKey).Equal(key.Public()) {
		t.Errorf("openssl gives another key: %v", err)
	}
	if out, err := exec.Command("openssl", "pkey", "-in", store.keyPath(), "-passin", "pass:wrong horse").CombinedOutput(); err == nil {
		t.Errorf("openssl opens it with a wrong passphrase: %s", out)
	}
	for _, how := range [][]string{{"-v2", "aes-256-cbc"}, {"-v2", "aes-128-cbc", "-iter", "10000"}, {"-scrypt"}} {
		other := filepath.Join(t.TempDir(), "key.pem")
		in := filepath.Join(t.TempDir(), "plain.pem")
		writeFile(t, in, plain)
		openssl(append([]string{"pkcs8", "-topk8", "-in", in, "-out", other, "-passout", "pass:battery staple"}, how...)...)
		b, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, encrypted, err := parseKey(b, []byte("battery staple")); err != nil || !encrypted {
			t.Errorf("%v: %v", how, err)
		}
		if _, _, err := parseKey(b, []byte("battery")); !errors.Is(err, ErrWrongPassphrase) {
			t.Errorf("%v: a wrong passphrase: %v", how, err)
		}
	}
}

func TestPassphraseIsSetChangedAndRemoved(t *testing.T) {
	store := CAStore{Dir: filepath.Join(t.TempDir(), "ca")}
	ca, err := store.Init()
	if err != nil {
		t.Fatal(err)
	}
	first, second := []byte("the first one"), []byte("the second one")
	for _, step := range []struct{ is, will []byte }{{nil, first}, {first, second}, {second, nil}, {nil, nil}} {
		if err := (CAStore{Dir: store.Dir, Passphrase: step.is}).SetPassphrase(step.will); err != nil {
			t.Fatalf("%q to %q: %v", step.is, step.will, err)
		}
		got, err := (CAStore{Dir: store.Dir, Passphrase: step.will}).Load()
		if err != nil || !got.Certificate().Equal(ca.Certificate()) || got.Encrypted() != (step.will != nil) {
			t.Errorf("%q to %q: %v", step.is, step.will, err)
		}
		if st, err := os.Stat(store.keyPath()); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
	}
	for _, bad := range []string{"short", strings.Repeat("x", 2000), "two\nlines of it"} {
		if err := store.SetPassphrase([]byte(bad)); err == nil {
			t.Errorf("%.10q is taken", bad)
		}
		if _, err := (CAStore{Dir: filepath.Join(t.TempDir(), "ca"), Passphrase: []byte(bad)}).Init(); err == nil {
			t.Errorf("%.10q is taken for a new CA", bad)
		}
	}
}

// TestRootDoesNotTakeTheKeyAway: a command run as root leaves the key to the user that runs the gateway.
func TestRootDoesNotTakeTheKeyAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: giving files away needs root")
	}
	file := filepath.Join(t.TempDir(), "ca.key")
	writeFile(t, file, []byte("old"))
	if err := os.Chown(file, 12345, 54321); err != nil {
		t.Fatal(err)
	}
	if err := replace(file, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("stat", "-c", "%u %g %a", file).Output()
	if b, e := os.ReadFile(file); err != nil || e != nil || string(b) != "new" || strings.TrimSpace(string(out)) != "12345 54321 600" {
		t.Errorf("%s, %q, %v, %v", out, b, err, e)
	}
}

// TestRootReadsTheKeyOfTheGatewaysUser: root's commands (lazaret doctor, lazaret ca) work on a CA that belongs, folder and all, to
// the gateway's own user; a key that yet another user put there is none of theirs.
func TestRootReadsTheKeyOfTheGatewaysUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: giving files away needs root")
	}
	store := CAStore{Dir: filepath.Join(t.TempDir(), "ca")}
	if _, err := store.Init(); err != nil {
		t.Fatal(err)
	}
	give := func(path string, user int) {
		t.Helper()
		if err := os.Chown(path, user, -1); err != nil {
			t.Fatal(err)
		}
	}
	give(store.keyPath(), 12345)
	if _, err := store.Load(); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("a key of a stranger: %v", err)
	}
	give(store.Dir, 12345)
	if _, err := store.Load(); err != nil {
		t.Errorf("the gateway's key, as root: %v", err)
	}
	give(store.Dir, 12346)
	if _, err := store.Load(); err == nil {
		t.Error("a key of a stranger in the gateway's folder is taken")
	}
}

// FuzzEncryptedKey: a file with any content is an error, and nothing worse.
func FuzzEncryptedKey(f *testing.F) {
	store := CAStore{Dir: filepath.Join(f.TempDir(), "ca"), Passphrase: []byte("correct horse")}
	if _, err := store.Init(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(store.keyPath())
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(b)
	f.Add(block.Bytes)
	f.Add(block.Bytes[:len(block.Bytes)-1])
	f.Add(bytes.Replace(block.Bytes, []byte{0x04, 0x10}, []byte{0x04, 0x0f}, 1))
	f.Fuzz(func(t *testing.T, der []byte) {
		if len(der) > 1024 {
			return
		}
		key, err := decrypt(der, []byte("correct horse"))
		if err == nil && key == nil {
			t.Error("neither a key nor an error")
		}
	})
}
