package quarantine

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// TestTheGatewayNeedsNoSecretKey: with the secret key elsewhere entries are kept all the same, and not readable here.
func TestTheGatewayNeedsNoSecretKey(t *testing.T) {
	s := testStore(t, nil)
	key, elsewhere := filepath.Join(s.dir, keyFile), filepath.Join(t.TempDir(), "key")
	if err := os.Rename(key, elsewhere); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.dir, testConfig())
	id := put(t, s, 1, []byte("content"))
	if _, err := os.Stat(key); !os.IsNotExist(err) {
		t.Errorf("another key was made: %v", err)
	}
	if _, _, err := s.Original(t.Context(), id, ""); err == nil {
		t.Error("it is readable without a key")
	}
	_, r, err := s.Original(t.Context(), id, elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "content" {
		t.Errorf("%q %v", b, err)
	}
	// An entry that the index has lost comes back, even so: with what can be told.
	if _, err := s.db.ExecContext(t.Context(), "DELETE FROM entries"); err != nil {
		t.Fatal(err)
	}
	if err := s.repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Get(t.Context(), id); err != nil || e.State != Stored {
		t.Errorf("%+v %v", e, err)
	}
	cfg := testConfig()
	cfg.Identity = elsewhere
	again := open(t, s.dir, cfg)
	if got := read(t, again, id); string(got) != "content" {
		t.Errorf("%q", got)
	}
}

// TestAnEntryCanBeReadWithoutThisProgram: age decrypts the file, and the original begins at its third line.
func TestAnEntryCanBeReadWithoutThisProgram(t *testing.T) {
	s := testStore(t, nil)
	content := "line\r\n\nlast"
	f, err := os.Open(s.path(put(t, s, 1, []byte(content))))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ids, err := loadIdentities(filepath.Join(s.dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(f, ids...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if parts := strings.SplitN(string(b), "\n", 3); err != nil || len(parts) != 3 || parts[2] != content {
		t.Errorf("%q %v", b, err)
	}
}

func TestKeysOfSomebodyElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	public := "# two readers\n" + a.Recipient().String() + "\n" + b.Recipient().String() + "\n"
	if err := os.WriteFile(filepath.Join(dir, publicFile), []byte(public), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, testConfig())
	id := put(t, s, 1, []byte("content"))
	file := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(file, []byte(b.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, r, err := s.Original(t.Context(), id, file)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Original(t.Context(), id, file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a secret key that all can read: %v", err)
	}
}

// TestEntriesCannotBeExchanged: a file under another's name, a changed one, and one that was cut are not given away.
func TestEntriesCannotBeExchanged(t *testing.T) {
	s := testStore(t, nil)
	a, b := put(t, s, 1, bytes.Repeat([]byte("a"), 200<<10)), put(t, s, 2, []byte("b"))
	whole, err := os.ReadFile(s.path(a))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-100] ^= 1
	for name, content := range map[string][]byte{"changed": flipped, "cut": whole[:len(whole)-70000], "longer": append(bytes.Clone(whole), 'x')} {
		if err := os.WriteFile(s.path(a), content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, r, err := s.Original(t.Context(), a, "")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err == nil {
			t.Errorf("%s: nobody noticed", name)
		}
	}
	if err := os.WriteFile(s.path(b), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Original(t.Context(), b, ""); err == nil {
		t.Error("another entry's file was taken")
	}
}
