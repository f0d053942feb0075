package intercept

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"
)

// The bounds of a file of ticket secrets, and how often it is looked at.
const (
	ticketSecret      = 32 // bytes, at least
	maxTicketSecrets  = 4
	maxTicketFile     = 16 << 10
	ticketFileEvery   = 2 * time.Second
	ticketKeyLabel    = "lazaret session ticket key"
	ticketKeysOfASlot = keyEvery / time.Second
)

// ticketKeys gives out the keys that session tickets are sealed and opened with, the first one for sealing. Without a file
// they are random. With one they follow from its secrets and the time, so that gateways that have the same file rotate to
// the same keys without talking to each other.
type ticketKeys struct {
	path string // empty: none
	log  *slog.Logger
	now  func() time.Time

	random  [][32]byte
	secrets [][]byte
	slot    int64 // of keyEvery since 1970, that the keys in use are of
	state   fileState
	looked  time.Time
}

// newTicketKeys reads the file at path, if there is to be one.
func newTicketKeys(path string, log *slog.Logger, now func() time.Time) (*ticketKeys, error) {
	k := &ticketKeys{path: path, log: log, now: now, slot: -1}
	if path == "" {
		return k, nil
	}
	st, secrets, err := readTicketSecrets(path)
	k.state, k.secrets, k.looked = st, secrets, time.Now()
	return k, err
}

// shared says whether other gateways may have the same keys.
func (k *ticketKeys) shared() bool { return k.path != "" }

// next returns the keys to go on with, nil where those in use are still the right ones. It is not for several goroutines.
func (k *ticketKeys) next() ([][32]byte, error) {
	changed := k.reread()
	slot := k.now().Unix() / int64(ticketKeysOfASlot)
	if slot == k.slot && !changed {
		return nil, nil
	}
	k.slot = slot
	if k.shared() {
		return k.derive(slot)
	}
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		return nil, fmt.Errorf("making a key for session tickets: %w", err)
	}
	k.random = append([][32]byte{key}, k.random[:min(len(k.random), keysKept-1)]...)
	return k.random, nil
}

// derive returns the keys of this slot, of those before it, and of the next one, in which another gateway's clock may be
// already; of all secrets, as one may just have taken the place of another.
func (k *ticketKeys) derive(slot int64) ([][32]byte, error) {
	var keys [][32]byte
	for _, secret := range k.secrets {
		for _, n := range []int64{slot, slot - 1, slot - 2, slot - 3, slot + 1} {
			b, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("%s %d", ticketKeyLabel, n), 32)
			if err != nil {
				return nil, fmt.Errorf("deriving a key for session tickets: %w", err)
			}
			keys = append(keys, [32]byte(b))
		}
	}
	return keys, nil
}

// reread takes the file's secrets over where it has changed. One that cannot be used leaves them as they were.
func (k *ticketKeys) reread() (changed bool) {
	if k.path == "" || time.Since(k.looked) < ticketFileEvery {
		return false
	}
	k.looked = time.Now()
	info, err := os.Stat(k.path)
	if err == nil && stateOf(info) == k.state || err != nil && k.state == (fileState{}) {
		return false
	}
	st, secrets, err := readTicketSecrets(k.path)
	k.state = st
	if err != nil {
		k.log.Error("the file of ticket secrets cannot be used; those from before stay in use", "file", k.path, "error", err)
		return false
	}
	k.log.Info("the file of ticket secrets was read again", "file", k.path, "secrets", len(secrets))
	k.secrets = secrets
	return true
}

// readTicketSecrets reads a file of secrets: one a line in hexadecimal, of 32 bytes or more, the one that is used first;
// the others are for tickets that were given out before. Empty lines and what follows # do not count. The file has to
// belong to the gateway's user or root, and nobody else may read it.
func readTicketSecrets(path string) (fileState, [][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileState{}, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fileState{}, nil, err
	}
	st := stateOf(info)
	sys, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || info.Size() > maxTicketFile:
		return st, nil, fmt.Errorf("%s is not a file of less than %d bytes", path, maxTicketFile)
	case info.Mode().Perm()&0o077 != 0:
		return st, nil, fmt.Errorf("%s can be read or written by others than its owner (mode %04o): set it to 0600", path, info.Mode().Perm())
	case ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return st, nil, fmt.Errorf("%s belongs to user %d, who is neither the gateway's nor root", path, sys.Uid)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTicketFile))
	if err != nil {
		return st, nil, err
	}
	secrets, err := parseTicketSecrets(b)
	if err != nil {
		return st, nil, fmt.Errorf("%s: %w", path, err)
	}
	return st, secrets, nil
}

// parseTicketSecrets reads the lines of such a file. Its errors do not repeat what is there.
func parseTicketSecrets(b []byte) ([][]byte, error) {
	var secrets [][]byte
	sc := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		secret, err := hex.DecodeString(line)
		if err != nil || len(secret) < ticketSecret {
			return nil, fmt.Errorf("line %d is not a secret of %d bytes or more in hexadecimal (openssl rand -hex %d makes one)", n, ticketSecret, ticketSecret)
		}
		secrets = append(secrets, secret)
	}
	switch {
	case sc.Err() != nil:
		return nil, sc.Err()
	case len(secrets) == 0:
		return nil, errors.New("it has no secret")
	case len(secrets) > maxTicketSecrets:
		return nil, fmt.Errorf("it has %d secrets; more than %d are of no use", len(secrets), maxTicketSecrets)
	}
	return secrets, nil
}
