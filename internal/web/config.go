package web

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"lazaret/internal/listen"
	"lazaret/internal/units"
)

// Config is the [web] section.
type Config struct {
	Listen       []string       `toml:"listen" doc:"addresses of the explicit proxy, host:port; an empty host listens on all addresses"`
	Transparent  []string       `toml:"transparent" doc:"addresses that take redirected traffic of ports 80 and 443, told apart by what arrives"`
	AllowClients []netip.Prefix `toml:"allow_clients" doc:"networks whose machines may use the proxy; everybody else is refused"`

	AllowPrivateDestinations bool       `toml:"allow_private_destinations" doc:"whether the proxy connects to loopback, link-local, private (RFC 1918) and metadata addresses"`
	ConnectPorts             PortRanges `toml:"connect_ports" doc:"ports that CONNECT and https URLs may go to: numbers or ranges such as \"1-65535\""`
	AuthFile                 string     `toml:"auth_file" doc:"an htpasswd file with bcrypt hashes (htpasswd -B); clients then need a user and a password. Empty: nobody does. The file is read again when it changes."`

	MaxHeader         units.Size     `toml:"max_header" doc:"the largest request head; a larger one is answered with 431"`
	MaxResponseHeader units.Size     `toml:"max_response_header" doc:"the largest head of a site's answer"`
	MaxBody           units.Size     `toml:"max_body" doc:"bodies above it are not taken, and policy.too_large decides; 0: the spool's limit"`
	HoldSize          units.Size     `toml:"hold_size" doc:"bodies up to this size always wait for their verdict, so that a block is a page"`
	HoldTime          units.Duration `toml:"hold_time" doc:"how long a client waits for the verdict about a larger one before it is given a sign of life: a trickle, or a browser the progress page"`
	Trickle           units.Size     `toml:"trickle" doc:"bytes a second, of the beginning of a larger body and each piece judged by itself, that keep a waiting client from giving up; 0: nothing passes before the verdict, the head included"`
	Keepback          units.Size     `toml:"keepback" doc:"how much of what has come is never trickled before the verdict; of the rest it is at most a sixteenth part"`
	RangeCacheSize    units.Size     `toml:"range_cache_size" doc:"disk for objects that were scanned and may be asked for again by ranges (resumed downloads, videos, download managers); it counts towards spool.total_disk, and is given up when others need it; 0: none"`
	RangeCacheTime    units.Duration `toml:"range_cache_time" doc:"how long such an object is kept after its last use"`
	MaxStreams        int            `toml:"max_streams" doc:"requests that one HTTP/2 connection may have under way"`

	MaxConnections       int `toml:"max_connections" doc:"connections of clients at a time; further ones are turned away with 503"`
	MaxConnectionsClient int `toml:"max_connections_per_client" doc:"connections of one client address at a time"`
	MaxRequestsClient    int `toml:"max_requests_per_client" doc:"requests of one client address under way at a time, over all its connections; further ones wait. Streams, tunnels and WebSockets do not count"`

	HeaderTimeout units.Duration `toml:"header_timeout" doc:"how long a client may take for a request's head, from its first byte"`
	IdleTimeout   units.Duration `toml:"idle_timeout" doc:"how long a client's connection is kept without a request"`
	ReplyTimeout  units.Duration `toml:"reply_timeout" doc:"how long a site may take to begin its answer"`
	StallTimeout  units.Duration `toml:"stall_timeout" doc:"how long a body may come to a standstill, from a site or with a client"`
	MinRate       units.Size     `toml:"min_rate" doc:"bytes a second that a body must keep up, taken over a minute; 0: any"`
	StreamTimeout units.Duration `toml:"stream_timeout" doc:"how long tunnels, WebSockets and event streams may be silent"`

	WebSocket Messages `toml:"websocket"`
	GRPC      Messages `toml:"grpc"`
	Progress  Waiting  `toml:"progress"`
}

