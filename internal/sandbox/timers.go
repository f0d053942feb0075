package sandbox

import (
	"fmt"
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

// SlackenTimers lets the timers of this thread, and of the program that it starts anew, be up to two milliseconds late, and says whether
// there is something to start anew for: see StartAnew. Go's runtime has a thread that looks after the others, every 20 microseconds while
// something is going on; a gateway that handles one small object after the other wakes it up with each of them, for several such
// looks, which cost a quarter of all its processor time. Whoever has set another slack (systemd's TimerSlackNSec=) has decided
// otherwise. From here on the caller stays on its thread.
func SlackenTimers() (anew bool) {
	if os.Getenv(slackEnv) != "" {
		_ = os.Unsetenv(slackEnv) // cannot fail for that name
		return false
	}
	runtime.LockOSThread()
	is, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || is != systemSlack || unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		runtime.UnlockOSThread()
		return false
	}
	return true
}

// StartAnew starts the program anew in its own place, so that all its threads are as the one that calls is. It returns only on an error,
// after which the program can go on as it is. It must be called before anything is opened.
func StartAnew() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("starting anew: %w", err)
	}
	return fmt.Errorf("starting anew: %w", unix.Exec(exe, os.Args, append(os.Environ(), slackEnv+"=done")))
}
