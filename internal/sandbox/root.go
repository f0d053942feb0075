package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// kept are the rights that a gateway keeps when it gives root up.
var kept = []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN}

// BecomeUser gives root up: the program is started anew as the user of that name or number, with the rights to ports below
// 1024 and to the firewall. It returns without an error where the process is not root, or name is empty; otherwise only on an
// error. It must be called before anything is opened.
func BecomeUser(name string) error {
	if name == "" || os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := lookUp(name)
	if err != nil {
		return err
	}
	if uid == 0 {
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("[sandbox] user: %w", err)
	}
	// The new program gets the rights of the thread that starts it: only this one is changed, and nothing else runs on it.
	runtime.LockOSThread()
	if err := shed(uid, gid); err != nil {
		return fmt.Errorf("[sandbox] user: becoming %s: %w", name, err)
	}
	return fmt.Errorf("[sandbox] user: starting anew as %s: %w", name, unix.Exec(exe, os.Args, os.Environ()))
}

func lookUp(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return 0, 0, fmt.Errorf("[sandbox] user: there is no user %q", name)
		}
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(errU, errG)
}

// shed changes this thread: user and group, no other groups, and the kept rights as ambient ones, which outlast exec.
func shed(uid, gid int) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	// Go's own functions would change every thread; these change this one.
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return e
	}
	var mask uint32
	var left []uintptr
	for _, c := range kept {
		// A container may have taken a right from root already.
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && has == 1 {
			mask |= 1 << c
			left = append(left, c)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: mask, Permitted: mask, Inheritable: mask}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	for _, c := range left {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return err
		}
	}
	return nil
}
