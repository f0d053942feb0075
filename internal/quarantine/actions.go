package quarantine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Action is a line of audit.log: who did what with an entry.
type Action struct {
	Time      time.Time `json:"time"`
	Who       string    `json:"who"`
	Action    string    `json:"action"` // list, show, export, release, delete, purge; evict and expire by the gateway
	Reference string    `json:"reference,omitempty"`
	Signature string    `json:"signature,omitempty"`
	SHA256    string    `json:"sha256,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Outcome   string    `json:"outcome"` // "begun", "done", or what went wrong
}

// maxActions is the size from which audit.log is put aside as audit.log.1, in the place of a former one.
const maxActions = 16 << 20

// Record writes a line of audit.log, durably. Where it cannot be written, the action must not take place.
func (s *Store) Record(a Action) (err error) {
	if a.Time.IsZero() {
		a.Time = time.Now()
	}
	a.Who, a.Detail, a.Outcome = bound(a.Who, maxText), bound(a.Detail, maxText), bound(a.Outcome, maxText)
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("quarantine: audit.log: %w", err)
	}
	f, err := s.openActions()
	if err != nil {
		return fmt.Errorf("quarantine: audit.log: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("quarantine: audit.log: %w", err)
	}
	return nil
}

// openActions opens audit.log for one line. It is locked so that nobody puts it aside meanwhile.
func (s *Store) openActions() (*os.File, error) {
	path := filepath.Join(s.dir, "audit.log")
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX), s.giveToOwner(f)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		now, err := os.Stat(path)
		switch {
		case err != nil || !os.SameFile(st, now): // put aside before it was locked
		case st.Size() < maxActions:
			return f, nil
		default:
			if err := os.Rename(path, path+".1"); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// giveToOwner has a file that root has made belong to whom the folder belongs to: the gateway may run as another user.
func (s *Store) giveToOwner(f *os.File) error {
	var st unix.Stat_t
	if os.Geteuid() != 0 {
		return nil
	}
	if err := unix.Stat(s.dir, &st); err != nil {
		return err
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// note records what the gateway itself does. It goes on without the line where there is none to be had: entries have to go.
func (s *Store) note(action, id, detail string) {
	if err := s.Record(Action{Who: "lazaret", Action: action, Reference: id, Detail: detail, Outcome: "begun"}); err != nil {
		s.log.Error("the quarantine's audit.log cannot be written", "error", err)
	}
}
