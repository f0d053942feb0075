package websocket

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// deflateName is the one extension that a Reader can read.
const deflateName = "permessage-deflate"

// Deflate is what two peers agreed on for one direction. The size of the window is not kept: a Reader has the largest one.
type Deflate struct {
	NoTakeover bool // each message is compressed by itself
}

// Agreement is what two peers agreed on.
type Agreement struct {
	Client *Deflate // of what the client sends; nil: it does not compress
	Server *Deflate // of what the server sends
}

// param is a parameter of an extension.
type param struct {
	name, value string
	set         bool // there is a value
}

// extension is an element of Sec-WebSocket-Extensions.
type extension struct {
	name   string
	params []param
}

func (e extension) String() string {
	var b strings.Builder
	b.WriteString(e.name)
	for _, p := range e.params {
		b.WriteString("; " + p.name)
		if p.set {
			b.WriteString("=" + p.value)
		}
	}
	return b.String()
}

func (e extension) has(name string) bool {
	for _, p := range e.params {
		if p.name == name {
			return true
		}
	}
	return false
}

// Offer returns what is left of a client's Sec-WebSocket-Extensions when everything that a Reader could not read is taken
// out: the value to send on, empty for none. An offer of permessage-deflate with parameters that RFC 7692 does not know is
// taken out, too.
func Offer(values []string) string {
	var kept []string
	for _, e := range parseExtensions(values) {
		if checkDeflate(e, true) == nil {
			kept = append(kept, e.String())
		}
	}
	return strings.Join(kept, ", ")
}

// Agreed reads a server's Sec-WebSocket-Extensions, which answers what Offer returned. The error says which extension was
// not offered, or how the answer breaks RFC 7692; the connection must then not be used.
func Agreed(values []string, offered string) (Agreement, error) {
	list := parseExtensions(values)
	if len(list) == 0 {
		if strings.Trim(strings.Join(values, ""), " \t,") != "" {
			return Agreement{}, fmt.Errorf("the extensions %q cannot be read", values)
		}
		return Agreement{}, nil
	}
	if len(list) > 1 {
		return Agreement{}, fmt.Errorf("%d extensions at once: %q", len(list), values)
	}
	e := list[0]
	if err := checkDeflate(e, false); err != nil {
		return Agreement{}, err
	}
	offers := parseExtensions([]string{offered})
	if len(offers) == 0 {
		return Agreement{}, fmt.Errorf("the extension %s was not offered", e.name)
	}
	if e.has("client_max_window_bits") {
		found := false
		for _, o := range offers {
			found = found || o.has("client_max_window_bits")
		}
		if !found {
			return Agreement{}, fmt.Errorf("%s: client_max_window_bits was not offered (RFC 7692, 7.1.2.2)", e.name)
		}
	}
	return Agreement{
		Client: &Deflate{NoTakeover: e.has("client_no_context_takeover")},
		Server: &Deflate{NoTakeover: e.has("server_no_context_takeover")},
	}, nil
}

// checkDeflate says what is wrong with permessage-deflate and its parameters (RFC 7692, 7.1).
func checkDeflate(e extension, offer bool) error {
	if e.name != deflateName {
		return fmt.Errorf("the extension %q cannot be inspected", e.name)
	}
	seen := map[string]bool{}
	for _, p := range e.params {
		if seen[p.name] {
			return fmt.Errorf("%s: %s occurs twice", e.name, p.name)
		}
		seen[p.name] = true
		switch p.name {
		case "server_no_context_takeover", "client_no_context_takeover":
			if p.set {
				return fmt.Errorf("%s: %s has no value", e.name, p.name)
			}
		case "server_max_window_bits", "client_max_window_bits":
			if !p.set && offer && p.name == "client_max_window_bits" {
				continue
			}
			if n, err := strconv.Atoi(p.value); err != nil || n < 8 || n > 15 || p.value != strconv.Itoa(n) {
				return fmt.Errorf("%s: %s=%s is not from 8 to 15", e.name, p.name, p.value)
			}
		default:
			return fmt.Errorf("%s: the parameter %q is not known", e.name, p.name)
		}
	}
	return nil
}

// maxExtensions bounds what is read of the header.
const maxExtensions = 64

// parseExtensions reads Sec-WebSocket-Extensions (RFC 6455, 9.1), and returns nil where any of it is malformed: what one
// reader takes for a separator may be inside a value for another.
func parseExtensions(values []string) []extension {
	var list []extension
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if element = strings.Trim(element, " \t"); element == "" {
			continue
		}
		var e extension
		for i, part := range strings.Split(element, ";") {
			name, value, set := strings.Cut(strings.Trim(part, " \t"), "=")
			name, value = strings.ToLower(strings.Trim(name, " \t")), strings.Trim(value, " \t")
			if len(value) > 2 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1] // what is quoted must be a token all the same
			}
			if !token(name) || (set && !token(value)) || (i == 0 && set) {
				return nil
			}
			if i == 0 {
				e.name = name
				continue
			}
			e.params = append(e.params, param{name, value, set})
		}
		if list = append(list, e); len(list) > maxExtensions {
			return nil
		}
	}
	return list
}

func token(s string) bool { return httpguts.ValidHeaderFieldName(s) }
