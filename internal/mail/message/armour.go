package message

import "bytes"

// OpenPGP messages in ASCII armour (RFC 9580, 6.2). What comes out is the message; package unpack opens those that are not encrypted.

const (
	armourBegin = "-----BEGIN PGP MESSAGE"
	armourEnd   = "-----END"
)

// armour decodes what stands between those lines.
type armour struct {
	d        *base64Decoder
	inHeader bool
	begun    bool
}

func (a *armour) line(text []byte) ([]byte, bool) {
	text = bytes.TrimRight(text, " \t")
	switch {
	case a.inHeader:
		// A header ends with an empty line. Where there is none before the base64, there is no header.
		a.inHeader = len(text) > 0 && bytes.IndexByte(text, ':') > 0
		if a.inHeader || len(text) == 0 {
			return nil, true
		}
	case len(text) == 5 && text[0] == '=', bytes.HasPrefix(text, []byte(armourEnd)):
		return nil, false // the checksum, or the end
	}
	a.d.buf = a.d.buf[:0]
	a.d.decodeInto(text)
	if !a.begun && len(a.d.buf) > 0 {
		a.begun = true
		if isEncryptedPGP(a.d.buf[0]) {
			return nil, false // there is nothing in it for anybody without the key
		}
	}
	return a.d.buf, true
}

// isEncryptedPGP says whether a packet begins with c (RFC 9580, 4.2) that comes first in what is encrypted.
func isEncryptedPGP(c byte) bool {
	tag := c >> 2 & 0xf
	if c&0x40 != 0 {
		tag = c & 0x3f
	}
	switch tag {
	case 1, 3, 9, 18, 20:
		return c&0x80 != 0
	}
	return false
}

// openArmour begins an OpenPGP message; inHeader says that its armour's header comes next, and not its content.
func (m *embedded) openArmour(inHeader bool) {
	a := &armour{d: m.base64(), inHeader: inHeader}
	m.open("OpenPGP", a.line)
}
