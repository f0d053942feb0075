package p3scan

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Status is what became of a setting.
type Status string

// The states of a report.
const (
	Taken   Status = "taken over"
	Mapped  Status = "mapped"     // it is called otherwise, or works otherwise
	Needed  Status = "not needed" // what it was for is always so, or somebody else does it
	Refused Status = "refused"
	NotYet  Status = "not yet" // this version has nothing like it
)

// Item is a line of the report.
type Item struct {
	Line   int    `json:"line"`
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Status Status `json:"status"`
	Target string `json:"target,omitempty"` // our key
	Note   string `json:"note,omitempty"`
}

// Options are what a conversion has to be told.
type Options struct {
	Source string                 // where the settings came from, for a comment
	Knows  func(key string) bool  // whether there is such a key, "mail.notice.subject"; nil: every key
	Exists func(path string) bool // whether there is such a file; nil: every file
	User   func(name string) bool // whether there is such a user; nil: every user
}

// converter is one conversion.
type converter struct {
	opt    Options
	file   *file
	report []Item
	have   map[string]Setting
}

// Convert returns the settings as a TOML file, and what became of each. What stays unsaid in p3scan.conf is as P3Scan has it
// where that is harmless, and as Lazaret has it otherwise.
func Convert(settings []Setting, opt Options) ([]byte, []Item) {
	if opt.Knows == nil {
		opt.Knows = func(string) bool { return true }
	}
	if opt.Exists == nil {
		opt.Exists = func(string) bool { return true }
	}
	if opt.User == nil {
		opt.User = func(string) bool { return true }
	}
	c := &converter{opt: opt, file: newFile(), have: map[string]Setting{}}
	for _, s := range settings {
		if key, ok := renamed[s.Key]; ok {
			s.Key = key
		}
		if old, ok := c.have[s.Key]; ok {
			c.say(old, Refused, "", fmt.Sprintf("line %d has it again, and the last one counts", s.Line))
		}
		c.have[s.Key] = s
	}
	c.listen()
	c.upstream()
	c.scanner()
	for _, key := range sortedKeys(c.have) {
		c.one(c.have[key])
	}
	slices.SortStableFunc(c.report, func(a, b Item) int { return a.Line - b.Line })
	return c.file.bytes(opt.Source), c.report
}

func sortedKeys(m map[string]Setting) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b string) int { return m[a].Line - m[b].Line })
	return out
}

// say reports what became of a setting. Of what the file does not say, nothing is reported.
func (c *converter) say(s Setting, status Status, target, note string) {
	if s.Key == "" {
		return
	}
	c.report = append(c.report, Item{s.Line, s.Key, s.Value, status, target, note})
}

// take returns a setting that is dealt with together with others.
func (c *converter) take(key string) (Setting, bool) {
	s, ok := c.have[key]
	delete(c.have, key)
	return s, ok
}

// put writes a key, and says so; where there is no such key in this version, it says that.
func (c *converter) put(s Setting, status Status, target, value, note string) {
	if !c.opt.Knows(target) {
		c.say(s, NotYet, target, "this version has no such key; "+orElse(note, "P3Scan's value is not in force"))
		return
	}
	if first := c.file.set(target, value); first != value {
		c.say(s, Refused, target, "another setting has made it "+first+", and there is one value for both")
		return
	}
	c.say(s, status, target, note)
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// on reads what switches something on: nothing at all, or a word.
func on(s Setting) (on, ok bool) {
	switch strings.ToLower(s.Value) {
	case "", "1", "on", "yes", "true":
		return true, true
	case "0", "off", "no", "false":
		return false, true
	}
	return false, false
}

// whether is on for a handler: it says itself what is no such word, or is off.
func (c *converter) whether(s Setting) bool {
	is, ok := on(s)
	if !ok {
		c.say(s, Refused, "", fmt.Sprintf("%q says neither on nor off", s.Value))
	} else if !is {
		c.say(s, Needed, "", "it is off")
	}
	return is
}

// number reads a number from low on; a wrong one is refused.
func (c *converter) number(s Setting, low, high int) (int, bool) {
	n, err := strconv.Atoi(s.Value)
	if err != nil || n < low || n > high {
		c.say(s, Refused, "", fmt.Sprintf("%q is no number from %d to %d", s.Value, low, high))
		return 0, false
	}
	return n, true
}

func (c *converter) port(key string, normal int) (Setting, int) {
	s, ok := c.take(key)
	if !ok {
		return s, normal
	}
	n, good := c.number(s, 1, 65535)
	if !good {
		return Setting{}, normal
	}
	return s, n
}

func (c *converter) address(key string) (Setting, netip.Addr) {
	s, ok := c.take(key)
	if !ok {
		return s, netip.IPv4Unspecified()
	}
	a, err := netip.ParseAddr(s.Value)
	if err != nil {
		c.say(s, Refused, "", fmt.Sprintf("%q is no IP address", s.Value))
		return Setting{}, netip.IPv4Unspecified()
	}
	return s, a
}

func (c *converter) listen() {
	ip, addr := c.address("ip")
	p, port := c.port("port", 8110)
	at := net.JoinHostPort(addr.String(), strconv.Itoa(port))
	c.file.set("pop3.listen", quotedList([]string{at}))
	c.say(ip, Taken, "pop3.listen", "")
	c.say(p, Taken, "pop3.listen", "")
	if addr.IsUnspecified() {
		c.file.note("pop3", "It listens on every address, as P3Scan did; pop3.allow_clients says who is served.")
	}
}

func (c *converter) upstream() {
	ssl, sslPort := c.port("sslport", 995)
	if ssl.Key != "" {
		c.put(ssl, Mapped, "pop3.tls_ports", "["+strconv.Itoa(sslPort)+"]", "with TLS on both sides, and the server's certificate verified")
	}
	ip, addr := c.address("targetip")
	p, port := c.port("targetport", 8110)
	if addr.IsUnspecified() {
		const note = "no fixed server: redirected connections go where they wanted to"
		c.say(ip, Taken, "pop3.upstream", note)
		c.say(p, Taken, "pop3.upstream", note)
		return
	}
	up := net.JoinHostPort(addr.String(), strconv.Itoa(port))
	if port == sslPort {
		up = "tls://" + up
	}
	c.file.set("pop3.upstream", quoted(up))
	c.say(ip, Taken, "pop3.upstream", "")
	c.say(p, Taken, "pop3.upstream", "")
}
