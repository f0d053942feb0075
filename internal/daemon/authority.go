package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lazaret/internal/admin"
	"lazaret/internal/config"
	"lazaret/internal/intercept"
)

// Where the passphrase of the CA's key comes from: systemd's credential of that name, or the environment.
const (
	passphraseCredential = "ca-passphrase"
	passphraseEnv        = "LAZARET_CA_PASSPHRASE" //nolint:gosec // the variable's name
)

// How often is looked whether a rotation is over, and how often is said that it cannot be finished.
const (
	rotationEvery = 10 * time.Second
	rotationTold  = time.Hour
)

// passphrase is read once: then it is no longer in the environment, which other programs are given.
type passphrase struct {
	text    []byte
	fromEnv bool
	err     error
}

var readPassphrase = sync.OnceValue(func() passphrase {
	env, set := os.LookupEnv(passphraseEnv)
	if err := os.Unsetenv(passphraseEnv); err != nil {
		return passphrase{err: err}
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		text, err := readSecret(filepath.Join(dir, passphraseCredential))
		if !errors.Is(err, os.ErrNotExist) {
			return passphrase{text: text, err: err}
		}
	}
	if !set {
		return passphrase{}
	}
	if env == "" {
		return passphrase{err: errors.New(passphraseEnv + " is empty: leave it unset where the CA's key is not encrypted")}
	}
	return passphrase{text: []byte(env), fromEnv: true}
})

// readSecret returns a file's only line.
func readSecret(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the service manager names the directory
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, fmt.Errorf("%s is empty: it has to hold the passphrase of the CA's key", name)
	}
	return b, nil
}

// CAStore returns where the CA of these settings is, with the passphrase of its key: the systemd credential ca-passphrase, or the
// environment variable LAZARET_CA_PASSPHRASE, which is gone from the environment afterwards. The error says what is wrong
// with either.
func CAStore(cfg *config.Config) (intercept.CAStore, error) {
	p := readPassphrase()
	s := intercept.CAStore{
		Dir: caDir(cfg), Passphrase: p.text,
		Permit: intercept.Permit{Domains: cfg.Web.TLS.PermitDomains, Networks: cfg.Web.TLS.PermitNetworks},
	}
	if p.err != nil {
		return s, fmt.Errorf("passphrase of the CA's key: %w", p.err)
	}
	return s, nil
}

// passphraseForSuccessor returns what a process that takes over has to find in its environment to open the CA's key.
func passphraseForSuccessor() []string {
	if p := readPassphrase(); p.fromEnv {
		return []string{passphraseEnv + "=" + string(p.text)}
	}
	return nil
}

// loadCA opens the CA, or makes it at the first start.
func (d *Daemon) loadCA(cfg *config.Config) error {
	store, err := CAStore(cfg)
	if err != nil {
		return err
	}
	if _, err := store.Settle(time.Now()); err != nil {
		d.log.Error("the rotation of the CA could not be finished: the one in use goes on", "error", err)
	}
	ca, created, err := store.LoadOrInit()
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	d.ca.Store(ca)
	d.caDir = store.Dir
	d.tellRotation(ca)
	if created {
		d.log.Info("a certificate authority was made; clients must trust it", "certificate", filepath.Join(store.Dir, "ca.pem"),
			"fingerprint", intercept.Fingerprint(ca.Certificate()))
	}
	if w := store.Warning(); w != "" {
		d.log.Warn(w)
	}
	if len(store.Passphrase) > 0 && !ca.Encrypted() {
		d.log.Warn("a passphrase was given, but the CA's key is not encrypted: \"lazaret ca passphrase set\" encrypts it")
	}
	if is, want := names(ca.Permitted()), names(store.Permit); want != "" && is != want {
		d.log.Warn("the CA is not kept to what permit_domains and permit_networks say, as it was made before: \"lazaret ca rotate\" with --permit-domain and --permit-network makes one that is",
			"kept_to", is, "settings", want)
	}
	return nil
}

// names puts what a CA is kept to into words.
func names(p intercept.Permit) string {
	words := make([]string, 0, len(p.Domains)+len(p.Networks))
	for _, d := range p.Domains {
		words = append(words, strings.ToLower(d))
	}
	for _, n := range p.Networks {
		words = append(words, n.Masked().String())
	}
	return strings.Join(words, " ")
}

// tellRotation logs that a rotation is under way.
func (d *Daemon) tellRotation(ca *intercept.CA) {
	if r := ca.Rotation(); r != nil {
		d.log.Info("a rotation of the CA is under way: clients are to trust the next one, too", "signs_from", r.Until.Format(time.RFC3339),
			"next", r.Next.Subject.CommonName, "fingerprint", intercept.Fingerprint(r.Next))
	}
}

// watchRotation finishes a rotation when its time is over, until ctx ends.
func (d *Daemon) watchRotation(ctx context.Context) {
	tick := time.NewTicker(rotationEvery)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.settleRotation(time.Now()); err != nil && time.Since(told) > rotationTold {
			told = time.Now()
			d.log.Error("the rotation of the CA could not be finished: the one in use goes on", "error", err)
		}
	}
}

// settleRotation has the next CA sign where it is time for that. Connections that are open go on.
func (d *Daemon) settleRotation(now time.Time) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	store, err := CAStore(d.config)
	if err != nil {
		return err
	}
	if finished, err := store.Settle(now); err != nil || !finished {
		return err
	}
	ca, err := store.Load()
	if err != nil {
		return err
	}
	d.ca.Store(ca)
	if err := d.outside(d.config); err != nil {
		return err
	}
	d.log.Info("the rotation of the CA is finished: the next one signs now", "fingerprint", intercept.Fingerprint(ca.Certificate()))
	return nil
}

// otherCAs returns what clients are to trust besides the CA in use: what the state directory has that is not in use yet. What cannot
// be read there is left out; what was read at the start is known.
func (d *Daemon) otherCAs() []admin.OtherCA {
	var out []admin.OtherCA
	seen := func(c *x509.Certificate) bool {
		return c.Equal(d.CA().Certificate()) || slices.ContainsFunc(out, func(o admin.OtherCA) bool { return o.Certificate.Equal(c) })
	}
	if now, err := (intercept.CAStore{Dir: d.caDir}).Read(); err == nil {
		for _, c := range now.Trusted() {
			if !seen(c) {
				out = append(out, admin.OtherCA{Certificate: c, Next: true})
			}
		}
		return out
	}
	for _, c := range d.CA().Trusted() {
		if !seen(c) {
			out = append(out, admin.OtherCA{Certificate: c, Next: true})
		}
	}
	return out
}
