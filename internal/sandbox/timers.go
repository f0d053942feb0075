package sandbox

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// systemSlack is by how much Linux lets a timer be late when nobody has asked for anything else (prctl(2), PR_SET_TIMERSLACK), and
	// timerSlack by how much the gateway does, in nanoseconds.
	systemSlack = 50_000
	timerSlack  = 2_000_000
	// slackEnv says to the program started anew that this was done, in case the kernel does not keep it.
	slackEnv = "LAZARET_TIMER_SLACK"
)

// SlackenTimers lets the program's timers be up to two milliseconds late. Go's runtime has a thread that looks after the others, every 20
// microseconds while something is going on; a gateway that handles one small object after the other wakes it up with each of them,
// for several such looks, which cost a quarter of all its processor time. Whoever has set another slack (systemd's TimerSlackNSec=)
// has decided otherwise.
//
// Threads have it from the one that makes them, and the runtime's are there already: so the program is started anew in its own place, once,
// with the same process number, arguments and environment. It must be called first of all, before signals are caught and anything is
// read or opened: what was read from a pipe would be gone. It returns where there is nothing to be done, or it could not be.
func SlackenTimers() {
	if os.Getenv(slackEnv) != "" {
		_ = os.Unsetenv(slackEnv) // cannot fail for that name
		return
	}
	exe, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if is, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || is != systemSlack {
		return
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		return
	}
	_ = unix.Exec(exe, os.Args, append(os.Environ(), slackEnv+"=done")) // it matters for speed alone
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, systemSlack, 0, 0, 0)        // this thread is to be as the others are
}
