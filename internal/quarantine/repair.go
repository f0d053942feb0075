package quarantine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Maintain deletes what is too old, and puts in order what killed processes have left. The gateway calls it now and then.
func (s *Store) Maintain(ctx context.Context) error {
	err := s.repair(ctx)
	if s.cfg.MaxAge <= 0 {
		return err
	}
	_, expired := s.Purge(ctx, Filter{Until: time.Now().Add(-s.cfg.MaxAge.Std())}, func(id string) error {
		s.note("expire", id, "older than max_age")
		return nil
	})
	return errors.Join(err, expired)
}

// repair makes the index and the files agree. It does nothing where somebody is changing something at this moment.
func (s *Store) repair(ctx context.Context) error {
	unlock, ok, err := s.exclusive()
	if err != nil || !ok {
		return err
	}
	defer unlock()
	files, err := s.files()
	if err != nil {
		return err
	}
	entries, err := pick(ctx, s.db, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		size, there := files[e.id]
		delete(files, e.id)
		errs = append(errs, s.agree(ctx, e, size, there))
	}
	for id := range files {
		errs = append(errs, s.adopt(ctx, id))
	}
	return errors.Join(errs...)
}

// files returns the size of each entry's file, and removes those that were not finished.
func (s *Store) files() (map[string]int64, error) {
	names, err := os.ReadDir(s.objects)
	if err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	out := make(map[string]int64)
	for _, n := range names {
		id, whole := strings.CutSuffix(n.Name(), ".age")
		part, isPart := strings.CutSuffix(n.Name(), ".part")
		switch {
		case whole && validID.MatchString(id):
			st, err := n.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("quarantine: %w", err)
			}
			out[id] = st.Size()
		case isPart && validID.MatchString(part):
			if err := os.Remove(s.part(part)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("quarantine: %w", err)
			}
		}
	}
	return out, nil
}

// agree makes the index say of an entry what its file says.
func (s *Store) agree(ctx context.Context, e sized, size int64, there bool) error {
	switch {
	case e.state == deleting, e.state == writing && !there:
		return s.unlink(ctx, e.id)
	case e.state == writing, e.state == Missing && there:
		// A file has its name only once it is whole: this entry was kept, although nobody was told.
		_, err := s.db.ExecContext(ctx, "UPDATE entries SET state = ?, stored = ? WHERE id = ?", string(Stored), size, e.id)
		if err != nil {
			return fmt.Errorf("quarantine: index: %w", err)
		}
	case e.state == Stored && !there:
		s.log.Error("an entry of the quarantine has lost its file", "reference", e.id)
		return setState(ctx, s.db, Stored, Missing, e.id)
	}
	return nil
}

// adopt enters a file into the index that is not in it: the index was lost, or brought back from an older copy.
func (s *Store) adopt(ctx context.Context, id string) error {
	st, err := os.Stat(s.path(id))
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	e := Entry{ID: id, Time: st.ModTime(), Rule: "found without an entry in the index"}
	if about, content, err := s.open(id, s.identityPath()); err == nil {
		e = about
		if err := content.Close(); err != nil {
			return fmt.Errorf("quarantine: %w", err)
		}
	} else {
		s.log.Warn("an entry of the quarantine was found that is not in the index, and cannot be read here", "reference", id, "error", err)
	}
	// Age counts anew where it is not known; sizes are those of the file.
	seen, last := e.Seen, e.LastSeen
	if err := e.prepare(); err != nil {
		return fmt.Errorf("quarantine: %s: %w", s.path(id), err)
	}
	if seen > 0 {
		e.Seen, e.LastSeen = seen, last
	}
	e.State, e.Stored = Stored, st.Size()
	return insert(ctx, s.db, &e)
}
