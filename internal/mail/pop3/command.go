package pop3

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxLine is the longest command or status line. RFC 2449 (4) has commands end at 255 bytes and replies at 512; SASL
// exchanges are longer (RFC 5034, 4: 12288 and more).
const maxLine = 16 << 10

// reply is the form of a command's positive reply.
type reply uint8

const (
	unknown reply = iota // a command that is not passed on
	single               // a status line
	multi                // a status line and lines up to a lone dot
	message              // the same, and the lines are a mail
	topOf                // the same, and the lines are the beginning of a mail
	capabilities
	mechanisms // AUTH without arguments: a list, as older servers give it
	exchange   // AUTH: challenges and responses, then a status line
	startTLS
)

// command is a line of a client's.
type command struct {
	verb string   // upper case
	args []string // separated by white space
	line []byte   // as it is passed on, CRLF included
}

// errBadCommand says that a line is not to be passed on: it could mean something else to the server than to the gateway.
type errBadCommand string

func (e errBadCommand) Error() string { return string(e) }

// parseCommand reads a command from a line, with or without its end. What is passed on is one line for every reader: it
// ends in CRLF, and has neither CR nor NUL in it.
func parseCommand(line []byte) (command, error) {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(line, "\r\n\x00") {
		return command{}, errBadCommand("a command must not have CR, LF or NUL in it")
	}
	c := command{line: append(bytes.Clone(line), '\r', '\n')}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return command{}, errBadCommand("an empty line is no command")
	}
	c.verb, c.args = strings.ToUpper(fields[0]), fields[1:]
	if line[0] == ' ' || line[0] == '\t' {
		return command{}, errBadCommand("a command does not begin with white space")
	}
	return c, nil
}

// plain are the commands whose reply is one line.
var plain = map[string]bool{
	"USER": true, "PASS": true, "APOP": true, "STAT": true, "DELE": true, "NOOP": true, "RSET": true, "QUIT": true,
	"UTF8": true, "LAST": true,
}

// reply returns the form of the positive reply.
func (c command) reply() reply {
	switch c.verb {
	case "RETR":
		return message
	case "TOP":
		return topOf
	case "LIST", "UIDL", "LANG": // with an argument they are about one message, or one language
		if len(c.args) > 0 {
			return single
		}
		return multi
	case "CAPA":
		return capabilities
	case "AUTH":
		if len(c.args) == 0 {
			return mechanisms
		}
		return exchange
	case "STLS":
		return startTLS
	}
	if plain[c.verb] {
		return single
	}
	return unknown
}

// mistaken says what is wrong with arguments that servers could understand in more than one way ("DELE +1", "TOP 1 0x7f"): they are
// not passed on, since what the gateway knows of a message goes by its number, and what TOP gives by the number of lines.
func (c command) mistaken() error {
	switch c.verb {
	case "TOP":
		if len(c.args) != 2 || !decimal(c.args[1]) {
			return errBadCommand("TOP takes the number of a message and a number of lines")
		}
	case "RETR", "DELE":
		if len(c.args) != 1 {
			return errBadCommand(c.verb + " takes the number of a message")
		}
	case "LIST", "UIDL":
		if len(c.args) == 0 {
			return nil
		}
	default:
		return nil
	}
	if c.number() == 0 {
		return errBadCommand("there is no message of this number")
	}
	return nil
}

func decimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// number returns the message number that is the first argument; 0 where there is none.
func (c command) number() int {
	if len(c.args) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(c.args[0], 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// lines returns the second argument of TOP: how many lines of the body are wanted, at most so many as an int32 can say.
func (c command) lines() int {
	if len(c.args) < 2 || !decimal(c.args[1]) {
		return 0
	}
	v, err := strconv.ParseInt(c.args[1], 10, 32)
	if err != nil {
		return math.MaxInt32
	}
	return int(v)
}

// status says whether a status line is positive. The error is for what is no status line (RFC 1939, 3), after which
// nothing that the server says can be matched to a command any more.
func status(line []byte) (ok bool, err error) {
	word, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
	switch string(word) {
	case "+OK":
		return true, nil
	case "-ERR":
		return false, nil
	}
	// Some servers write "-ERR[IN-USE]" or "+OK\t…".
	switch {
	case bytes.HasPrefix(word, []byte("+OK")):
		return true, nil
	case bytes.HasPrefix(word, []byte("-ERR")):
		return false, nil
	}
	return false, fmt.Errorf("the server's reply begins with neither +OK nor -ERR: %.20q", line)
}

// challenge says whether a line is a challenge of an AUTH exchange (RFC 5034, 4): "+ " and base64.
func challenge(line []byte) bool {
	rest, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r\n"), []byte("+"))
	return ok && (len(rest) == 0 || rest[0] == ' ')
}

// channelBound says whether a SASL mechanism is bound to the TLS connection (RFC 5802, 6): the gateway ends that, so the
// exchange could only fail.
func channelBound(mechanism string) bool {
	return strings.HasSuffix(strings.ToUpper(mechanism), "-PLUS")
}
