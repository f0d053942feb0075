package message

import (
	"slices"
	"strings"
	"testing"
)

// element is an element of BER with a definite length, of four bytes as nobody has to write it.
func element(tag byte, content string) string {
	n := len(content)
	return string([]byte{tag, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + content
}

// open is one whose end its last piece tells.
func open(tag byte, content string) string { return string([]byte{tag, 0x80}) + content + "\x00\x00" }

// pieces is an OCTET STRING cut into pieces of n bytes, as programs write it that do not know the length yet.
func pieces(body string, n int, wrap func(byte, string) string) string {
	var b strings.Builder
	for chunk := range slices.Chunk([]byte(body), n) {
		b.WriteString(element(berOctets, string(chunk)))
	}
	return wrap(berChunks, b.String())
}

// smime is CMS SignedData around octets, as far as it is read: certificates and signatures follow.
func smime(octets string, wrap func(byte, string) string) string {
	data := "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"
	return wrap(berSequence, string(oidSignedData)+wrap(berExplicit, wrap(berSequence, "\x02\x01\x01"+wrap(berSet, wrap(berSequence, data))+
		wrap(berSequence, data+wrap(berExplicit, octets))+element(0xa0, "certificates"))))
}

func TestSignedMessages(t *testing.T) {
	inner := "Content-Type: application/octet-stream; name=a.com\r\nContent-Transfer-Encoding: base64\r\n\r\n" + crlf(coded(secret))
	whole := smime(element(berOctets, inner), element)
	for name, body := range map[string]string{
		"definite": whole, "indefinite": smime(pieces(inner, 10, open), open), "pieces of a definite length": smime(pieces(inner, 7, element), element),
		"pieces of pieces":        smime(open(berChunks, pieces(inner[:50], 20, open)+pieces(inner[50:], 20, element)), open),
		"cut behind the message":  whole[:strings.Index(whole, inner)+len(inner)],
		"a length that lies":      strings.Replace(whole, element(berOctets, inner), "\x04\x84\x7f\xff\xff\xff"+inner, 1),
		"a length of a few bytes": strings.Replace(whole, "\x30\x84", "\x30\x88\x00\x00\x00\x00", 1),
	} {
		mail := top + "Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\nContent-Transfer-Encoding: base64\n\n" + coded(body)
		parts, bodies, problems := readings(t, crlf(mail))
		i := slices.IndexFunc(bodies, func(b string) bool { return strings.HasPrefix(b, inner) })
		if i < 0 || len(problems) > 0 {
			t.Errorf("%s: not in %d readings, %v", name, len(bodies), problems)
		} else if parts[i].Type != "message/rfc822" {
			t.Errorf("%s: read as %q, so that nobody looks for its parts", name, parts[i].Type)
		}
	}
}

// What is no message, or is broken before it begins, is no problem of the mail, and ends.
func TestSignedMessagesWithoutOne(t *testing.T) {
	whole := smime(element(berOctets, "Content-Type: text/plain\r\n\r\nhello\r\n"), element)
	bodies := []string{
		smime("", element), smime("", open), smime(element(berInteger, "x"), element), strings.Repeat("\x30\x80", 1000) + string(oidSignedData),
		"\x30\x80" + string(oidSignedData) + "\xa0\x80\x30\x80\x02\x01\x01" + strings.Repeat("\x31\x80", 100_000),
		"\x30\x80" + string(oidSignedData) + "\xa0\x8f" + strings.Repeat("\xff", 100), "\x30\x80" + string(oidSignedData) + "\xbf",
		smime(strings.Repeat("\x24\x80", 100_000), open),
	}
	for i := range whole {
		bodies = append(bodies, whole[:i])
	}
	for _, body := range bodies {
		mail := top + "Content-Type: application/pkcs7-mime\nContent-Transfer-Encoding: base64\n\n" + coded(body)
		if _, _, problems := readings(t, crlf(mail)); len(problems) > 0 {
			t.Errorf("%.60q: %v", body, problems)
		}
	}
}
