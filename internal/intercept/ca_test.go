package intercept

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

func TestCAIsMadeOnceForItsOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "ca")
	ca, created, err := (CAStore{Dir: dir}).LoadOrInit()
	if err != nil || !created {
		t.Fatalf("created %v, error %v", created, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "ca.key"): 0o600, filepath.Join(dir, "ca.pem"): 0o644} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, st.Mode().Perm(), want, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%d files are there, want the two (%v)", len(entries), err)
	}
	c := ca.Certificate()
	if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("basicConstraints or keyUsage are wrong: %v %v %v", c.IsCA, c.MaxPathLen, c.KeyUsage)
	}
	if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("key %T", c.PublicKey)
	}
	if years := time.Until(c.NotAfter).Hours() / 24 / 365.25; years < 9.9 || years > 10.1 {
		t.Errorf("valid for %.2f years", years)
	}
	again, created, err := (CAStore{Dir: dir}).LoadOrInit()
	if err != nil || created || !again.Certificate().Equal(c) {
		t.Errorf("the second start: created %v, the same %v, error %v", created, again.Certificate().Equal(c), err)
	}
	if _, err := (CAStore{Dir: dir}).Init(); !errors.Is(err, os.ErrExist) {
		t.Errorf("Init over a CA: error %v", err)
	}
	other, err := (CAStore{Dir: filepath.Join(t.TempDir(), "ca")}).Init()
	if err != nil {
		t.Fatal(err)
	}
	if other.Certificate().Subject.String() == c.Subject.String() || other.Certificate().SerialNumber.Cmp(c.SerialNumber) == 0 {
		t.Error("two CAs have one name or serial number")
	}
}

func TestManyStartsMakeOneCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		got = map[string]int{}
	)
	for range 8 {
		wg.Go(func() {
			ca, _, err := (CAStore{Dir: dir}).LoadOrInit()
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got[Fingerprint(ca.Certificate())]++
			}
		})
	}
	wg.Wait()
	if _, err := (CAStore{Dir: dir}).Load(); err != nil || len(got) > 1 {
		t.Errorf("%d CAs were seen (%v), and at last: %v", len(got), got, err)
	}
}

func TestCAThatCannotBeUsedSaysWhatToDo(t *testing.T) {
	expired := newRoot(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	leaf := newRoot(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	foreign := newRoot(t)
	put := func(a *authority) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { putCA(t, dir, a) }
	}
	for _, tc := range []struct {
		what, want string
		spoil      func(t *testing.T, dir string)
	}{
		{"key readable by the group", "chmod 600", func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "ca.key"), 0o640) }},
		{"key readable by all", "chmod 600", func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "ca.key"), 0o604) }},
		{"folder that the group can change", "chmod 700", func(t *testing.T, dir string) { chmod(t, dir, 0o770) }},
		{"folder that all can change, but not remove from", "chmod 700", func(t *testing.T, dir string) { chmod(t, dir, 0o707|os.ModeSticky) }},
		{"no key", "belong together", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "ca.key")) }},
		{"no certificate", "belong together", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "ca.pem")) }},
		{"empty key", "no PEM private key", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "ca.key"), nil) }},
		{"broken key", "cannot be read", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "ca.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}))
		}},
		{"empty certificate", "no PEM certificate", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "ca.pem"), nil) }},
		{"another's certificate", "not the key of", func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: foreign.cert.Raw}))
		}},
		{"a leaf", "not a CA's", put(leaf)},
		{"expired", "ca rotate", put(expired)},
	} {
		t.Run(tc.what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			if _, err := (CAStore{Dir: dir}).Init(); err != nil {
				t.Fatal(err)
			}
			tc.spoil(t, dir)
			before := filesIn(t, dir)
			_, created, err := (CAStore{Dir: dir}).LoadOrInit()
			if err == nil || created || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("created %v, error %v; want one with %q", created, err, tc.want)
			} else if strings.Contains(err.Error(), "secret") {
				t.Error("the error repeats the key's contents")
			}
			if filesIn(t, dir) != before {
				t.Error("the files were changed")
			}
		})
	}
}

func TestCAIsMadeInNoFolderThatOthersCanChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	chmod(t, dir, 0o777)
	store := CAStore{Dir: dir}
	if _, _, err := store.LoadOrInit(); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("error %v", err)
	}
	if all := filesIn(t, dir); all != "" {
		t.Error("a CA was made")
	}
	if _, err := store.Encrypted(); err == nil {
		t.Error("`ca show` is content")
	}
	chmod(t, dir, 0o755) // others may look
	if _, _, err := store.LoadOrInit(); err != nil {
		t.Error(err)
	}
}

