package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
)

const (
	keyFile    = "key"
	publicFile = "key.pub"
)

// loadRecipients returns the public keys that entries are encrypted for. Where there is no key at all yet, a pair is made.
func loadRecipients(dir string) ([]age.Recipient, error) {
	public := filepath.Join(dir, publicFile)
	b, err := os.ReadFile(public)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = makeKeys(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("the quarantine's public key: %w", err)
	}
	r, err := age.ParseRecipients(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("the quarantine's public key %s: %w", public, err)
	}
	return r, nil
}

// makeKeys makes the pair, or the public key to a secret one that is there, and returns the public one.
func makeKeys(dir string) ([]byte, error) {
	path := filepath.Join(dir, keyFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, err
		}
		text := "# The secret key of the quarantine: whoever has it can read what is kept there.\n" +
			"# public key: " + id.Recipient().String() + "\n" + id.String() + "\n"
		// Another process may do the same: the first one to be there counts.
		if err := create(path, []byte(text)); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	ids, err := loadIdentities(path)
	if err != nil {
		return nil, err
	}
	var public []byte
	for _, id := range ids {
		x, ok := id.(*age.X25519Identity)
		if !ok {
			return nil, fmt.Errorf("the public key to %s cannot be told: write it to %s, as age-keygen -y does", path, publicFile)
		}
		public = append(public, x.Recipient().String()+"\n"...)
	}
	if err := create(filepath.Join(dir, publicFile), public); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, publicFile))
}

// loadIdentities returns the secret keys of a file, which must be its owner's alone.
func loadIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the quarantine's secret key: %w", err)
	}
	defer f.Close() // only read from
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the quarantine's secret key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the quarantine's secret key %s can be read by others than its owner: chmod 600 %s", path, path)
	}
	ids, err := age.ParseIdentities(f)
	if err != nil {
		return nil, fmt.Errorf("the quarantine's secret key %s: %w", path, err)
	}
	return ids, nil
}

// create writes a new file so that it is there whole and durable, or not at all. The error is fs.ErrExist where there was one.
func create(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // its second name stays
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir has the names in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
