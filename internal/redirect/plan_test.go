package redirect

import (
	"net/netip"
	"strings"
	"testing"
)

func nets(words ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, w := range words {
		out = append(out, netip.MustParsePrefix(w))
	}
	return out
}

// tutorial is the network of P3Scan's tutorial: eth0 towards the router, 192.168.0.0/24 left alone, port 110 led to 8110.
func tutorial() Config {
	c := Default()
	c.Interfaces = []string{"eth0"}
	c.Exclude = nets("192.168.0.0/24")
	c.ExcludePrivate = false
	c.WebPorts = nil
	c.POP3Ports = []uint16{110}
	return c
}

func TestTutorialIsRecognised(t *testing.T) {
	p, err := New(tutorial(), Listeners{POP3: []string{":8110"}})
	if err != nil {
		t.Fatal(err)
	}
	script := p.Script()
	for _, want := range []string{
		`elements = { "eth0" }`, "elements = { 192.168.0.0/24 }", "ip daddr @exclude4 return", "tcp dport 110 counter redirect to :8110",
		"fib daddr type local return", "udp dport 443 counter reject",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the script lacks %q:\n%s", want, script)
		}
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Config)
		at   Listeners
		want string
	}{
		{"no interface", func(c *Config) { c.Interfaces = nil }, Listeners{POP3: []string{":8110"}}, "interfaces"},
		{"nothing listens", func(*Config) {}, Listeners{}, "transparent"},
		{"loopback", func(*Config) {}, Listeners{POP3: []string{"127.0.0.1:8110"}}, "this machine alone"},
		{"port 0", func(*Config) {}, Listeners{POP3: []string{":0"}}, "no fixed port"},
		{"systemd", func(*Config) {}, Listeners{POP3: []string{"systemd:pop3"}}, "systemd"},
		{"a name", func(*Config) {}, Listeners{POP3: []string{"mail.example:8110"}}, "is a name"},
		{"local without a mark", func(c *Config) { c.Local = true }, Listeners{POP3: []string{":8110"}}, "come back to it"},
		{"local and TPROXY", func(c *Config) { c.Local, c.Method = true, MethodTProxy }, Listeners{POP3: []string{":8110"}}, "local"},
		{"unknown user", func(c *Config) { c.Local, c.User = true, "no such user" }, Listeners{POP3: []string{":8110"}}, "user"},
		{"injection", func(c *Config) { c.Interfaces = []string{`a"; drop`} }, Listeners{POP3: []string{":8110"}}, "interfaces"},
		{"port twice", func(c *Config) { c.WebPorts = []uint16{110} }, Listeners{POP3: []string{":8110"}}, "pop3_ports"},
		{"method", func(c *Config) { c.Method = "magic" }, Listeners{POP3: []string{":8110"}}, "method"},
		{"failure", func(c *Config) { c.OnFailure = "" }, Listeners{POP3: []string{":8110"}}, "on_failure"},
	} {
		cfg := tutorial()
		c.edit(&cfg)
		if _, err := New(cfg, c.at); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, wanted something about %q", c.name, err, c.want)
		}
	}
}

func TestFamilyWithoutAListenerIsRejected(t *testing.T) {
	p, err := New(tutorial(), Listeners{POP3: []string{"192.168.0.9:8110"}})
	if err != nil {
		t.Fatal(err)
	}
	s := p.Script()
	if !strings.Contains(s, "meta nfproto ipv4 tcp dport 110 counter dnat ip to 192.168.0.9:8110") ||
		!strings.Contains(s, "meta nfproto ipv6 tcp dport 110 counter reject with tcp reset") || len(p.Warnings) != 1 {
		t.Errorf("%v\n%s", p.Warnings, s)
	}
}

func TestOverlappingNetworksAreOne(t *testing.T) {
	got := byFamily(nets("10.1.2.0/24", "10.0.0.0/8", "10.1.2.3/32", "192.168.0.77/24", "fd00::/8", "fd00:1::/32"))
	if len(got[0]) != 2 || got[0][0] != netip.MustParsePrefix("10.0.0.0/8") || got[0][1] != netip.MustParsePrefix("192.168.0.0/24") || len(got[1]) != 1 {
		t.Error(got)
	}
}

func TestRouterScripts(t *testing.T) {
	p, err := New(tutorial(), Listeners{POP3: []string{":8110"}})
	if err != nil {
		t.Fatal(err)
	}
	r := Router{Interface: "eth1", Gateway: netip.MustParseAddr("192.168.0.9")}
	script, err := p.RouterScript(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`iifname "eth1" ip saddr != 192.168.0.9`, "ip daddr != @exclude", "tcp dport { 110 }", "meta mark set 0x1a2a",
		"ip rule add fwmark 0x1a2a lookup 6698", "ip route replace default via 192.168.0.9 dev eth1 table 6698",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the router's script lacks %q:\n%s", want, script)
		}
	}
	old, err := p.RouterIPTables(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-A LAZARET -s 192.168.0.9 -j RETURN", "-A LAZARET -d 192.168.0.0/24 -j RETURN", "--dports 110 -j MARK --set-mark 0x1a2a"} {
		if !strings.Contains(old, want) {
			t.Errorf("the script for iptables lacks %q:\n%s", want, old)
		}
	}
	for _, bad := range []Router{{}, {Interface: "eth1"}, {Interface: "eth1", Gateway: netip.MustParseAddr("127.0.0.1")}} {
		if _, err := p.RouterScript(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
		if _, err := p.RouterIPTables(bad); err == nil {
			t.Errorf("%+v is taken for iptables", bad)
		}
	}
}
