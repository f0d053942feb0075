// Package envelope reads the length-prefixed messages of gRPC, gRPC-Web and Connect: a byte of flags, four bytes of length, and
// so many bytes ("Length-Prefixed-Message" of gRPC over HTTP/2, "Enveloped-Message" of Connect). It decompresses nothing.
package envelope

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// HeadSize is how many bytes come before each message.
const HeadSize = 5

// compressed is the flag of a message in the encoding that the call's header declares.
const compressed = 0x01

// Protocol is how messages are put into a body.
type Protocol struct {
	Name     string // "gRPC", "gRPC-Web" or "Connect"
	Codec    string // what messages are in: "proto", "json" or whatever is said
	Encoding string // the header that says how messages are compressed
	Accept   string // the header that says how they may be
	End      byte   // the flag of a message that is the end of the stream, with the status in it; 0: there is none
	Text     bool   // the body is base64
}

// Of returns what a media type (in lower case, without parameters) says about a body; ok is false where that is not in messages.
func Of(mediaType string) (p Protocol, ok bool) {
	family, codec, named := strings.Cut(mediaType, "+")
	grpc := Protocol{Name: "gRPC", Codec: codec, Encoding: "Grpc-Encoding", Accept: "Grpc-Accept-Encoding"}
	if !named {
		grpc.Codec = "proto"
	}
	switch family {
	case "application/grpc":
		return grpc, true
	case "application/grpc-web", "application/grpc-web-text":
		grpc.Name, grpc.End, grpc.Text = "gRPC-Web", 0x80, strings.HasSuffix(family, "-text")
		return grpc, true
	case "application/connect":
		return Protocol{Name: "Connect", Codec: codec, Encoding: "Connect-Content-Encoding", Accept: "Connect-Accept-Encoding", End: 0x02}, named
	}
	return Protocol{}, false
}

// Type returns the media type of one message.
func (p Protocol) Type() string {
	switch p.Codec {
	case "proto":
		return "application/protobuf"
	case "json":
		return "application/json"
	}
	return "application/octet-stream"
}

// Head is what comes before a message.
type Head struct {
	Flags  byte
	Length uint32 // as the sender says; nothing of it may be there
}

// Compressed says whether the message is in the call's encoding.
func (h Head) Compressed() bool { return h.Flags&compressed != 0 }

// Plain returns the head of the same message when it is not compressed and has that length.
func (h Head) Plain(length uint32) Head { return Head{h.Flags &^ compressed, length} }

// Append appends h, as it is written, to b.
func (h Head) Append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, h.Flags), h.Length)
}

// Error says how a body breaks its protocol. Readers that are not strict might find something else in it.
type Error struct{ What string }

// Error implements error.
func (e *Error) Error() string { return e.What }

// Reader reads the messages of a body. It is used by one goroutine, and holds nothing but what the caller reads.
type Reader struct {
	src   io.Reader
	p     Protocol
	left  int64 // of the message
	ended bool  // the message that is the end has been announced
	err   error
}

// NewReader returns a Reader of body, which is base64 where p says so.
func NewReader(body io.Reader, p Protocol) *Reader {
	if p.Text {
		body = newText(body)
	}
	return &Reader{src: body, p: p}
}

// Next waits for the next message, whose content Read returns. What was left of the one before is skipped.
//
// The error is io.EOF where the body ended after a message, an *Error where it breaks the protocol, or the body's own. It stays.
func (r *Reader) Next() (Head, error) {
	if r.err == nil {
		_, r.err = io.Copy(io.Discard, struct{ io.Reader }{r})
	}
	if r.err != nil {
		return Head{}, r.err
	}
	var b [HeadSize]byte
	n, err := io.ReadFull(r.src, b[:])
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && n > 0 && n < HeadSize && r.atEnd():
		r.err = &Error{"the body ends within the head of a message"}
	case err != nil:
		r.err = err
	case r.ended:
		r.err = &Error{"something follows the end of the stream"}
	case b[0]&^(compressed|r.p.End) != 0:
		r.err = &Error{"a message has flags that are not known"}
	}
	if r.err != nil {
		return Head{}, r.err
	}
	h := Head{Flags: b[0], Length: binary.BigEndian.Uint32(b[1:])}
	r.left, r.ended = int64(h.Length), h.Flags&r.p.End != 0
	return h, nil
}

// atEnd says whether the body itself says that it has ended: a connection that breaks has an io.ErrUnexpectedEOF, too.
func (r *Reader) atEnd() bool {
	var b [1]byte
	n, err := r.src.Read(b[:])
	return n == 0 && err == io.EOF //nolint:errorlint // io.Reader says that the end is io.EOF itself
}

// Read returns the content of the message as it was sent, and io.EOF at its end. Other errors are those of Next.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, r.err
	case r.left == 0:
		return 0, io.EOF
	}
	n, err := r.src.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF && r.left > 0 { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		err = &Error{"the body ends within a message"}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // as above
		r.err = err
		return n, err
	}
	return n, nil
}

// Left returns how much of the message has not been read.
func (r *Reader) Left() int64 { return r.left }
