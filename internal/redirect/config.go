// Package redirect leads other machines' traffic into the gateway: it turns a few words of the settings into nftables rules,
// shows them as a script, installs them in one transaction in a table of its own, and takes them away again. For networks
// whose router is another machine it writes the router's part.
package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The methods of taking traffic over.
const (
	MethodRedirect = "redirect" // NAT to the listener; the listener asks for the original destination
	MethodTProxy   = "tproxy"   // TPROXY: no NAT; the gateway's sockets have the servers' addresses
)

// What becomes of the traffic while the gateway does not work.
const (
	FailClosed = "closed" // it is refused
	FailOpen   = "open"   // it passes unscanned
)

// Config is the [redirect] section.
type Config struct {
	Interfaces     []string       `toml:"interfaces" doc:"whose forwarded traffic is taken over, such as [\"eth1\"]; with none, nothing is"`
	Networks       []netip.Prefix `toml:"networks" doc:"only clients of these networks; empty: everybody behind the interfaces"`
	Exclude        []netip.Prefix `toml:"exclude" doc:"networks left alone: what goes there is not taken over"`
	ExcludeClients []netip.Prefix `toml:"exclude_clients" doc:"clients left alone: what comes from there is not taken over, and not scanned"`
	ExcludePrivate bool           `toml:"exclude_private" doc:"private and link-local networks are left alone, too: the proxy would refuse to lead there"`
	WebPorts       []uint16       `toml:"web_ports" doc:"ports that are led to [web] transparent"`
	POP3Ports      []uint16       `toml:"pop3_ports" doc:"ports that are led to [pop3] listen"`
	RejectQUIC     bool           `toml:"reject_quic" doc:"UDP port 443 is rejected, so that browsers fall back to TCP"`
	Method         string         `toml:"method" doc:"\"redirect\" (NAT), or \"tproxy\" where NAT is not wanted"`
	Local          bool           `toml:"local" doc:"this machine's own programs are taken over, too; the gateway itself must then be known by user, or by [egress] mark"`
	User           string         `toml:"user" doc:"the user, by name or number, that the gateway runs as: its traffic is left alone when local = true"`
	Automatic      bool           `toml:"automatic" doc:"the service installs the rules itself when it is ready"`
	OnFailure      string         `toml:"on_failure" doc:"with automatic: \"closed\": the rules stay when the service ends or cannot judge, and traffic is refused meanwhile; \"open\": they go, even when it is killed, and traffic passes unscanned"`
}

// Default returns the settings that work without a file: nothing is taken over.
func Default() Config {
	return Config{
		ExcludePrivate: true,
		WebPorts:       []uint16{80, 443},
		POP3Ports:      []uint16{110, 995},
		RejectQUIC:     true,
		Method:         MethodRedirect,
		OnFailure:      FailClosed,
	}
}

// maxInterface is what the kernel takes as an interface's name, its final NUL not counted.
const maxInterface = 15

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	for i, name := range c.Interfaces {
		if name == "" || len(name) > maxInterface || strings.ContainsAny(name, "/\\\"*{}; \t\n") {
			errs = append(errs, fmt.Errorf("interfaces: entry %d, %q, is no interface's name: \"ip link\" lists them", i+1, name))
		}
	}
	for _, l := range []struct {
		key  string
		nets []netip.Prefix
	}{{"networks", c.Networks}, {"exclude", c.Exclude}, {"exclude_clients", c.ExcludeClients}} {
		for i, p := range l.nets {
			if !p.IsValid() {
				errs = append(errs, fmt.Errorf("%s: entry %d is not a network; write one such as \"192.168.0.0/24\"", l.key, i+1))
			}
		}
	}
	for _, l := range []struct {
		key   string
		ports []uint16
	}{{"web_ports", c.WebPorts}, {"pop3_ports", c.POP3Ports}} {
		if slices.Contains(l.ports, 0) {
			errs = append(errs, fmt.Errorf("%s: 0 is no port", l.key))
		}
	}
	for _, p := range c.POP3Ports {
		if slices.Contains(c.WebPorts, p) {
			errs = append(errs, fmt.Errorf("pop3_ports: %d is one of web_ports, too: it can be led to one of them only", p))
		}
	}
	if c.Method != MethodRedirect && c.Method != MethodTProxy {
		errs = append(errs, fmt.Errorf("method: %q is not known: write \"redirect\" or \"tproxy\"", c.Method))
	}
	if c.OnFailure != FailClosed && c.OnFailure != FailOpen {
		errs = append(errs, fmt.Errorf("on_failure: %q is not known: write \"closed\" or \"open\"", c.OnFailure))
	}
	if c.Local && c.Method == MethodTProxy {
		errs = append(errs, errors.New("local: TPROXY takes over forwarded traffic only; use method = \"redirect\""))
	}
	return errors.Join(errs...)
}
