package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// gcHeadroom is how much is allocated between two garbage collections at least. A gateway lives on little memory, and by
// Go's default (as much again as is alive) would collect hundreds of times a second under load.
const gcHeadroom = 32 << 20

// The percentages between which paceGC chooses.
const (
	gcPercentMin = 100 // Go's default
	gcPercentMax = 1000
)

// paceGC keeps gcHeadroom between collections while little is alive, and leaves it at Go's default when much is. Whoever
// sets GOGC or GOMEMLIMIT has decided otherwise.
func paceGC() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	followGC(&gcCycle{percent: gcPercentMin})
}

// gcCycle is garbage from the moment it is made: its finaliser runs once a collection.
type gcCycle struct {
	percent int
	_       [3]int // small objects without pointers share memory, and are not finalised reliably
}

func followGC(c *gcCycle) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if n := live[0].Value.Uint64(); n > 0 {
		percent := min(max(int(gcHeadroom*100/n), gcPercentMin), gcPercentMax)
		// Small changes are not worth it: setting the percentage stops the world.
		if percent < c.percent*4/5 || percent > c.percent*5/4 {
			debug.SetGCPercent(percent)
			c.percent = percent
		}
	}
	runtime.SetFinalizer(&gcCycle{percent: c.percent}, followGC)
}