// Default returns the settings that work without a file.
func Default() Config {
	return Config{
		Listen:               []string{"127.0.0.1:3128"},
		AllowClients:         []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		ConnectPorts:         PortRanges{Port(443), Port(8443)},
		MaxHeader:            64 * units.KiB,
		MaxResponseHeader:    256 * units.KiB,
		HoldSize:             units.MiB,
		HoldTime:             units.Duration(2 * time.Second),
		Trickle:              units.KiB,
		Keepback:             256 * units.KiB,
		RangeCacheSize:       8 * units.GiB,
		RangeCacheTime:       units.Duration(10 * time.Minute),
		MaxStreams:           128,
		MaxConnections:       20000,
		MaxConnectionsClient: 2000,
		MaxRequestsClient:    512,
		HeaderTimeout:        units.Duration(30 * time.Second),
		IdleTimeout:          units.Duration(3 * time.Minute),
		ReplyTimeout:         units.Duration(5 * time.Minute),
		StallTimeout:         units.Duration(2 * time.Minute),
		MinRate:              64,
		StreamTimeout:        units.Duration(2 * time.Hour),
		WebSocket:            defaultMessages(),
		GRPC:                 defaultMessages(),
		Progress:             defaultWaiting(),
	}
}

// Validate returns what cannot be used in c, one error for each key.
func (c Config) Validate() error {
	errs := append(checkAddresses("listen", c.Listen), checkAddresses("transparent", c.Transparent)...)
	for i, p := range c.AllowClients {
		if !p.IsValid() {
			errs = append(errs, fmt.Errorf("allow_clients: entry %d is not a network; write one such as \"192.168.0.0/16\"", i+1))
		}
	}
	if len(c.AllowClients) == 0 {
		errs = append(errs, errors.New("allow_clients: nobody could use the proxy; list the networks of your machines, such as \"192.168.0.0/16\""))
	}
	if c.MaxHeader < units.KiB || c.MaxHeader > 16*units.MiB {
		errs = append(errs, fmt.Errorf("max_header: %v is out of range: write a size from 1 KiB to 16 MiB", c.MaxHeader))
	}
	if c.MaxResponseHeader < units.KiB || c.MaxResponseHeader > 16*units.MiB {
		errs = append(errs, fmt.Errorf("max_response_header: %v is out of range: write a size from 1 KiB to 16 MiB", c.MaxResponseHeader))
	}
	if c.MaxBody < 0 {
		errs = append(errs, errors.New("max_body: must not be negative; write 0 for the spool's limit"))
	}
	for _, n := range []struct {
		key   string
		value units.Size
	}{{"hold_size", c.HoldSize}, {"trickle", c.Trickle}, {"keepback", c.Keepback}} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: must not be negative; write 0 for none", n.key))
		}
	}
	if c.RangeCacheSize < 0 {
		errs = append(errs, errors.New("range_cache_size: must not be negative; write 0 to keep nothing"))
	}
	if c.MinRate < 0 {
		errs = append(errs, errors.New("min_rate: must not be negative; write 0 for no limit"))
	}
	for _, n := range []struct {
		key   string
		value int
	}{
		{"max_streams", c.MaxStreams},
		{"max_connections", c.MaxConnections},
		{"max_connections_per_client", c.MaxConnectionsClient},
		{"max_requests_per_client", c.MaxRequestsClient},
	} {
		if n.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: %d leaves no room; write a number greater than zero", n.key, n.value))
		}
	}
	for _, d := range []struct {
		key   string
		value units.Duration
	}{
		{"header_timeout", c.HeaderTimeout},
		{"idle_timeout", c.IdleTimeout},
		{"reply_timeout", c.ReplyTimeout},
		{"stall_timeout", c.StallTimeout},
		{"stream_timeout", c.StreamTimeout},
		{"hold_time", c.HoldTime},
		{"range_cache_time", c.RangeCacheTime},
	} {
		if d.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be greater than zero, such as \"2m\"", d.key))
		}
	}
	return errors.Join(slices.Concat(errs, c.WebSocket.problems("websocket"), c.GRPC.problems("grpc"), c.Progress.problems())...)
}

func checkAddresses(key string, addrs []string) []error {
	var errs []error
	for _, a := range addrs {
		if err := listen.CheckAddress(a); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	return errs
}
