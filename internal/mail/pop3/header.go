package pop3

import (
	"bytes"

	"lazaret/internal/mail/header"
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

// shared returns how long the beginning of a message is that the message and the notice in its place have in common: the
// fields that are kept, up to the first one that is not. It may be sent before it is known which of the two follows. More of
// the same head makes it longer, never different.
func shared(head []byte) int {
	list := header.Leading(head)
	n := 0
	for _, f := range list {
		if !keptFields[f.Name] {
			break
		}
		n += len(f.Raw)
	}
	return n
}

// kept returns the fields that a notice keeps, in their order; it begins with what shared counts.
func kept(head []byte) (raw []byte, names map[string]bool) {
	list := header.Leading(head)
	names = make(map[string]bool)
	for _, f := range list {
		if keptFields[f.Name] {
			raw = append(raw, f.Raw...)
			names[f.Name] = true
		}
	}
	return raw, names
}

// value returns the value of the first field of that name (lower case) on one line; empty where there is none.
func value(head []byte, name string) string {
	list := header.Leading(head)
	for _, f := range list {
		if f.Name == name {
			return string(bytes.Join(bytes.Fields(f.Raw[len(name)+1:]), []byte(" ")))
		}
	}
	return ""
}
