// Package proc reads what processes use from Linux's /proc: processor time and memory of a process and of everything
// that descends from it.
package proc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor times in /proc: USER_HZ, which is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat says, as far as it is of use here.
type stat struct {
	pid, ppid int
	cpu       time.Duration // user and system, its own and that of the children it has waited for
	start     uint64        // ticks after boot; tells a process from a later one with the same id
}

// parseStat reads one line of /proc/PID/stat (see proc_pid_stat(5)). The program's name, in parentheses, may hold anything.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return stat{}, fmt.Errorf("no program name in %q", line)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:open])))
	if err != nil {
		return stat{}, fmt.Errorf("no process id in %q", line)
	}
	f := strings.Fields(string(line[end+1:]))
	if len(f) < 20 {
		return stat{}, fmt.Errorf("only %d fields in %q", len(f), line)
	}
	s := stat{pid: pid}
	if s.ppid, err = strconv.Atoi(f[1]); err != nil {
		return stat{}, fmt.Errorf("no parent in %q", line)
	}
	for _, v := range f[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("no processor time in %q", line)
		}
		s.cpu += time.Duration(n) * tick
	}
	if s.start, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("no start time in %q", line)
	}
	return s, nil
}

func read(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// tree returns the processes in roots that live, and all that descend from them.
func tree(roots []int) ([]stat, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]stat)
	var found []stat
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		s, err := read(pid)
		if err != nil {
			continue // it ended meanwhile
		}
		if slices.Contains(roots, pid) {
			found = append(found, s)
		} else {
			children[s.ppid] = append(children[s.ppid], s)
		}
	}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found, nil
}

// Process names a process for good: ids are used again, the moment of its start is not.
type Process struct {
	PID   int
	start uint64
}

// Alive reports whether it is still there, not as a zombie's successor under the same id.
func (p Process) Alive() bool {
	s, err := read(p.PID)
	return err == nil && s.start == p.start
}

// Tree returns the processes roots, as far as they live, and all that descend from them.
func Tree(roots ...int) ([]Process, error) {
	stats, err := tree(roots)
	if err != nil {
		return nil, err
	}
	out := make([]Process, len(stats))
	for i, s := range stats {
		out[i] = Process{s.pid, s.start}
	}
	return out, nil
}

// CPU returns the processor time, user and system, that roots and their descendants have used. Its resolution is 10 ms.
// What descendants used that have ended and been waited for is in it.
func CPU(roots ...int) (time.Duration, error) {
	stats, err := tree(roots)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, s := range stats {
		sum += s.cpu
	}
	return sum, nil
}

// kib returns the values in bytes of "Key:   123 kB" lines.
func kib(b []byte, keys ...string) (map[string]int64, error) {
	out := make(map[string]int64)
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		k, v, ok := strings.Cut(sc.Text(), ":")
		if !ok || !slices.Contains(keys, k) {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("cannot read %q", sc.Text())
		}
		out[k] = n * 1024
	}
	if len(out) != len(keys) {
		return nil, fmt.Errorf("found only %d of %v", len(out), keys)
	}
	return out, sc.Err()
}

// Memory is the memory of a process tree in bytes.
type Memory struct {
	PSS  int64 // proportional set size: pages that processes share are counted once
	RSS  int64 // resident set sizes, added up
	Peak int64 // highest resident set sizes since the last ResetPeak, added up
}

// MemoryOf returns the memory of roots and their descendants.
func MemoryOf(roots ...int) (Memory, error) {
	stats, err := tree(roots)
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for _, s := range stats {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
		if err != nil {
			continue // it ended meanwhile
		}
		v, err := kib(status, "VmRSS", "VmHWM")
		if err != nil {
			continue // a zombie has no memory
		}
		m.RSS += v["VmRSS"]
		m.Peak += v["VmHWM"]
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid))
		if err != nil {
			if errors.Is(err, os.ErrPermission) {
				return Memory{}, fmt.Errorf("memory of process %d: %w: run the benchmark as the user who owns its processes, or as root", s.pid, err)
			}
			continue
		}
		if v, err = kib(rollup, "Pss"); err != nil {
			continue
		}
		m.PSS += v["Pss"]
	}
	return m, nil
}

// ResetPeak makes the peaks of roots and their descendants start anew at what they use now.
func ResetPeak(roots ...int) error {
	stats, err := tree(roots)
	if err != nil {
		return err
	}
	for _, s := range stats {
		// "5" resets the peak resident set size, see proc_pid_clear_refs(5).
		err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("resetting the peak memory of process %d: %w", s.pid, err)
		}
	}
	return nil
}

// Shmem returns the machine's memory in tmpfs and memfds, in bytes, which no process's resident set holds.
func Shmem() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	v, err := kib(b, "Shmem")
	return v["Shmem"], err
}

// Busy returns the processor time that everything on the machine has used since boot, over all processors, and the time
// that the hypervisor has taken away.
func Busy() (used, stolen time.Duration, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseBusy(b)
}

func parseBusy(b []byte) (used, stolen time.Duration, err error) {
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal ...
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, fmt.Errorf("unexpected first line of /proc/stat: %q", line)
	}
	for i, v := range f[1:9] {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("unexpected first line of /proc/stat: %q", line)
		}
		switch i {
		case 3, 4: // idle, iowait
		case 7:
			stolen = time.Duration(n) * tick
		default:
			used += time.Duration(n) * tick
		}
	}
	return used, stolen, nil
}

// Unlinked returns how many bytes of disk the files take that the processes have open and that have no name any more. Files in
// memory (memfds) are not counted, nor are descendants of the processes.
func Unlinked(pids ...int) (int64, error) {
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	var total int64
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			return 0, err
		}
		for _, fd := range fds {
			path := filepath.Join(dir, fd.Name())
			to, err := os.Readlink(path)
			if err != nil || strings.HasPrefix(to, "/memfd:") || strings.HasPrefix(to, "/dev/shm/") {
				continue // it has been closed meanwhile, or is in memory
			}
			var st syscall.Stat_t
			if syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Nlink > 0 || seen[file{st.Dev, st.Ino}] {
				continue
			}
			seen[file{st.Dev, st.Ino}] = true
			total += st.Blocks * 512
		}
	}
	return total, nil
}
