// Package egress opens connections to the outside. It is the one place that decides where the gateway may connect to:
// addresses are judged when they are dialled, after the name was resolved, so that no name can lead to a forbidden one.
package egress

import (
	"errors"
	"fmt"
)

// Kind says why a connection could not be had.
type Kind uint8

// The kinds.
const (
	Failed    Kind = iota // anything else
	Forbidden             // an address that is not connected to
	NoName                // the name does not exist, or DNS does not answer
	Refused               // refused, reset or unreachable
	Timeout
	Parent // the parent proxy failed or refused
)

var kindNames = [...]string{"failed", "forbidden", "no-name", "refused", "timeout", "parent"}

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Failed]
}

// Error is why a connection could not be had.
type Error struct {
	Kind Kind
	Addr string // what was to be dialled, host:port
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("connecting to %s: %v", e.Addr, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of an error of this package, Failed for others.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}
