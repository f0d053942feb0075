package pop3

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/units"
)

// Config is [pop3].
type Config struct {
	Listen    []string `toml:"listen" doc:"addresses that POP3 connections are redirected to, or that mail programs are pointed at; empty: no POP3"`
	ListenTLS []string `toml:"listen_tls" doc:"the same for connections that begin with TLS (POP3S), for mail programs that are pointed at the gateway; it needs an upstream with TLS. Redirected ones need no address of their own: see tls_ports"`
	Upstream  string   `toml:"upstream" doc:"the server: \"\" for the original destination of redirected connections, or \"host:110\", \"stls://host:110\" (STLS is demanded), \"tls://host:995\" (POP3S). With TLS the server's certificate is verified, whether or not the mail program uses TLS"`
	TLSPorts  []int    `toml:"tls_ports" doc:"original destinations and login servers with these ports speak POP3S"`

	LoginServers []string `toml:"login_servers" doc:"servers that a mail program may choose by its login, \"user#host:port\", when it is pointed at the gateway and there is no upstream: \"pop.example.org\" (ports 110 and 995), \"pop.example.org:2110\", \"*.example.org\"; empty: none"`

	AllowClients             []string `toml:"allow_clients" doc:"networks whose clients are served; empty: all that can connect"`
	AllowPrivateDestinations bool     `toml:"allow_private_destinations" doc:"whether original destinations and login servers may have private addresses (loopback, link-local, RFC 1918)"`

	KeepAlive     units.Duration `toml:"keep_alive" doc:"while a message is fetched and scanned the client hears something this often, so that it does not give up; 0: never"`
	KeepAliveUnit string         `toml:"keep_alive_unit" doc:"what it hears: \"character\" or \"line\", of the reply and of the message's own header"`

	MaxMessage   units.Size     `toml:"max_message" doc:"larger messages are treated as [policy] too_large says; 0: [spool] max_object is the limit"`
	MaxSessions  int            `toml:"max_sessions" doc:"how many sessions there may be at a time; more are told to come back later"`
	MaxPerClient int            `toml:"max_sessions_per_client" doc:"how many of them one client address may have; IPv6 clients count by /64"`
	IdleTimeout  units.Duration `toml:"idle_timeout" doc:"how long a client may say nothing (RFC 1939 wants 10 minutes at least)"`
	ReplyTimeout units.Duration `toml:"reply_timeout" doc:"how long the server may take for a reply, and either side to take or give any data"`
	MinRate      units.Size     `toml:"min_rate" doc:"bytes a second, averaged over a minute, that a message has to come with; 0: any"`
}

// AllowsPrivate says whether private addresses may be connected to: a server that the settings name is meant.
func (c Config) AllowsPrivate() bool { return c.AllowPrivateDestinations || c.Upstream != "" }

