package daemon

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// limitMemory has Go collect garbage more often where the process comes near to what it may have, once in a process. What objects and
// decoders may take is bounded elsewhere (spool.total_memory, unpack.total_memory); this is for what is garbage, and for faults in
// that counting. Whoever sets GOMEMLIMIT has decided otherwise.
var limitMemory = sync.OnceValue(func() int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	n := memoryLimit(cgroupMemory("/proc/self/cgroup", "/sys/fs/cgroup"), machineMemory())
	if n > 0 {
		debug.SetMemoryLimit(n)
	}
	return n
})

// memoryLimit returns the limit for a process in a control group with that limit, on a machine with that much memory: three quarters
// of the one or half of the other, whichever is less. The rest is for engines, for the kernel's buffers of connections, and for what
// Go does not count. 0 for either: not known; 0 is returned where neither is.
func memoryLimit(cgroup, machine int64) int64 {
	limit := int64(math.MaxInt64)
	if cgroup > 0 {
		limit = cgroup / 4 * 3
	}
	if machine > 0 {
		limit = min(limit, machine/2)
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// cgroupMemory returns the smallest memory.max of the control group (version 2) that the file self names, and of those above it; 0:
// there is none.
func cgroupMemory(self, root string) int64 {
	text, err := os.ReadFile(self)
	if err != nil {
		return 0
	}
	least := int64(0)
	for line := range strings.Lines(string(text)) {
		dir, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir = filepath.Clean("/" + dir); ; dir = filepath.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(root, dir, "memory.max"))
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil && n > 0 && (least == 0 || n < least) {
				least = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// machineMemory returns how much memory the machine has; 0: not known.
func machineMemory() int64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 0
	}
	return int64(i.Totalram) * int64(max(i.Unit, 1)) //nolint:unconvert // not on 32-bit machines
}

// mib writes a number of bytes for the log.
func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
