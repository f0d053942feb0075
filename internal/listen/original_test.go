package listen

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// inNamespace runs the test named again in a network namespace of its own, where it may do what it likes; there it returns
// true. It needs root and says so where it is not.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("LISTEN_TEST_NETNS") != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces can be made by root only")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "LISTEN_TEST_NETNS=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

func run(t *testing.T, stdin string, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

func TestOriginalDestinationOfRedirectedTraffic(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, cmd := range []string{
		"ip link set lo up",
		"ip addr add 10.9.9.1/32 dev lo", "ip addr add fd09::1/128 dev lo",
		"ip route add default dev lo src 10.9.9.1", "ip -6 route add default dev lo src fd09::1",
		// TPROXY: what is marked comes back as if it had arrived here.
		"ip rule add fwmark 1 lookup 100", "ip -6 rule add fwmark 1 lookup 100",
		"ip route add local default dev lo table 100", "ip -6 route add local default dev lo table 100",
	} {
		run(t, "", strings.Fields(cmd)...)
	}
	listen := func(address string) *Listener {
		ls, err := Listen(t.Context(), address, Default(), Options{Transparent: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ls[0].Close() })
		return ls[0]
	}
	l := listen(":0")
	v4 := listen("127.0.0.1:0")
	v6 := listen("[::1]:0")
	portOf := func(l *Listener) int { return l.Addr().(*net.TCPAddr).Port }
	run(t, fmt.Sprintf(`table inet t {
		chain redirected {
			type nat hook output priority -100;
			ip daddr 192.0.2.7 tcp dport 443 redirect to :%[1]d
			ip6 daddr 2001:db8::7 tcp dport 443 redirect to :%[1]d
		}
		chain marked {
			type route hook output priority -150;
			ip daddr 198.51.100.7 tcp dport 443 meta mark set 1
			ip6 daddr 2001:db8:1::7 tcp dport 443 meta mark set 1
		}
		chain tproxied {
			type filter hook prerouting priority -150;
			meta mark 1 meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:%[2]d accept
			meta mark 1 meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:%[3]d accept
		}
	}`, portOf(l), portOf(v4), portOf(v6)), "nft", "-f", "-")
	for _, tc := range []struct {
		what, dst string
		at        *Listener
	}{
		{"REDIRECT, IPv4", "192.0.2.7:443", l},
		{"REDIRECT, IPv6", "[2001:db8::7]:443", l},
		{"TPROXY, IPv4", "198.51.100.7:443", v4},
		{"TPROXY, IPv6", "[2001:db8:1::7]:443", v6},
	} {
		c, err := net.DialTimeout("tcp", tc.dst, 10*time.Second)
		if err != nil {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		got := accept(t, tc.at)
		if got.Original().String() != tc.dst {
			t.Errorf("%s: original destination %v, want %s", tc.what, got.Original(), tc.dst)
		}
		if got.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("%s: the client is %v, want %v", tc.what, got.RemoteAddr(), c.LocalAddr())
		}
		_ = c.Close()
	}
	for _, addr := range []string{"127.0.0.1", "10.9.9.1", "[fd09::1]"} {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, portOf(l)), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got := accept(t, l); got.Original().IsValid() {
			t.Errorf("a direct connection to %s has the original destination %v", addr, got.Original())
		}
		_ = c.Close()
	}
}
