// Package pop3 relays POP3 (RFC 1939 and its extensions) between mail programs and their servers, and has every message
// judged on the way.
//
// Commands and replies go through as they are, one at a time and in order, except where they must not: a message goes to
// the gate first and is then given byte for byte, replaced by a notice, or refused for now; what cannot be inspected is
// not advertised; STLS is answered by the gateway, under its own CA, once the server's certificate has been verified.
//
// The parsers (command.go, dot.go, capability.go, header.go) own no socket.
package pop3
