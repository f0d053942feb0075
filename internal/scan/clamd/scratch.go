package clamd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// scratch is the file of a session that small objects are handed over in, one after the other: to make a memfd for each costs more
// than all else that is done for it. It is written anew only when clamd has replied, and is done with what was in it; a session
// that was left in the middle of a scan is closed, and its scratch is not used again.
type scratch struct {
	f    *os.File // nil: it has not been made yet
	fd   int
	size int64
}

// maxScratch is how large an object in a scratch may be, in bytes: as much memory is kept for each session.
const maxScratch = 256 << 10

// hold has the file hold b, from its start, and be positioned there.
func (s *scratch) hold(b []byte) error {
	if s.f == nil {
		fd, err := unix.MemfdCreate("lazaret-object", unix.MFD_CLOEXEC)
		if err != nil {
			return fmt.Errorf("memfd_create: %w", err)
		}
		s.f, s.fd, s.size = os.NewFile(uintptr(fd), "memfd:lazaret-object"), fd, 0
	}
	if s.size > int64(len(b)) {
		// What is beyond the end of a file cannot be read, whatever was there before.
		if err := unix.Ftruncate(s.fd, int64(len(b))); err != nil {
			return fmt.Errorf("memfd: %w", err)
		}
		s.size = int64(len(b))
	}
	for at := 0; at < len(b); {
		n, err := unix.Pwrite(s.fd, b[at:], int64(at))
		if err == unix.EINTR { //nolint:errorlint // the system call's own number
			continue
		}
		if err != nil || n <= 0 {
			return fmt.Errorf("memfd: %w", err)
		}
		at += n
		s.size = max(s.size, int64(at))
	}
	// The position is shared with whom it was handed to before.
	if _, err := unix.Seek(s.fd, 0, unix.SEEK_SET); err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	return nil
}

func (s *scratch) close() {
	if s.f != nil {
		_ = s.f.Close() // memory: nothing is lost with it
		s.f = nil
	}
}
