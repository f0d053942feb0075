package intercept

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// newStore returns the store of a new CA.
func newStore(t *testing.T) (CAStore, *CA) {
	t.Helper()
	store := CAStore{Dir: filepath.Join(t.TempDir(), "ca")}
	ca, err := store.Init()
	if err != nil {
		t.Fatal(err)
	}
	return store, ca
}

// TestRotationOutlivesRestarts: until its time is over the one in use signs at each start, both are to be trusted, and both are known
// as ours; then the next one takes its place at the first start.
func TestRotationOutlivesRestarts(t *testing.T) {
	store, first := newStore(t)
	ca, err := store.Rotate(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	next := ca.Rotation().Next
	for range 3 { // starts
		if finished, err := store.Settle(time.Now()); err != nil || finished {
			t.Fatalf("finished %v, %v", finished, err)
		}
		ca, created, err := store.LoadOrInit()
		if err != nil || created {
			t.Fatalf("created %v, %v", created, err)
		}
		if !ca.Certificate().Equal(first.Certificate()) {
			t.Fatal("another CA is in use")
		}
		wantTrusted(t, ca, first.Certificate(), next)
		if l := time.Until(ca.Rotation().Until); l < 59*time.Minute || l > time.Hour {
			t.Errorf("it lasts for %v", l)
		}
		if !ca.isOurs(next) {
			t.Error("an origin might use the next one")
		}
		leaves, err := newLeaves(ca, 16, time.Now, nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := leaves.mint("site.example", nil, ecdsaLeaf)
		if err != nil {
			t.Fatal(err)
		}
		if err := leaf.Leaf.CheckSignatureFrom(first.Certificate()); err != nil {
			t.Errorf("the one in use does not sign: %v", err)
		}
	}
	for _, name := range []string{caNextKeyFile, caKeyFile} {
		if st, err := os.Stat(store.path(name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if finished, err := store.Settle(time.Now().Add(time.Hour)); err != nil || !finished {
		t.Fatalf("finished %v, %v", finished, err)
	}
	ca, err = store.Load()
	if err != nil || !ca.Certificate().Equal(next) || ca.Rotation() != nil {
		t.Fatalf("after its time %v", err)
	}
	wantTrusted(t, ca, next)
	if !ca.isOurs(first.Certificate()) {
		t.Error("an origin might use the former one")
	}
	if names := filesOf(t, store.Dir); names != "ca-old-1.pem ca.key ca.lock ca.pem" {
		t.Errorf("the folder has %s", names)
	}
	if finished, err := store.Settle(time.Now()); err != nil || finished {
		t.Errorf("without a rotation: finished %v, %v", finished, err)
	}
}

func wantTrusted(t *testing.T, ca *CA, want ...*x509.Certificate) {
	t.Helper()
	if !slices.EqualFunc(ca.Trusted(), want, (*x509.Certificate).Equal) {
		t.Errorf("%d certificates are to be trusted, not these %d", len(ca.Trusted()), len(want))
	}
	b, err := ca.TrustStore("changeit")
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := pkcs12.DecodeTrustStore(b, "changeit"); err != nil || len(certs) != len(want) {
		t.Errorf("the trust store has %d certificates, not %d (%v)", len(certs), len(want), err)
	}
}

func filesOf(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// TestRotationsInARow: each former one stays known, and no CA is made twice.
func TestRotationsInARow(t *testing.T) {
	store, first := newStore(t)
	seen := []*x509.Certificate{first.Certificate()}
	var last *CA
	for range 3 {
		var err error
		if last, err = store.Rotate(0); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, last.Certificate())
	}
	wantTrusted(t, last, last.Certificate())
	for n, c := range seen {
		if !last.isOurs(c) {
			t.Errorf("CA number %d is not known as ours: an origin might use it", n+1)
		}
		if slices.ContainsFunc(seen[n+1:], c.Equal) {
			t.Error("a rotation made the same CA")
		}
	}
	if st, err := os.Stat(store.keyPath()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v", err)
	}
	if _, err := store.Rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Rotate(time.Hour); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a rotation within a rotation: %v", err)
	}
	if ca, err := store.FinishRotation(); err != nil || ca.Rotation() != nil {
		t.Errorf("finishing: %v", err)
	}
	if _, err := store.FinishRotation(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("finishing none: %v", err)
	}
	for _, bad := range []time.Duration{-1, MaxOverlap + 1} {
		if _, err := store.Rotate(bad); err == nil {
			t.Errorf("an overlap of %v", bad)
		}
	}
}

// TestRotationsAreBounded: by what the one in use is good for, and, whatever the file says, by MaxOverlap.
func TestRotationsAreBounded(t *testing.T) {
	store, _ := newStore(t)
	ca, err := store.Rotate(MaxOverlap)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(rotationRecord{time.Now().Add(100 * MaxOverlap)})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, store.path(caRotationFile), b)
	if finished, err := store.Settle(ca.Rotation().Until.Add(time.Minute)); err != nil || !finished {
		t.Errorf("finished %v, %v", finished, err)
	}
	if _, err := store.Rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	writeFile(t, store.path(caRotationFile), []byte("{"))
	if _, err := store.Load(); err == nil || !strings.Contains(err.Error(), caRotationFile) {
		t.Errorf("a broken file: %v", err)
	}
}

// TestExpiredCAIsReplacedAtOnce, as it can sign nothing any more.
func TestExpiredCAIsReplacedAtOnce(t *testing.T) {
	store, _ := newStore(t)
	former := newRoot(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	putCA(t, store.Dir, former)
	ca, err := store.Rotate(DefaultOverlap)
	if err != nil || ca.Rotation() != nil || ca.Certificate().Equal(former.cert) {
		t.Errorf("%v", err)
	}
}

// TestFinishingThatWasCutShort goes on, whichever of its steps was the last one.
func TestFinishingThatWasCutShort(t *testing.T) {
	for _, steps := range []int{0, 1, 2} {
		store, first := newStore(t)
		ca, err := store.Rotate(time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		next := ca.Rotation().Next
		if steps > 0 {
			if err := store.keepFormer(); err != nil {
				t.Fatal(err)
			}
		}
		at := time.Now()
		if steps > 1 {
			if err := os.Rename(store.path(caNextKeyFile), store.keyPath()); err != nil {
				t.Fatal(err)
			}
		} else {
			at = at.Add(2 * time.Hour)
		}
		if finished, err := store.Settle(at); err != nil || !finished {
			t.Errorf("after %d steps: finished %v, %v", steps, finished, err)
		}
		ca, err = store.Load()
		if err != nil || !ca.Certificate().Equal(next) || len(ca.old) != 1 || !ca.old[0].Equal(first.Certificate()) {
			t.Errorf("after %d steps: %v", steps, err)
		}
	}
}

// TestManyStartsFinishOneRotation: a process that takes over and the one before may both be at it.
func TestManyStartsFinishOneRotation(t *testing.T) {
	store, _ := newStore(t)
	ca, err := store.Rotate(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := store.Settle(time.Now().Add(2 * time.Hour)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if now, err := store.Load(); err != nil || !now.Certificate().Equal(ca.Rotation().Next) || len(now.old) != 1 {
		t.Errorf("%v", err)
	}
}

// TestNextKeyThatCannotBeUsed does not take the place of one that can, and is found at once: clients trust its certificate already.
func TestNextKeyThatCannotBeUsed(t *testing.T) {
	for _, tc := range []struct {
		what, want string
		spoil      func(t *testing.T, store CAStore)
	}{
		{"read by others", "chmod 600", func(t *testing.T, s CAStore) { chmod(t, s.path(caNextKeyFile), 0o644) }},
		{"empty", "no PEM private key", func(t *testing.T, s CAStore) { writeFile(t, s.path(caNextKeyFile), nil) }},
		{"another's", "is not the key of", func(t *testing.T, s CAStore) {
			b, err := os.ReadFile(s.keyPath())
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, s.path(caNextKeyFile), b)
		}},
		{"gone", "is missing", func(t *testing.T, s CAStore) {
			if err := os.Remove(s.path(caNextKeyFile)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			store, first := newStore(t)
			if _, err := store.Rotate(time.Hour); err != nil {
				t.Fatal(err)
			}
			tc.spoil(t, store)
			before := filesOf(t, store.Dir)
			if _, created, err := store.LoadOrInit(); err == nil || created || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "next CA") && !strings.Contains(err.Error(), caNextKeyFile) {
				t.Errorf("at a start: created %v, error %v", created, err)
			}
			if _, err := store.Settle(time.Now().Add(2 * time.Hour)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("at its end: error %v", err)
			}
			if _, err := store.FinishRotation(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("finished by hand: error %v", err)
			}
			if ca, err := store.Read(); err != nil || !bytes.Equal(ca.DER(), first.DER()) || filesOf(t, store.Dir) != before {
				t.Errorf("the CA in use is another, %v; files %s", err, filesOf(t, store.Dir))
			}
			for _, name := range []string{caNextCertFile, caNextKeyFile, caRotationFile} {
				if err := os.Remove(store.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			if ca, err := store.Load(); err != nil || !bytes.Equal(ca.DER(), first.DER()) {
				t.Errorf("after the rotation was given up: %v", err)
			}
		})
	}
}

// TestOneOfManyRotationsIsBegun: what was shown of a next CA holds, as it may have been given to clients.
func TestOneOfManyRotationsIsBegun(t *testing.T) {
	store, _ := newStore(t)
	var wg sync.WaitGroup
	begun := make(chan *x509.Certificate, 8)
	for range cap(begun) {
		wg.Go(func() {
			ca, err := store.Rotate(time.Hour)
			switch {
			case err == nil:
				begun <- ca.Rotation().Next
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(begun)
	if n := len(begun); n != 1 {
		t.Fatalf("%d were begun, want one", n)
	}
	if ca, err := store.Load(); err != nil || !ca.Rotation().Next.Equal(<-begun) {
		t.Errorf("the next CA is another than the one that was shown, %v", err)
	}
}

// TestPassphraseOfBothKeysInTwoSteps: an attempt that was cut short between the two keys can be made again.
func TestPassphraseOfBothKeysInTwoSteps(t *testing.T) {
	store, _ := newStore(t)
	if _, err := store.Rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(store.path(caNextKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := parseKey(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	passphrase := []byte("correct horse")
	if err := store.rewrite(store.path(caNextKeyFile), next, passphrase); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(); !errors.Is(err, ErrNoPassphrase) {
		t.Errorf("half-way: error %v", err)
	}
	if err := store.SetPassphrase(passphrase); err != nil {
		t.Fatal(err)
	}
	if _, err := (CAStore{Dir: store.Dir, Passphrase: passphrase}).Load(); err != nil {
		t.Error(err)
	}
}