// The values of keep_alive_unit.
const (
	byCharacter = "character"
	byLine      = "line"
)

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		Listen:                   []string{"127.0.0.1:8110"},
		TLSPorts:                 []int{995},
		AllowPrivateDestinations: true,
		KeepAlive:                units.Duration(30 * time.Second),
		KeepAliveUnit:            byCharacter,
		MaxSessions:              1000,
		MaxPerClient:             100,
		IdleTimeout:              units.Duration(10 * time.Minute),
		ReplyTimeout:             units.Duration(3 * time.Minute),
		MinRate:                  100,
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	up, err := parseUpstream(c.Upstream)
	if err != nil {
		bad("upstream", "%w", err)
	}
	if len(c.ListenTLS) > 0 && err == nil && (up.host == "" || up.tls == withoutTLS) {
		bad("listen_tls", "a mail program that uses TLS must not be served without it: write upstream = \"tls://host:995\" or \"stls://host:110\"")
	}
	for _, p := range c.TLSPorts {
		if p < 1 || p > 65535 {
			bad("tls_ports", "%d is no port", p)
		}
	}
	if _, err := parseServers(c.LoginServers); err != nil {
		bad("login_servers", "%w", err)
	}
	if len(c.LoginServers) > 0 && c.Upstream != "" {
		bad("login_servers", "with an upstream there is nothing to be chosen: leave one of the two empty")
	}
	if _, err := parseNets(c.AllowClients); err != nil {
		bad("allow_clients", "%w", err)
	}
	if c.KeepAlive < 0 {
		bad("keep_alive", "is negative; write 0 for none")
	}
	if c.KeepAliveUnit != byCharacter && c.KeepAliveUnit != byLine {
		bad("keep_alive_unit", "%q is neither %q nor %q", c.KeepAliveUnit, byCharacter, byLine)
	}
	for key, n := range map[string]int64{"max_message": int64(c.MaxMessage), "min_rate": int64(c.MinRate)} {
		if n < 0 {
			bad(key, "must not be negative")
		}
	}
	for key, n := range map[string]int64{
		"max_sessions": int64(c.MaxSessions), "max_sessions_per_client": int64(c.MaxPerClient),
		"idle_timeout": int64(c.IdleTimeout), "reply_timeout": int64(c.ReplyTimeout),
	} {
		if n <= 0 {
			bad(key, "must be greater than zero")
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// security says how the connection to a server begins.
type security uint8

const (
	withoutTLS security = iota // and with STLS if the client asks for it
	demandSTLS
	fromTheStart
)

// server is a POP3 server.
type server struct {
	host string // a name or an address; empty: the original destination
	port uint16
	tls  security
}

func (s server) address() string { return net.JoinHostPort(s.host, strconv.Itoa(int(s.port))) }

// parseUpstream reads the upstream setting.
func parseUpstream(s string) (server, error) {
	if s == "" {
		return server{}, nil
	}
	up, port := server{}, "110"
	rest := s
	if r, ok := strings.CutPrefix(s, "tls://"); ok {
		rest, port, up.tls = r, "995", fromTheStart
	} else if r, ok := strings.CutPrefix(s, "stls://"); ok {
		rest, up.tls = r, demandSTLS
	} else if r, ok := strings.CutPrefix(s, "pop3://"); ok {
		rest = r
	}
	host, p, err := net.SplitHostPort(rest)
	if err != nil {
		host, p = strings.Trim(rest, "[]"), port
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/@ \t") {
		return server{}, fmt.Errorf("%q is no server: write \"host:110\", \"stls://host:110\" or \"tls://host:995\"", s)
	}
	up.host, up.port = strings.ToLower(host), uint16(n)
	return up, nil
}

// allowedServer is an entry of login_servers.
type allowedServer struct {
	host   string
	suffix bool
	ports  []uint16
}

func parseServers(list []string) ([]allowedServer, error) {
	var out []allowedServer
	for _, s := range list {
		a := allowedServer{host: strings.ToLower(s), ports: []uint16{110, 995}}
		if h, p, err := net.SplitHostPort(s); err == nil {
			n, err := strconv.ParseUint(p, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%q has no port that could be connected to", s)
			}
			a.host, a.ports = strings.ToLower(h), []uint16{uint16(n)}
		}
		if h, ok := strings.CutPrefix(a.host, "*"); ok {
			a.host, a.suffix = h, true
			if !strings.HasPrefix(h, ".") || len(h) < 2 {
				return nil, fmt.Errorf("%q: a wildcard stands for what is below a domain, as in \"*.example.org\"", s)
			}
		}
		if a.host == "" || strings.ContainsAny(a.host, "*/@# \t") {
			return nil, fmt.Errorf("%q is no server: write a host, \"host:port\" or \"*.domain\"", s)
		}
		out = append(out, a)
	}
	return out, nil
}

func (a allowedServer) matches(s server) bool {
	if !slices.Contains(a.ports, s.port) {
		return false
	}
	if a.suffix {
		return strings.HasSuffix(s.host, a.host)
	}
	return s.host == a.host
}

// chosen reads a login of the form "user#host:port" or "user#host" (port 110). ok is false for any other.
func chosen(login string) (user string, s server, ok bool) {
	i := strings.LastIndexByte(login, '#')
	if i <= 0 {
		return "", server{}, false
	}
	up, err := parseUpstream(login[i+1:])
	if err != nil || up.host == "" || up.tls != withoutTLS || strings.Contains(login[i+1:], "//") {
		return "", server{}, false
	}
	return login[:i], up, true
}

// parseNets reads networks and single addresses.
func parseNets(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("%q is neither an address nor a network such as \"192.0.2.0/24\"", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
