package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is whom clamd runs as; nil: whoever we are.
type account struct {
	name     string
	uid, gid uint32
	groups   []uint32
}

// lookup returns the account for clamd: none unless we are root, because only root can choose.
func lookup(name string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // no account to change to, and no error
	}
	wanted := name
	if name == "" {
		name = "clamav"
	}
	u, err := user.Lookup(name)
	if err != nil {
		if wanted == "" {
			return nil, errors.New("clamd is not run as root, and there is no user \"clamav\" on this machine: set user")
		}
		return nil, fmt.Errorf("user: %w", err)
	}
	a := &account{name: name}
	if a.uid, err = number(u.Uid); err != nil {
		return nil, err
	}
	if a.gid, err = number(u.Gid); err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of %s: %w", name, err)
	}
	for _, id := range ids {
		g, err := number(id)
		if err != nil {
			return nil, err
		}
		a.groups = append(a.groups, g)
	}
	return a, nil
}

func number(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	return uint32(n), err
}

// credential returns what a process is started with to run as a.
func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
}

// own gives path to a.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reaches says whether a may pass through every directory above path.
func (a *account) reaches(path string) bool {
	if a == nil || a.uid == 0 {
		return true
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil {
			return false
		}
		bit := uint32(unix.S_IXOTH)
		if st.Uid == a.uid {
			bit = unix.S_IXUSR
		} else if st.Gid == a.gid {
			bit = unix.S_IXGRP
		}
		if st.Mode&bit == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// longestSocket is the most bytes that the path of a Unix socket can have.
const longestSocket = 107

// dirs is where a clamd of ours has its files.
type dirs struct {
	lock      *os.File // held while we run
	root      string   // configuration, socket and temporary files
	temporary bool     // root is to be removed in the end
}

func (d dirs) conf() string   { return filepath.Join(d.root, "clamd.conf") }
func (d dirs) socket() string { return filepath.Join(d.root, "clamd.sock") }
func (d dirs) temp() string   { return filepath.Join(d.root, "tmp") }

// prepare makes the directories. Where clamd's account cannot get to dir, or its path is too long for a socket, a temporary
// directory is used instead; the lock is in dir in any case.
func prepare(dir string, a *account) (dirs, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return dirs{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dirs{}, fmt.Errorf("dir: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return dirs{}, fmt.Errorf("dir: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return dirs{}, errors.Join(fmt.Errorf("dir: %s is in use by another lazaret: %w", dir, err), lock.Close())
	}
	d := dirs{lock: lock, root: dir}
	if !a.reaches(dir) || len(d.socket()) > longestSocket {
		if d.root, err = elsewhere(filepath.Join(dir, "elsewhere")); err != nil {
			return dirs{}, errors.Join(fmt.Errorf("temporary directory for clamd: %w", err), lock.Close())
		}
		d.temporary = true
	}
	if err := d.fill(a); err != nil {
		return dirs{}, errors.Join(err, d.release())
	}
	return d, nil
}

// elsewhere makes a temporary directory. note is a file of ours that names it, so that the one of a run which was killed is
// removed by the next.
func elsewhere(note string) (string, error) {
	prefix := filepath.Join(os.TempDir(), "lazaret-clamd-")
	if old, err := os.ReadFile(note); err == nil && strings.HasPrefix(string(old), prefix) && filepath.Clean(string(old)) == string(old) {
		if err := os.RemoveAll(string(old)); err != nil { //nolint:gosec // the note is ours, in a directory for us alone
			return "", err
		}
	}
	root, err := os.MkdirTemp("", filepath.Base(prefix))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(note, []byte(root), 0o600); err != nil {
		return "", errors.Join(err, os.RemoveAll(root))
	}
	return root, nil
}

// fill empties what an earlier clamd left, and gives the directories to a.
func (d dirs) fill(a *account) error {
	if err := a.own(d.root); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	if err := os.RemoveAll(d.temp()); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	if err := os.Mkdir(d.temp(), 0o700); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	if err := a.own(d.temp()); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	return nil
}

// release ends the lock, and removes what was temporary.
func (d dirs) release() error {
	var errs []error
	if d.temporary {
		errs = append(errs, os.RemoveAll(d.root))
	} else {
		errs = append(errs, os.RemoveAll(d.temp()))
	}
	return errors.Join(append(errs, d.lock.Close())...)
}
