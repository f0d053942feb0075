package trust

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// User is somebody whose browsers are to trust the gateway.
type User struct {
	Name     string
	Home     string
	UID, GID uint32
}

// CallingUser returns who called the program: also where sudo or doas has made root of them. The error says who cannot be
// found.
func CallingUser() (User, error) {
	if os.Geteuid() == 0 {
		for _, key := range []string{"SUDO_USER", "DOAS_USER"} {
			if name := os.Getenv(key); name != "" && name != "root" {
				u, err := user.Lookup(name)
				if err != nil {
					return User{}, fmt.Errorf("%s: %w", key, err)
				}
				return of(u)
			}
		}
	}
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		return User{}, err
	}
	found, err := of(u)
	if home := os.Getenv("HOME"); home != "" && os.Geteuid() == os.Getuid() {
		found.Home = home
	}
	return found, err
}

func of(u *user.User) (User, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return User{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return User{}, err
	}
	return User{Name: u.Username, Home: u.HomeDir, UID: uint32(uid), GID: uint32(gid)}, nil
}

// credential has a tool run as the user. It is nil where the process is the user's already.
func (u *User) credential() *syscall.Credential {
	if uint32(os.Geteuid()) == u.UID { //nolint:gosec // a user's number is no larger
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID}
}
