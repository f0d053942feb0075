package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcHeadroom is how much is allocated between two garbage collections at least. A gateway lives on little memory, and by
// Go's default (as much again as is alive) would collect hundreds of times a second under load.
const gcHeadroom = 20 << 20

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
	go restGC(time.NewTicker(restEvery).C, debug.FreeOSMemory)
}

// What was allocated under load waits for the next collection, which may be long in coming when nobody allocates any more: a gateway
// with a thousand idle connections would hold gcHeadroom of garbage beside them.
const (
	restEvery = 250 * time.Millisecond // how often it is looked
	restQuiet = 256 << 10              // so little allocated in between is rest
	restWorth = 4 << 20                // so much must have been allocated since it last rested
)

// restGC has free, which collects garbage and gives memory back to the system, called once whenever the gateway comes to rest. It
// looks at each tick, and returns when tick is closed.
func restGC(tick <-chan time.Time, free func()) {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	allocated := func() uint64 {
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	last := allocated()
	rested := last
	for range tick {
		now := allocated()
		if now-last < restQuiet && now-rested > restWorth {
			free()
			now = allocated()
			rested = now
		}
		last = now
	}
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
