package intercept

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// readKeyFile returns the contents of a private key's file, and refuses one that anybody but its owner can read or that
// belongs to another user; root may read what belongs to the gateway's.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat() // of the open file: the name may change hands meanwhile
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): `chmod 600 %s`", path, perm, path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() && sys.Uid != 0 && !rootForOwner(path, sys.Uid) {
		return nil, fmt.Errorf("%s belongs to user %d, not to the one that runs the gateway (%d): `chown` it", path, sys.Uid, os.Geteuid())
	}
	if st.Size() > 1<<20 {
		return nil, fmt.Errorf("%s is larger than any key", path)
	}
	b := make([]byte, st.Size())
	n, err := f.ReadAt(b, 0)
	if n < len(b) {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// writeNew writes a file in one step, so that it is there whole or not at all, and never over another one: the error is an
// fs.ErrExist then.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	return viaTemp(path, b, mode, os.Link)
}

// rootForOwner tells whether this is root at work on what belongs to the gateway's own user, as the commands of an administrator
// are (lazaret doctor, lazaret ca): the file's owner has the directory that holds it as well.
func rootForOwner(path string, owner uint32) bool {
	if os.Geteuid() != 0 {
		return false
	}
	st, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false
	}
	dir, ok := st.Sys().(*syscall.Stat_t)
	return ok && dir.Uid == owner
}

// replace writes a file in one step over the one that is there. It stays its owner's: root must not take the gateway's files
// away from the gateway.
func replace(path string, b []byte, mode fs.FileMode) error { return replaceAs(path, path, b, mode) }

// replaceAs is replace for a file that is to belong to the owner of another, where that is there.
func replaceAs(path, owned string, b []byte, mode fs.FileMode) error {
	return viaTemp(path, b, mode, func(tmp, path string) error {
		if st, err := os.Stat(owned); err == nil && os.Geteuid() == 0 {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				if err := os.Lchown(tmp, int(sys.Uid), int(sys.Gid)); err != nil {
					return err
				}
			}
		}
		return os.Rename(tmp, path)
	})
}

func viaTemp(path string, b []byte, mode fs.FileMode, place func(tmp, path string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // for the owner alone, from the first moment
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() {
		if e := os.Remove(tmp); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// stateOf returns what tells this content of a file from another.
func stateOf(st fs.FileInfo) fileState {
	s := fileState{size: st.Size(), mtime: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// checkFolder refuses the CA's folder where anybody but its owner can change what is in it: they could take the key away, or put
// a certificate there that clients are then told to trust. Root may look at the gateway's. The error is an fs.ErrNotExist where
// there is no folder.
func checkFolder(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if perm := st.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("the folder %s can be changed by others (mode %04o): look at what is in it, then `chmod 700 %s`", dir, perm, dir)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && os.Geteuid() != 0 && int(sys.Uid) != os.Geteuid() && sys.Uid != 0 {
		return fmt.Errorf("the folder %s belongs to user %d, not to the one that runs the gateway (%d): `chown` it", dir, sys.Uid, os.Geteuid())
	}
	return nil
}

// looseAbove says what is wrong where others could put another folder in the place of dir, or of one that it lies in; empty: nothing.
// Where symbolic links lead there, both ways count: a link can be exchanged, too.
func looseAbove(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "" // it could not be opened either
	}
	ways := []string{dir}
	if linked, err := filepath.EvalSymlinks(dir); err == nil && linked != dir {
		ways = append(ways, linked)
	}
	for _, way := range ways {
		for above := filepath.Dir(way); ; above = filepath.Dir(above) {
			if st, err := os.Stat(above); err == nil && st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
				return fmt.Sprintf("the folder %s can be changed by others (mode %04o), who could exchange what is in it, and so the CA's folder %s: `chmod go-w %s`",
					above, st.Mode().Perm(), dir, above)
			}
			if above == filepath.Dir(above) {
				break
			}
		}
	}
	return ""
}
