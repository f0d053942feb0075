package intercept

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The names of a rotation's files, beside the CA's. The certificate is written last and renamed last: where it is there, the
// rotation is.
const (
	caNextCertFile = "ca-next.pem"
	caNextKeyFile  = "ca-next.key"
	caRotationFile = "ca-rotation.json"
	caLock         = "ca.lock" // held by whoever begins or finishes one
)

// DefaultOverlap is how long a rotation lasts unless told otherwise, and MaxOverlap how long it may.
const (
	DefaultOverlap = 30 * 24 * time.Hour
	MaxOverlap     = 366 * 24 * time.Hour
)

// Rotation is a rotation that is under way: the CA in use goes on signing, over restarts, until the next one takes its place.
// Clients are to trust both meanwhile.
type Rotation struct {
	Next  *x509.Certificate
	Until time.Time // from then on the next one signs
}

// rotationRecord is a rotation's file.
type rotationRecord struct {
	Until time.Time `json:"until"`
}

func (s CAStore) path(name string) string { return filepath.Join(s.Dir, name) }

// Rotation returns the rotation that is under way; nil: none.
func (ca *CA) Rotation() *Rotation { return ca.rotation }

// Next returns the next CA of a rotation that is under way, without its key: it can be exported. The error says that there is none.
func (ca *CA) Next() (*CA, error) {
	if ca.rotation == nil {
		return nil, fmt.Errorf("no rotation is under way: %w", fs.ErrNotExist)
	}
	return &CA{cert: ca.rotation.Next}, nil
}

// Rotate makes the next CA, kept to the same names as the one there unless Permit says otherwise. The one there goes on signing for
// the time of overlap, or for as long as it is valid if that is less; then the next one takes its place: by Settle, or before that by
// FinishRotation. The new key is encrypted with Passphrase. The error is an fs.ErrExist where a rotation is under way.
func (s CAStore) Rotate(overlap time.Duration) (*CA, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return nil, fmt.Errorf("a rotation lasts between 0 and %d days", int(MaxOverlap.Hours()/24))
	}
	begun, err := s.begin(overlap)
	if err != nil {
		return nil, err
	}
	if _, err := s.Settle(begun); err != nil {
		return nil, err
	}
	return s.Load()
}

// begin writes the files of a rotation, and returns when that was. What is there is looked at under the lock: another one may have been
// begun just now.
func (s CAStore) begin(overlap time.Duration) (time.Time, error) {
	now := time.Now()
	if _, err := s.open(); err != nil {
		return now, err // nothing is written beside what cannot be used, the lock's file included
	}
	unlock, err := lockFile(s.path(caLock))
	if err != nil {
		return now, err
	}
	defer unlock()
	former, err := s.open()
	if err != nil {
		return now, err
	}
	if r := former.rotation; r != nil {
		return now, fmt.Errorf("a rotation lasts until %s (%w): finish it with `ca rotate --finish`", date(r.Until), fs.ErrExist)
	}
	permit := s.Permit
	if permit.empty() {
		permit = permitOf(former.cert)
	}
	certPEM, keyPEM, err := newCA(now, permit, s.Passphrase)
	if err != nil {
		return now, err
	}
	until := earlier(now.Add(overlap), former.cert.NotAfter).UTC().Truncate(time.Second)
	record, err := json.Marshal(rotationRecord{until})
	if err != nil {
		return now, err
	}
	for _, f := range []struct {
		name string
		b    []byte
		mode fs.FileMode
	}{{caNextKeyFile, keyPEM, 0o600}, {caRotationFile, append(record, '\n'), 0o644}, {caNextCertFile, certPEM, 0o644}} {
		if err := s.writeBeside(f.name, f.b, f.mode); err != nil {
			return now, fmt.Errorf("writing the next CA: %w", err)
		}
	}
	return now, nil
}

// FinishRotation has the next CA take the place of the one in use. The error is an fs.ErrNotExist where no rotation is under way.
// The former certificate is kept as ca-old-N.pem, so that no server outside may ever use it; its key is destroyed by being
// replaced.
func (s CAStore) FinishRotation() (*CA, error) {
	r, err := s.readRotation()
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fmt.Errorf("no rotation is under way in %s: %w", s.Dir, fs.ErrNotExist)
	}
	if err := s.takeNext(); err != nil {
		return nil, err
	}
	return s.Load()
}

// Settle does what is due at the moment: a rotation whose time is over is finished, and so is one whose finishing was cut short. It
// says whether there was such a thing.
func (s CAStore) Settle(now time.Time) (finished bool, err error) {
	r, err := s.readRotation()
	if err != nil || r == nil {
		return false, err
	}
	_, keyErr := os.Lstat(s.path(caNextKeyFile))
	if begun := errors.Is(keyErr, fs.ErrNotExist); !begun && now.Before(r.Until) {
		return false, keyErr
	}
	return true, s.takeNext()
}

