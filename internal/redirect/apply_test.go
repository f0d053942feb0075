package redirect

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// isolated runs f in a network namespace of its own, with an interface eth0. The thread is not used again.
func isolated(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace: %v", err)
			return
		}
		run(t, "", "ip", "link", "set", "lo", "up")
		run(t, "", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
		run(t, "", "ip", "link", "set", "eth0", "up")
		f(t)
	}()
	<-done
}

func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func everything() Config {
	c := Default()
	c.Interfaces = []string{"eth0"}
	c.Networks = nets("10.0.0.0/8", "fd00::/8")
	c.Exclude = nets("192.0.2.0/24", "0.0.0.0/8", "255.255.255.0/24")
	c.ExcludeClients = nets("10.9.9.9/32", "fd00::9/128")
	c.Local, c.User = true, "root"
	return c
}

// TestInstalledIsWhatTheScriptSays compares what nft lists after the gateway has installed a plan with what it lists after it
// has run the plan's script.
func TestInstalledIsWhatTheScriptSays(t *testing.T) {
	tproxy := everything()
	tproxy.Local, tproxy.Method = false, MethodTProxy
	open := tutorial()
	for name, c := range map[string]struct {
		cfg Config
		at  Listeners
	}{
		"everything":   {everything(), Listeners{Web: []string{":3129"}, POP3: []string{"10.0.0.1:8110"}, Mark: 77}},
		"tproxy":       {tproxy, Listeners{Web: []string{":3129"}, POP3: []string{"[fd00::1]:8110", "10.0.0.1:8110"}}},
		"the tutorial": {open, Listeners{POP3: []string{":8110"}}},
	} {
		t.Run(name, func(t *testing.T) {
			isolated(t, func(t *testing.T) {
				p, err := New(c.cfg, c.at)
				if err != nil {
					t.Error(err)
					return
				}
				run(t, p.Script(), "nft", "-f", "-")
				want := run(t, "", "nft", "list", "table", "inet", Table)
				if _, err := Install(p, false); err != nil {
					t.Error(err)
					return
				}
				got := run(t, "", "nft", "list", "table", "inet", Table)
				if sorted(got) != sorted(want) || !strings.Contains(got, "dport") {
					t.Errorf("installed:\n%s\nby the script:\n%s", got, want)
				}
				st, err := Look(p)
				if err != nil || !st.Installed || st.Owned || st.Differs != "" || len(st.Rules) == 0 {
					t.Errorf("status: %+v, %v", st, err)
				}
				if found, err := Remove(); err != nil || !found {
					t.Errorf("removing: %v, %v", found, err)
				}
				left := run(t, "", "nft", "list", "ruleset") + run(t, "", "ip", "rule") + run(t, "", "ip", "-6", "rule") +
					run(t, "", "ip", "route", "show", "table", "all") + run(t, "", "ip", "-6", "route", "show", "table", "all")
				if strings.Contains(left, Table) || strings.Contains(left, "6698") {
					t.Errorf("left behind:\n%s", left)
				}
				if found, err := Remove(); err != nil || found {
					t.Errorf("removing nothing: %v, %v", found, err)
				}
			})
		})
	}
}

// sorted leaves out the order of sets, which is of no account.
func sorted(listing string) string {
	var sets, rest []string
	var in bool
	for line := range strings.Lines(listing) {
		if strings.HasPrefix(line, "\tset ") {
			in = true
			sets = append(sets, "")
		}
		if in {
			sets[len(sets)-1] += line
		} else {
			rest = append(rest, strings.TrimSpace(line))
		}
		if in && strings.HasPrefix(line, "\t}") {
			in = false
		}
	}
	for i := range sets {
		for j := i + 1; j < len(sets); j++ {
			if sets[j] < sets[i] {
				sets[i], sets[j] = sets[j], sets[i]
			}
		}
	}
	var lines []string
	for _, l := range rest {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(sets, "") + strings.Join(lines, "\n")
}

func TestOwnedRulesGoWithTheirOwner(t *testing.T) {
	isolated(t, func(t *testing.T) {
		p, err := New(tutorial(), Listeners{POP3: []string{":8110"}})
		if err != nil {
			t.Error(err)
			return
		}
		i, err := Install(p, true)
		if err != nil {
			t.Error(err)
			return
		}
		if st, err := Look(p); err != nil || !st.Owned {
			t.Errorf("status: %+v, %v", st, err)
		}
		if _, err := Remove(); err == nil {
			t.Error("the rules of a running gateway were removed")
		}
		if err := i.Close(); err != nil {
			t.Error(err)
		}
		if st, err := Look(p); err != nil || st.Installed {
			t.Errorf("after the end: %+v, %v", st, err)
		}
	})
}

func TestUnknownInterfaceIsNamed(t *testing.T) {
	cfg := tutorial()
	cfg.Interfaces = []string{"nosuch0"}
	p, err := New(cfg, Listeners{POP3: []string{":8110"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Install(p, false); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Error(err)
	}
}
