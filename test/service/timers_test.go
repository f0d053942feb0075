package service

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"lazaret/test/harness"
)

// TestEveryThreadLetsItsTimersBeLate holds the gateway to what docs/decisions/0017 says: the runtime's watchman, too, which is there
// before any code of ours runs.
func TestEveryThreadLetsItsTimersBeLate(t *testing.T) {
	if own, err := os.ReadFile("/proc/self/timerslack_ns"); err != nil || strings.TrimSpace(string(own)) != "50000" {
		t.Skipf("NOT TESTED: whoever started this has chosen another slack: %s %v", own, err)
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
