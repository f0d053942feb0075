// Package unpack makes readable what is compressed or packed: HTTP content codings (NewDecoder), and archives and
// compressed files of many formats, one inside the other (Walk).
//
// It is written for hostile input. What something is, its content says, never its name. Every step is bounded (depth,
// number of members, bytes, ratio, memory), whatever a library panics at costs one member, and whatever could not be
// read is reported as a Problem: that nothing was found in an archive means something only when there is no Problem.
// Where clients read an archive in different ways, Walk reads it in all of them.
package unpack

import (
	"errors"
	"fmt"
	"io"

	"lazaret/internal/spool"
)

// Kind says why something could not be unpacked.
type Kind uint8

// The kinds. String returns the words that scan.Reason uses.
const (
	Undecodable Kind = iota // zero value: broken, or in a form that cannot be read
	TooLarge                // above a limit for bytes or for memory
	TooDeep                 // nested more deeply than is looked into
	TooMany                 // more members than are looked into
	Bomb                    // expands beyond the ratio that is looked into
	Encrypted               // nobody can look inside without the password
	SpoolFull               // there was no room for the content
	Cancelled               // the walk was ended: by its context, or by its visitor
)

var kindNames = [...]string{
	"undecodable", "too-large", "too-deep", "too-many", "bomb", "encrypted", "spool-full", "cancelled",
}

// String returns the kind's name in lower case, "undecodable" for anything unknown.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Undecodable]
}

// Error is why content could not be unpacked, or not to its end.
type Error struct {
	Kind Kind
	What string // what was being read: "gzip", "zip member"; may be empty
	Err  error  // the cause; may be nil
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case e.Err == nil && e.What == "":
		return e.Kind.String()
	case e.Err == nil:
		return e.What + ": " + e.Kind.String()
	case e.What == "":
		return e.Err.Error()
	}
	return e.What + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func errorf(k Kind, what, format string, args ...any) *Error {
	return &Error{Kind: k, What: what, Err: fmt.Errorf(format, args...)}
}

// kindOf sorts an error from reading or storing content. What nobody has classified is Undecodable.
func kindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, spool.ErrTooLarge):
		return TooLarge
	case errors.Is(err, spool.ErrFull):
		return SpoolFull
	}
	return Undecodable
}

// Source is what Walk opens.
type Source struct {
	Blob *spool.Blob // the caller keeps its reference while Walk runs
	Name string      // what the object is called; the paths of its members begin with it
}

// Part is one member of an archive, or the content of a compressed file.
type Part struct {
	Blob    *spool.Blob // never empty; closed when the visitor returns, so Retain it to keep it
	Path    string      // where it was found, "a.zip/b/c.exe": valid UTF-8 without control characters, bounded in length
	Depth   int         // 1 for the members of the source itself
	Partial bool        // only a part could be read; a Problem of the same path says why
	Mail    bool        // it is the content of an OpenPGP message, which mail programs read as a part of a mail
}

// Problem is something that could not be unpacked.
type Problem struct {
	Kind Kind
	Path string // of the member, or of the archive where it is not about a single member
	Err  error
}

// Cut says whether the problem is that something ends too early, and no other: what there is was visited as far as it goes.
func (p Problem) Cut() bool {
	return p.Kind == Undecodable &&
		(errors.Is(p.Err, io.ErrUnexpectedEOF) || errors.Is(p.Err, errNoDirectory) || errors.Is(p.Err, errCutHeader))
}

// String returns the problem as one line for the log.
func (p Problem) String() string { return fmt.Sprintf("%s: %s: %v", p.Path, p.Kind, p.Err) }
