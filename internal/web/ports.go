package web

import (
	"fmt"
	"strconv"
	"strings"
)

// PortRange is a range of TCP ports, both ends included. A settings file writes it as a number or as "8000-8999".
type PortRange struct{ First, Last uint16 }

// Port returns the range of one port.
func Port(p uint16) PortRange { return PortRange{p, p} }

// UnmarshalText implements encoding.TextUnmarshaler for "443" and "1-65535". Port 0, an end before the start, and
// anything that is no number are errors.
func (p *PortRange) UnmarshalText(b []byte) error {
	first, last, isRange := strings.Cut(string(b), "-")
	if !isRange {
		last = first
	}
	lo, errLo := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	hi, errHi := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if errLo != nil || errHi != nil || lo == 0 || hi < lo {
		return fmt.Errorf("%q is not a port or a range of ports: write 443 or \"8000-8999\"", b)
	}
	*p = PortRange{uint16(lo), uint16(hi)}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p PortRange) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns "443" or "8000-8999".
func (p PortRange) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return strconv.Itoa(int(p.First)) + "-" + strconv.Itoa(int(p.Last))
}

// PortRanges is a set of ports.
type PortRanges []PortRange

// Contain says whether p is one of the ports.
func (r PortRanges) Contain(p uint16) bool {
	for _, x := range r {
		if p >= x.First && p <= x.Last {
			return true
		}
	}
	return false
}

// badPorts are the ports that plain HTTP requests are not sent to, because what listens there is not HTTP and could be
// made to obey a request's lines: the block list of the Fetch standard (2.9, "port blocking"), which browsers apply too.
var badPorts = [...]uint16{
	0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
	111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540,
	548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000,
	6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}

func badPort(p uint16) bool {
	for _, b := range badPorts {
		if p == b {
			return true
		}
	}
	return false
}
