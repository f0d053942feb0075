package pop3

import (
	"bytes"
)

// maxHead is how much of a message's beginning is kept for the notice that may replace it.
const maxHead = 64 << 10

// keptFields are the fields of the original's header that a notice keeps, so that it is sorted and threaded as the original
// would have been. Nothing of the body, its form or its subject is among them.
var keptFields = map[string]bool{
	"from": true, "to": true, "cc": true, "date": true, "message-id": true, "in-reply-to": true, "references": true,
	"received": true, "return-path": true, "delivered-to": true, "envelope-to": true, "x-original-to": true,
	"reply-to": true, "sender": true,
}

// field is a field of a header, with all its lines.
type field struct {
	name string // lower case
	raw  []byte
}

// fields returns the fields at the beginning of head, up to the empty line, to what is no field, or to a
// line that has no end yet. Only lines that end in CRLF and have no control characters in them count: others are not the
// same to every reader.
func fields(head []byte) (list []field) {
	end := 0
	for end < len(head) {
		n := bytes.IndexByte(head[end:], '\n') + 1
		if n == 0 {
			return list
		}
		line := head[end : end+n]
		text, ok := bytes.CutSuffix(line, []byte("\r\n"))
		if !ok || len(text) == 0 || !printable(text) {
			return list
		}
		if text[0] == ' ' || text[0] == '\t' {
			if len(list) == 0 || len(bytes.TrimSpace(text)) == 0 {
				return list
			}
			last := &list[len(list)-1]
			last.raw = head[end-len(last.raw) : end+n]
			end += n
			continue
		}
		name, ok := nameOf(text)
		if !ok {
			return list
		}
		list = append(list, field{name, line})
		end += n
	}
	return list
}

func printable(text []byte) bool {
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// nameOf returns the name of a field in lower case (RFC 5322, 3.6.8).
func nameOf(text []byte) (string, bool) {
	colon := bytes.IndexByte(text, ':')
	if colon <= 0 || colon > 100 {
		return "", false
	}
	for _, c := range text[:colon] {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return string(bytes.ToLower(text[:colon])), true
}

// shared returns how long the beginning of a message is that the message and the notice in its place have in common: the
// fields that are kept, up to the first one that is not. It may be sent before it is known which of the two follows. More of
// the same head makes it longer, never different.
func shared(head []byte) int {
	list := fields(head)
	n := 0
	for _, f := range list {
		if !keptFields[f.name] {
			break
		}
		n += len(f.raw)
	}
	return n
}

// kept returns the fields that a notice keeps, in their order; it begins with what shared counts.
func kept(head []byte) (raw []byte, names map[string]bool) {
	list := fields(head)
	names = make(map[string]bool)
	for _, f := range list {
		if keptFields[f.name] {
			raw = append(raw, f.raw...)
			names[f.name] = true
		}
	}
	return raw, names
}

// value returns the value of the first field of that name (lower case) on one line; empty where there is none.
func value(head []byte, name string) string {
	list := fields(head)
	for _, f := range list {
		if f.name == name {
			return string(bytes.Join(bytes.Fields(f.raw[len(name)+1:]), []byte(" ")))
		}
	}
	return ""
}
