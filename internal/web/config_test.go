package web

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestConfigIsReadFromTOML(t *testing.T) {
	c := Default()
	err := toml.Unmarshal([]byte(`
listen = ["[::1]:3128", ":8080", "systemd:web"]
allow_clients = ["192.168.0.0/16", "fd00::/8"]
connect_ports = [443, "8000-8999"]
stall_timeout = "30s"
max_body = "10 MiB"
`), &c)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(c.Listen) != 3 || c.AllowClients[0] != netip.MustParsePrefix("192.168.0.0/16") || c.MaxBody != 10<<20 {
		t.Errorf("read: %+v", c)
	}
	for port, want := range map[uint16]bool{443: true, 8000: true, 8999: true, 9000: false, 80: false, 444: false} {
		if c.ConnectPorts.Contain(port) != want {
			t.Errorf("port %d: %v", port, !want)
		}
	}
}

func TestConfigErrorsNameTheirKey(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Config)
	}{
		{"listen", func(c *Config) { c.Listen = []string{"3128"} }},
		{"listen", func(c *Config) { c.Listen = []string{"localhost:http"} }},
		{"listen", func(c *Config) { c.Listen = []string{"systemd:"} }},
		{"transparent", func(c *Config) { c.Transparent = []string{"x"} }},
		{"allow_clients", func(c *Config) { c.AllowClients = nil }},
		{"allow_clients", func(c *Config) { c.AllowClients = []netip.Prefix{{}} }},
		{"max_header", func(c *Config) { c.MaxHeader = 5 }},
		{"max_response_header", func(c *Config) { c.MaxResponseHeader = 1 << 40 }},
		{"max_body", func(c *Config) { c.MaxBody = -1 }},
		{"hold_size", func(c *Config) { c.HoldSize = -1 }},
		{"hold_time", func(c *Config) { c.HoldTime = 0 }},
		{"trickle", func(c *Config) { c.Trickle = -1 }},
		{"keepback", func(c *Config) { c.Keepback = -1 }},
		{"min_rate", func(c *Config) { c.MinRate = -1 }},
		{"max_streams", func(c *Config) { c.MaxStreams = 0 }},
		{"max_connections", func(c *Config) { c.MaxConnections = 0 }},
		{"max_connections_per_client", func(c *Config) { c.MaxConnectionsClient = -1 }},
		{"header_timeout", func(c *Config) { c.HeaderTimeout = 0 }},
		{"idle_timeout", func(c *Config) { c.IdleTimeout = 0 }},
		{"reply_timeout", func(c *Config) { c.ReplyTimeout = 0 }},
		{"stall_timeout", func(c *Config) { c.StallTimeout = 0 }},
		{"stream_timeout", func(c *Config) { c.StreamTimeout = 0 }},
	} {
		cfg := Default()
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.key+": ") {
			t.Errorf("%s: %v", c.key, err)
		}
	}
}

func FuzzPortRange(f *testing.F) {
	for _, s := range []string{"443", "1-65535", "0", "9-8", "-", "65536", " 1 - 2 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p, again PortRange
		if p.UnmarshalText([]byte(s)) != nil {
			return
		}
		if p.First == 0 || p.Last < p.First {
			t.Fatalf("%q became %+v", s, p)
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || again != p {
			t.Fatalf("%q became %v, and that %v (%v)", s, p, again, err)
		}
	})
}
