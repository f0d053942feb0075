// Package websocket reads and writes the WebSocket protocol (RFC 6455) with permessage-deflate (RFC 7692), for a relay that
// looks at whole messages before it passes them on.
//
// A Reader turns what a peer sends into messages: fragments put together, compression undone, text checked to be UTF-8,
// control frames handed over at once. A Writer frames messages anew. It never compresses, which RFC 7692, 6, leaves to the
// sender: the other peer reads exactly what was looked at.
package websocket

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Op is the opcode of a frame (RFC 6455, 5.2).
type Op byte

// The opcodes. All others are reserved, and refused.
const (
	Continuation Op = 0x0
	Text         Op = 0x1
	Binary       Op = 0x2
	Close        Op = 0x8
	Ping         Op = 0x9
	Pong         Op = 0xA
)

func (o Op) control() bool { return o&0x8 != 0 }

// Code is a status code of a Close frame (RFC 6455, 7.4.1, and the registry it has set up).
type Code uint16

// The codes that this package and its users send.
const (
	GoingAway     Code = 1001
	ProtocolError Code = 1002
	InvalidData   Code = 1007 // text that is not UTF-8, compressed content that is broken
	Policy        Code = 1008
	TooBig        Code = 1009
	InternalError Code = 1011
	TryAgainLater Code = 1013
)

// maxControl is the largest payload of a control frame (RFC 6455, 5.5).
const maxControl = 125

// Error is what is wrong with what a peer sent, and the Code to close the connection with.
type Error struct {
	Code  Code
	What  string
	cause error
}

// Error implements error.
func (e *Error) Error() string { return "WebSocket: " + e.What }

// Unwrap returns the cause, nil where there is none.
func (e *Error) Unwrap() error { return e.cause }

func broken(format string, args ...any) error {
	return &Error{Code: ProtocolError, What: fmt.Sprintf(format, args...)}
}

// ErrUndecodable is wrapped by the error of a message whose compressed content cannot be read.
var ErrUndecodable = errors.New("the compressed message cannot be decoded")

func cannotInflate(cause error) error {
	err := fmt.Errorf("%w: %w", ErrUndecodable, cause)
	return &Error{Code: InvalidData, What: err.Error(), cause: err}
}

// CloseFrame is the payload of a Close frame. The zero value is one without a code.
type CloseFrame struct {
	Code   Code // 0: none was given
	Reason string
}

// ParseClose reads the payload of a Close frame (RFC 6455, 5.5.1). Its error is an *Error: one byte alone, a code that must
// not be sent, or a reason that is not UTF-8.
func ParseClose(p []byte) (CloseFrame, error) {
	if len(p) == 0 {
		return CloseFrame{}, nil
	}
	if len(p) == 1 {
		return CloseFrame{}, broken("a Close frame with half a code")
	}
	c := CloseFrame{Code: Code(p[0])<<8 | Code(p[1]), Reason: string(p[2:])}
	if !c.Code.sendable() {
		return CloseFrame{}, broken("a Close frame with the code %d, which is not to be sent", c.Code)
	}
	if !utf8.ValidString(c.Reason) {
		return CloseFrame{}, &Error{Code: InvalidData, What: "the reason of a Close frame is not UTF-8"}
	}
	return c, nil
}

// sendable says whether a code may be in a frame: 1004 is reserved, 1005, 1006 and 1015 are for programs' own use, and below
// 3000 nobody but the registry assigns.
func (c Code) sendable() bool {
	switch {
	case c >= 3000 && c <= 4999:
		return true
	case c < 1000 || c > 1014, c == 1004, c == 1005, c == 1006:
		return false
	}
	return true
}

// payload returns c as it is written, the reason cut to what fits.
func (c CloseFrame) payload() []byte {
	if c.Code == 0 {
		return nil
	}
	reason := c.Reason
	for len(reason) > maxControl-2 || !utf8.ValidString(reason) {
		reason = reason[:len(reason)-1]
	}
	return append([]byte{byte(c.Code >> 8), byte(c.Code)}, reason...)
}
