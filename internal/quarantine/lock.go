package quarantine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// shared locks the folder against repairs for as long as something in it is changed, and returns what unlocks it. The system
// unlocks it too when the process dies.
func (s *Store) shared(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(s.lockPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("quarantine: lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // nothing was written to it
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("quarantine: lock: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("quarantine: it is being repaired: %w", ctx.Err()), f.Close())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// exclusive locks the folder for repairs. ok is false where somebody is changing something just now.
func (s *Store) exclusive() (unlock func(), ok bool, err error) {
	f, err := os.OpenFile(s.lockPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("quarantine: lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return func() { _ = f.Close() }, true, nil // nothing was written to it
	}
	closed := f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, false, closed
	}
	return nil, false, fmt.Errorf("quarantine: lock: %w", err)
}
