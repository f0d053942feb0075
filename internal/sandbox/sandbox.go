// Package sandbox takes from this process what it does not need, so that whoever finds a hole in it gains little: by Landlock
// most of the file system, and all programs but the scanners'; by seccomp the system calls that nothing here has a use for;
// and, where it was started as root, root itself.
package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// How much is asked for.
const (
	Auto = "auto" // what the kernel has
	On   = "on"   // all of it, or no start
	Off  = "off"
)

// Config is the [sandbox] section.
type Config struct {
	Mode  string   `toml:"mode" doc:"\"auto\": what the kernel has of Landlock and seccomp is used; \"on\": the gateway does not start without; \"off\": none"`
	Read  []string `toml:"read" doc:"files and folders that scanners need besides the usual ones; what the settings name themselves need not be listed"`
	Write []string `toml:"write" doc:"folders that scanners write to, besides the temporary ones"`
	Exec  []string `toml:"exec" doc:"programs, and folders of programs, that scanners start in their turn, such as \"/usr/bin\" for a scanner that is a shell script"`
	User  string   `toml:"user" doc:"whom a gateway that is started as root becomes, keeping the rights to ports below 1024 and to the firewall; empty: it stays root"`
}

// Default returns the settings that work without a file.
func Default() Config { return Config{Mode: Auto} }

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	if !slices.Contains([]string{Auto, On, Off}, c.Mode) {
		errs = append(errs, fmt.Errorf("mode: %q is not known: write \"auto\", \"on\" or \"off\"", c.Mode))
	}
	for _, l := range []struct {
		key   string
		paths []string
	}{{"read", c.Read}, {"write", c.Write}, {"exec", c.Exec}} {
		for _, p := range l.paths {
			if !filepath.IsAbs(p) {
				errs = append(errs, fmt.Errorf("%s: %q is not an absolute path", l.key, p))
			}
		}
	}
	return errors.Join(errs...)
}

// Needs is what a process goes on needing. What is not there is left out.
type Needs struct {
	Read  []string // files and folders that are read
	Write []string // folders that are written to
	Exec  []string // programs, by path or name, that are started; one that is put in their place later is not
	// Programs are folders whose programs are started, those that come later, too. They must not be written to.
	Programs []string
}

// usual is what every gateway reads: resolver, certificates, time zones, and what it is told of itself.
var usual = []string{"/etc", "/usr/share", "/usr/local/share", "/usr/lib", "/lib", "/lib64", "/usr/lib64", "/usr/local/lib", "/proc", "/sys", "/run", "/dev/null", "/dev/urandom", "/dev/zero", "/dev/shm"}

// The rights that Landlock knows. Reading is without the right to execute, which go-landlock's own sets have.
const (
	read   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	start  = landlock.AccessFSSet(ll.AccessFSExecute | ll.AccessFSReadFile)
	write  = read | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSRemoveDir|ll.AccessFSRemoveFile|ll.AccessFSMakeDir|ll.AccessFSMakeReg|ll.AccessFSMakeSock|ll.AccessFSMakeFifo|ll.AccessFSMakeSym|ll.AccessFSRefer|ll.AccessFSTruncate)
	device = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile)
	// fileRights are those that can be given for something that is no folder.
	fileRights = landlock.AccessFSSet(ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate)
)

// version is the Landlock that is asked for: everything about files.
var version = landlock.V5

// Enter puts the sandbox in force for the whole process and everything that it starts; there is no way back. It says in
// words what is in force. With mode "auto" a part that the kernel does not have is left out, and said; with "on" it is an
// error.
func Enter(c Config, n Needs) (inForce []string, err error) {
	if c.Mode == Off {
		return []string{"nothing: [sandbox] mode is \"off\""}, nil
	}
	strict := c.Mode == On
	files := version
	if !strict {
		files = files.BestEffort()
	}
	// Each upgrade lays its own sandbox over those that it inherits, and the kernel has sixteen places for that: what comes
	// later is kept in by all of them.
	if err := files.RestrictPaths(rules(c, n)...); err != nil && !errors.Is(err, unix.E2BIG) {
		return nil, fmt.Errorf("[sandbox] Landlock: %w: write mode = \"auto\" to go on without", err)
	}
	if abi, err := ll.LandlockGetABIVersion(); err == nil && abi > 0 {
		inForce = append(inForce, fmt.Sprintf("Landlock (version %d)", min(abi, 5)))
	} else {
		inForce = append(inForce, "no Landlock: the kernel lacks it")
	}
	switch err := seccomp.LoadFilter(filter()); {
	case err == nil:
		inForce = append(inForce, "seccomp")
	case strict:
		return nil, fmt.Errorf("[sandbox] seccomp: %w: write mode = \"auto\" to go on without", err)
	default:
		inForce = append(inForce, "no seccomp: "+err.Error())
	}
	return inForce, nil
}

// rules turns needs into Landlock's rules.
func rules(c Config, n Needs) []landlock.Rule {
	rights := map[string]landlock.AccessFSSet{}
	allow := func(paths []string, r landlock.AccessFSSet) {
		for _, p := range paths {
			p, err := filepath.Abs(p)
			if err != nil {
				continue
			}
			st, err := os.Stat(p)
			if err != nil {
				continue // a rule needs something to be about
			}
			if !st.IsDir() {
				rights[p] |= r & fileRights
				continue
			}
			rights[p] |= r
		}
	}
	allow(usual, read)
	allow([]string{"/dev/null", "/dev/tty"}, device)
	allow(n.Read, read)
	allow(c.Read, read)
	allow(n.Write, write)
	allow(c.Write, write)
	allow([]string{os.TempDir(), "/dev/shm"}, write)
	for _, p := range c.Exec {
		allow([]string{p}, start|read)
	}
	allow(n.Programs, start|read)
	programs := programs(slices.Concat(n.Exec, c.Exec))
	allow(programs, start)
	if len(programs) > 0 {
		allow(loaders(), start)
	}
	var out []landlock.Rule
	for p, r := range rights {
		out = append(out, landlock.PathAccess(r, p))
	}
	return out
}

// programs returns where the programs are, with the interpreters of scripts.
func programs(names []string) []string {
	var out []string
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			continue // whoever starts it says so
		}
		out = append(out, path)
		if i := interpreter(path); i != "" {
			out = append(out, i)
		}
	}
	return out
}

// interpreter returns the program of a script's first line, empty for others.
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ""
	}
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	rest, ok := bytes.CutPrefix(line, []byte("#!"))
	if !ok {
		return ""
	}
	fields := strings.Fields(string(rest))
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// loaders returns the dynamic loaders, which the kernel starts for programs.
func loaders() []string {
	var out []string
	for _, pattern := range []string{"/lib*/ld-linux*.so*", "/lib*/ld-musl*.so*", "/lib/*/ld-linux*.so*", "/usr/lib/*/ld-linux*.so*"} {
		found, err := filepath.Glob(pattern)
		if err == nil {
			out = append(out, found...)
		}
	}
	return out
}

// filter refuses what no gateway and no scanner needs: to look into other processes, to load into the kernel, to change mounts,
// namespaces, clocks and accounts of keys.
func filter() seccomp.Filter {
	return seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{{
				Action: seccomp.ActionErrno,
				Names: []string{
					"acct", "add_key", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "init_module",
					"ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount", "move_mount",
					"name_to_handle_at", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "process_vm_readv",
					"process_vm_writev", "ptrace", "quotactl", "reboot", "request_key", "setdomainname", "sethostname", "setns",
					"settimeofday", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "vhangup",
				},
			}},
		},
	}
}
