package intercept

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// CAStore is the directory that a CA is kept in, and what is needed to make, open and keep one there.
type CAStore struct {
	Dir        string
	Passphrase []byte // of the key; empty: none is known, and new keys are not encrypted
	Permit     Permit // what new CAs are kept to
}

func (s CAStore) certPath() string { return filepath.Join(s.Dir, caCertFile) }
func (s CAStore) keyPath() string  { return filepath.Join(s.Dir, caKeyFile) }

// Warning says in a sentence what is doubtful about the place of the directory, though the CA can be used; empty: nothing.
func (s CAStore) Warning() string { return looseAbove(s.Dir) }

// Init makes a new CA (ECDSA P-256, ten years, path length 0) in the directory, which is made for the owner alone where it
// is missing. It never overwrites: the error is an fs.ErrExist where any of the two files is there.
func (s CAStore) Init() (*CA, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the CA: %w", err)
	}
	if err := checkFolder(s.Dir); err != nil {
		return nil, err
	}
	for _, path := range []string{s.keyPath(), s.certPath()} {
		if _, err := os.Lstat(path); err == nil {
			return nil, fmt.Errorf("%s: %w; a CA is never overwritten: use `ca rotate`, or move both files away", path, os.ErrExist)
		}
	}
	certPEM, keyPEM, err := newCA(time.Now(), s.Permit, s.Passphrase)
	if err != nil {
		return nil, err
	}
	if err := writeNew(s.keyPath(), keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("key of the CA: %w", err)
	}
	if err := writeNew(s.certPath(), certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("certificate of the CA: %w", err)
	}
	return s.Load()
}

// LoadOrInit returns the CA, and makes it where there is none; created says so.
func (s CAStore) LoadOrInit() (ca *CA, created bool, err error) {
	if ca, err = s.Load(); err == nil || !errors.Is(err, os.ErrNotExist) {
		return ca, false, err
	}
	if ca, err = s.Init(); errors.Is(err, os.ErrExist) {
		// Another process made it just now, or one of the two files is missing: loading says which.
		ca, err = s.Load()
		return ca, false, err
	}
	return ca, err == nil, err
}

// errExpired is for a CA whose time is over. It can be replaced, and nothing else.
var errExpired = errors.New("`ca rotate` makes a new one")

// Load returns the CA. The error is an fs.ErrNotExist where there is none, an ErrNoPassphrase or ErrWrongPassphrase where the
// key is encrypted and stays so, and says what to do where the files cannot be used: a key that others can read, a folder that
// others can change, a certificate that is no CA's or has expired, a key that is another's.
func (s CAStore) Load() (*CA, error) {
	ca, err := s.open()
	if err != nil {
		return nil, err
	}
	if now := time.Now(); now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("%s expired on %s: %w", s.certPath(), ca.cert.NotAfter.Format(time.DateOnly), errExpired)
	}
	return ca, nil
}

// open is Load, whatever the date.
func (s CAStore) open() (*CA, error) {
	ca, err := s.current()
	if err != nil {
		return nil, err
	}
	// Clients trust the next one already: its key is as dear as the other, and is not found unusable only when it is to sign.
	if err := s.checkNext(ca); err != nil {
		return nil, err
	}
	return ca, nil
}

// current is open, whatever the next CA of a rotation is like.
func (s CAStore) current() (*CA, error) {
	if err := checkFolder(s.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	certPEM, certErr := os.ReadFile(s.certPath())
	keyPEM, keyErr := readKeyFile(s.keyPath())
	if errors.Is(certErr, os.ErrNotExist) && errors.Is(keyErr, os.ErrNotExist) {
		return nil, fmt.Errorf("no CA in %s: %w", s.Dir, os.ErrNotExist)
	}
	if errors.Is(certErr, os.ErrNotExist) || errors.Is(keyErr, os.ErrNotExist) {
		return nil, s.halfCA()
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	ca, err := parseCA(certPEM, keyPEM, s.Passphrase)
	if err != nil {
		return nil, fmt.Errorf("the CA in %s: %w", s.Dir, err)
	}
	if err := s.known(ca); err != nil {
		return nil, err
	}
	return ca, nil
}

// known completes ca with the certificates that are beside its own.
func (s CAStore) known(ca *CA) (err error) {
	if ca.old, err = readOld(s.Dir); err != nil {
		return err
	}
	ca.rotation, err = s.readRotation()
	return err
}

// halfCA is no fs.ErrNotExist: half a CA must not be taken for none, and be made anew.
func (s CAStore) halfCA() error {
	return fmt.Errorf("%s and %s belong together, but one of them is missing: put it back, or move the other away", s.certPath(), s.keyPath())
}

// Read returns the CA without its key, for whoever only has to know its certificates: it recognises them, and signs nothing.
// The error is an fs.ErrNotExist where there is none.
func (s CAStore) Read() (*CA, error) {
	b, err := os.ReadFile(s.certPath())
	if errors.Is(err, os.ErrNotExist) {
		if _, keyErr := os.Lstat(s.keyPath()); keyErr == nil {
			return nil, s.halfCA()
		}
		return nil, fmt.Errorf("no CA in %s: %w", s.Dir, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("the CA: %w", err)
	}
	certs, err := parsePEMCerts(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.certPath(), err)
	}
	ca := &CA{cert: certs[0], issuers: certs[1:]}
	if err := s.known(ca); err != nil {
		return nil, err
	}
	return ca, nil
}

// SetPassphrase writes the key anew, encrypted with another passphrase; empty: not encrypted. The key of a rotation that is under
// way goes with it.
func (s CAStore) SetPassphrase(passphrase []byte) error {
	ca, err := s.current()
	if err != nil {
		return err
	}
	if ca.rotation != nil {
		b, err := readKeyFile(s.path(caNextKeyFile))
		if err != nil {
			return fmt.Errorf("key of the next CA: %w", err)
		}
		next, _, err := parseKey(b, s.Passphrase)
		if errors.Is(err, ErrWrongPassphrase) || errors.Is(err, ErrNoPassphrase) {
			next, _, err = parseKey(b, passphrase) // an attempt before this one came as far as here
		}
		if err != nil {
			return fmt.Errorf("key of the next CA: %w", err)
		}
		if err := s.rewrite(s.path(caNextKeyFile), next, passphrase); err != nil {
			return err
		}
	}
	return s.rewrite(s.keyPath(), ca.key, passphrase)
}

// rewrite writes a key over its file.
func (s CAStore) rewrite(path string, key crypto.Signer, passphrase []byte) error {
	keyPEM, err := encodeKey(key, passphrase)
	if err != nil {
		return err
	}
	// What cannot be read again is not written over what can.
	if _, encrypted, err := parseKey(keyPEM, passphrase); err != nil || encrypted != (len(passphrase) > 0) {
		return fmt.Errorf("the key cannot be read back (%w); nothing was changed", err)
	}
	if err := replace(path, keyPEM, 0o600); err != nil {
		return fmt.Errorf("key of the CA: %w", err)
	}
	return nil
}

// Encrypted says whether the key's file is encrypted, without opening it. The error is an fs.ErrNotExist where there is none.
func (s CAStore) Encrypted() (bool, error) {
	if err := checkFolder(s.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	b, err := readKeyFile(s.keyPath())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("no CA in %s: %w", s.Dir, os.ErrNotExist)
		}
		return false, err
	}
	return bytes.Contains(b, []byte("-----BEGIN "+encryptedBlock+"-----")), nil
}
