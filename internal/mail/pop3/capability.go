package pop3

import (
	"bytes"
	"strings"
)

// passedOn are the capabilities (RFC 2449, 6; RFC 2595; RFC 5034; RFC 6856; RFC 8314 registers no more) that go through:
// the gateway understands what they bring. Any other is left out.
var passedOn = map[string]bool{
	"TOP": true, "USER": true, "SASL": true, "RESP-CODES": true, "LOGIN-DELAY": true, "PIPELINING": true, "EXPIRE": true,
	"UIDL": true, "IMPLEMENTATION": true, "STLS": true, "UTF8": true, "LANG": true, "AUTH-RESP-CODE": true, "APOP": true,
}

// capability returns the line of a CAPA reply as the client gets it, nil where it does not. TLS says that the client uses
// it already.
func capability(line []byte, tls bool) []byte {
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return nil
	}
	name := strings.ToUpper(fields[0])
	if !passedOn[name] || name == "STLS" && tls {
		return nil
	}
	if name != "SASL" {
		return line
	}
	kept := fields[:1]
	for _, m := range fields[1:] {
		if !channelBound(m) {
			kept = append(kept, m)
		}
	}
	switch len(kept) {
	case len(fields):
		return line
	case 1: // nothing is left to be offered
		return nil
	}
	return []byte(strings.Join(kept, " ") + "\r\n")
}

// mechanism returns the line of a list of mechanisms as the client gets it, nil where it does not.
func mechanism(line []byte) []byte {
	if channelBound(string(bytes.TrimSpace(line))) {
		return nil
	}
	return line
}