func TestFolderAboveTheCA(t *testing.T) {
	above := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(above, 0o700); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.MkdirAll(filepath.Join(above, "deep", "er", "ca"), 0o700), os.Symlink(filepath.Join(above, "deep"), linked)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(above, "ca"), filepath.Join(above, "deep", "er", "ca"), filepath.Join(linked, "er", "ca")} {
		for mode, want := range map[os.FileMode]string{0o700: "", 0o755: "", 0o775: "chmod go-w " + above, 0o702: "chmod go-w " + above, 0o777 | os.ModeSticky: ""} {
			chmod(t, above, mode)
			if w := (CAStore{Dir: dir}).Warning(); !strings.Contains(w, want) || (w == "") != (want == "") {
				t.Errorf("%s, %v: %q", dir, mode, w)
			}
		}
	}
	chmod(t, above, 0o700)
	chmod(t, filepath.Dir(linked), 0o777) // where the link lies
	if w := (CAStore{Dir: filepath.Join(linked, "er", "ca")}).Warning(); !strings.Contains(w, "chmod go-w "+filepath.Dir(linked)) {
		t.Errorf("a link that others can exchange: %q", w)
	}
	chmod(t, filepath.Dir(linked), 0o700)
	t.Chdir(above)
	chmod(t, above, 0o777)
	if w := (CAStore{Dir: "ca"}).Warning(); !strings.Contains(w, "chmod go-w "+above) {
		t.Errorf("a relative name: %q", w)
	}
}

// putCA puts an authority in the place of the CA in dir.
func putCA(t *testing.T, dir string, a *authority) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "ca.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	writeFile(t, filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func filesIn(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(p + string(b))
	}
	return all.String()
}

func TestCAIsExported(t *testing.T) {
	dir := t.TempDir()
	ca, err := (CAStore{Dir: filepath.Join(dir, "ca")}).Init()
	if err != nil {
		t.Fatal(err)
	}
	want := ca.Certificate()
	if b, _ := pem.Decode(ca.PEM()); b == nil || !bytes.Equal(b.Bytes, want.Raw) || !bytes.Equal(ca.DER(), want.Raw) {
		t.Error("PEM or DER is another certificate")
	}
	store, err := ca.TrustStore("changeit")
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := pkcs12.DecodeTrustStore(store, "changeit"); err != nil || len(certs) != 1 || !certs[0].Equal(want) {
		t.Errorf("trust store: %d certificates, %v", len(certs), err)
	}
	if _, _, err := pkcs12.Decode(store, "changeit"); err == nil {
		t.Error("the trust store has a key in it")
	}
	if _, err := ca.PKCS12("short"); err == nil {
		t.Error("the key was exported under a short password")
	}
	both, err := ca.PKCS12("long enough")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "ca.p12"), both)
	out, err := exec.CommandContext(t.Context(), "openssl", "pkcs12", "-in", filepath.Join(dir, "ca.p12"), "-passin", "pass:long enough", "-nodes").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("PRIVATE KEY")) || !bytes.Contains(out, []byte("BEGIN CERTIFICATE")) {
		t.Errorf("openssl pkcs12: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "openssl", "x509", "-in", filepath.Join(dir, "ca", "ca.pem"), "-noout", "-fingerprint", "-sha256").Output()
	if err != nil || !strings.Contains(string(out), Fingerprint(want)) {
		t.Errorf("our fingerprint is %s, openssl says %s (%v)", Fingerprint(want), out, err)
	}
}

func TestCABelowAnEnterpriseRootIsSentWithItsChain(t *testing.T) {
	root := newRoot(t)
	sub := root.child(t, "Enterprise Sub CA", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	key, err := x509.MarshalECPrivateKey(sub.key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := parseCA(
		append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sub.cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw})...),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLeaves(ca, 16, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := l.get(t.Context(), "site.example", nil, ecdsaLeaf)
	if err != nil {
		t.Fatal(err)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.cert)
	for _, der := range leaf.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		inter.AddCert(c)
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: "site.example"}); err != nil {
		t.Errorf("a client that trusts the enterprise's root does not accept the leaf: %v", err)
	}
}
