package content

import (
	"bytes"
	"strings"

	"lazaret/internal/spool"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// utf16 emits the body in UTF-8 when a client would take it for UTF-16: by its byte order mark, by the declared charset, or
// because every other byte of its beginning is zero.
func (f *finder) utf16(b *spool.Blob, charset, mediaType string) error {
	head, err := f.head(b)
	if err != nil {
		return err
	}
	order, ok := utf16Order(head[:min(len(head), 512)], strings.ToLower(charset))
	if !ok {
		return nil
	}
	dec := unicode.UTF16(order, unicode.UseBOM).NewDecoder()
	return f.emit("as UTF-16", mediaType+"; charset=utf-8", transform.NewReader(b.NewReader(), dec))
}

func utf16Order(head []byte, charset string) (unicode.Endianness, bool) {
	if len(head) < 4 {
		return unicode.LittleEndian, false
	}
	switch {
	case head[0] == 0xff && head[1] == 0xfe:
		return unicode.LittleEndian, true
	case head[0] == 0xfe && head[1] == 0xff:
		return unicode.BigEndian, true
	case charset == "utf-16be" || charset == "unicodefffe":
		return unicode.BigEndian, true
	case strings.HasPrefix(charset, "utf-16") || charset == "unicode" || charset == "ucs-2":
		return unicode.LittleEndian, true
	}
	if bytes.Count(head, []byte{0}) <= len(head)/4 {
		return unicode.LittleEndian, false // far fewer than are asked for below, and quicker to see
	}
	var zeros, text [2]int
	for i, c := range head {
		switch {
		case c == 0:
			zeros[i%2]++
		case c >= ' ' && c < 0x7f, c == '\n', c == '\r', c == '\t':
			text[i%2]++
		}
	}
	half := len(head) / 2
	switch {
	case zeros[1] > half*3/4 && text[0] > half*3/4:
		return unicode.LittleEndian, true
	case zeros[0] > half*3/4 && text[1] > half*3/4:
		return unicode.BigEndian, true
	}
	return unicode.LittleEndian, false
}