// takeNext puts the next CA into the place of the one there. Each step can be done again: it goes on where it was cut short. Another
// process may have done it all meanwhile.
func (s CAStore) takeNext() error {
	if err := checkFolder(s.Dir); err != nil {
		return err
	}
	unlock, err := lockFile(s.path(caLock))
	if err != nil {
		return err
	}
	defer unlock()
	if r, err := s.readRotation(); err != nil || r == nil {
		return err
	}
	if _, err := os.Lstat(s.path(caNextKeyFile)); err == nil {
		// A key that cannot be opened must not take the place of one that can.
		if err := s.tryNext(caNextKeyFile); err != nil {
			return fmt.Errorf("the next CA in %s: %w", s.Dir, err)
		}
		if err := s.keepFormer(); err != nil {
			return err
		}
		if err := os.Rename(s.path(caNextKeyFile), s.keyPath()); err != nil {
			return fmt.Errorf("the next CA's key: %w", err)
		}
	} else if err := s.tryNext(caKeyFile); err != nil {
		if errors.Is(err, ErrNoPassphrase) || errors.Is(err, ErrWrongPassphrase) {
			return fmt.Errorf("the next CA in %s: %w", s.Dir, err)
		}
		return s.nextKeyGone() // and not in its place already: its certificate is of no use without it
	}
	if err := os.Rename(s.path(caNextCertFile), s.certPath()); err != nil {
		return fmt.Errorf("the next CA's certificate: %w", err)
	}
	if err := os.Remove(s.path(caRotationFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ending the rotation: %w", err)
	}
	return syncDir(s.Dir)
}

// tryNext says why the next CA cannot be used with the key in a file.
func (s CAStore) tryNext(keyFile string) error {
	certPEM, err := os.ReadFile(s.path(caNextCertFile))
	if err != nil {
		return err
	}
	keyPEM, err := readKeyFile(s.path(keyFile))
	if err != nil {
		return err
	}
	if _, err = parseCA(certPEM, keyPEM, s.Passphrase); err != nil {
		return fmt.Errorf("%s with %s: %w", caNextCertFile, keyFile, err)
	}
	return nil
}

// checkNext says why the next CA of a rotation that is under way cannot be used.
func (s CAStore) checkNext(ca *CA) error {
	if ca.rotation == nil {
		return nil
	}
	err := s.tryNext(caNextKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.nextKeyGone()
	case err != nil:
		return fmt.Errorf("the next CA in %s: %w", s.Dir, err)
	}
	return nil
}

// nextKeyGone is no fs.ErrNotExist: half a rotation is not no CA.
func (s CAStore) nextKeyGone() error {
	return fmt.Errorf("%s, the key of the next CA, is missing: put it back, or give the rotation up by removing %s and %s",
		s.path(caNextKeyFile), s.path(caNextCertFile), s.path(caRotationFile))
}

// keepFormer keeps the certificate in use under another name.
func (s CAStore) keepFormer() error {
	b, err := os.ReadFile(s.certPath())
	if err != nil {
		return fmt.Errorf("keeping the former certificate: %w", err)
	}
	for n := 1; ; n++ {
		path := s.path(fmt.Sprintf("ca-old-%d.pem", n))
		if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b) {
			return nil // of an attempt that was cut short
		}
		if err := os.Link(s.certPath(), path); !errors.Is(err, fs.ErrExist) {
			if err != nil {
				return fmt.Errorf("keeping the former certificate: %w", err)
			}
			return nil
		}
	}
}

// readRotation returns the rotation that is under way by the files; nil: none. Without a file that says until when, which is half a
// rotation that nobody has made, its time is over.
func (s CAStore) readRotation() (*Rotation, error) {
	b, err := os.ReadFile(s.path(caNextCertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, fmt.Errorf("the next CA: %w", err)
	}
	certs, err := parsePEMCerts(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(caNextCertFile), err)
	}
	r := &Rotation{Next: certs[0]}
	var record rotationRecord
	b, err = os.ReadFile(s.path(caRotationFile))
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: put it back, or finish the rotation with `ca rotate --finish` after removing it", s.path(caRotationFile), err)
	}
	// What a file says is no longer believed than a rotation may last.
	r.Until = earlier(record.Until, r.Next.NotBefore.Add(caBackdate+MaxOverlap))
	return r, nil
}

// writeBeside writes a file of the CA's in one step, over a leftover of the same name. It belongs to whom the CA belongs: root must
// not keep from the gateway what is the gateway's.
func (s CAStore) writeBeside(name string, b []byte, mode fs.FileMode) error {
	return replaceAs(s.path(name), s.certPath(), b, mode)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
