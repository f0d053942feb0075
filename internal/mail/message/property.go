package message

import "bytes"

// beginsProperty says whether a line begins a property of a calendar or a card that may have a file in it: ATTACH (RFC 5545,
// 3.8.1.1), PHOTO and the like (RFC 2426), with the parameters that say so.
func beginsProperty(text []byte) bool {
	const longest = 64
	end := bytes.IndexAny(text[:min(len(text), longest)], ";:")
	if end <= 0 || text[end] != ';' {
		return false
	}
	name := text[bytes.LastIndexByte(text[:end], '.')+1 : end] // "item1.PHOTO"
	switch string(lowered(name)) {
	case "attach", "photo", "logo", "sound", "key", "image":
		return true
	}
	return false
}

// decodeProperty returns what decodes the value of a property with its continuation lines (RFC 5545, 3.1), as base64. It begins
// behind the first colon that is not in quotes.
func decodeProperty(d *base64Decoder) func(text []byte) ([]byte, bool) {
	first, quoted, value := true, false, false
	return func(text []byte) ([]byte, bool) {
		if !first && (len(text) == 0 || text[0] != ' ' && text[0] != '\t') {
			return nil, false
		}
		first = false
		d.buf = d.buf[:0]
		for i := 0; i < len(text) && !value; i++ {
			switch {
			case text[i] == '"':
				quoted = !quoted
			case text[i] == ':' && !quoted:
				value = true
				text = text[i+1:]
			}
		}
		if value {
			d.decodeInto(text)
		}
		return d.buf, true
	}
}
