package service

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"lazaret/test/harness"

	"golang.org/x/sys/unix"
)

// TestEveryThreadLetsItsTimersBeLate holds the gateway to what docs/decisions/0017 says: the runtime's watchman, too, which is there
// before any code of ours runs.
func TestEveryThreadLetsItsTimersBeLate(t *testing.T) {
	// The gateway has the slack of the thread that starts it, and leaves any but the system's as it is.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 50_000, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	g := harness.Start(t, harness.Settings{})
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", g.PID()))
	if err != nil || len(threads) < 3 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		slack, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		if err != nil || strings.TrimSpace(string(slack)) != "2000000" {
			t.Errorf("thread %s: %s %v", thread.Name(), slack, err)
		}
	}
}
