package content

import (
	"bytes"
	"strings"

	"lazaret/internal/spool"

	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// utf32 emits the body in UTF-8 when a client could take it for UTF-32, as old browsers and many programs do: by its byte
// order mark, by the declared charset, or because three of four bytes of its beginning are zero.
func (f *finder) utf32(b *spool.Blob, charset, mediaType string) error {
	head, err := f.head(b)
	if err != nil {
		return err
	}
	order, ok := utf32Order(head[:min(len(head), 512)], strings.ToLower(charset))
	if !ok {
		return nil
	}
	dec := utf32.UTF32(order, utf32.UseBOM).NewDecoder()
	return f.emit("as UTF-32", mediaType+"; charset=utf-8", transform.NewReader(b.NewReader(), dec))
}

func utf32Order(head []byte, charset string) (utf32.Endianness, bool) {
	if len(head) < 8 {
		return utf32.LittleEndian, false
	}
	switch {
	case head[0] == 0xff && head[1] == 0xfe && head[2] == 0 && head[3] == 0:
		return utf32.LittleEndian, true
	case head[0] == 0 && head[1] == 0 && head[2] == 0xfe && head[3] == 0xff:
		return utf32.BigEndian, true
	case charset == "utf-32be":
		return utf32.BigEndian, true
	case strings.HasPrefix(charset, "utf-32") || charset == "ucs-4" || charset == "iso-10646-ucs-4":
		return utf32.LittleEndian, true
	}
	if bytes.Count(head, []byte{0}) <= len(head)/4 {
		return utf32.LittleEndian, false // far fewer than are asked for below, and quicker to see
	}
	var zeros, text [4]int
	for i, c := range head {
		switch {
		case c == 0:
			zeros[i%4]++
		case c >= ' ' && c < 0x7f, c == '\n', c == '\r', c == '\t':
			text[i%4]++
		}
	}
	quarter := len(head) / 4
	most := func(i int) bool { return zeros[i] > quarter*3/4 }
	read := func(i int) bool { return text[i] > quarter*3/4 }
	switch {
	case read(0) && most(1) && most(2) && most(3):
		return utf32.LittleEndian, true
	case most(0) && most(1) && most(2) && read(3):
		return utf32.BigEndian, true
	}
	return utf32.LittleEndian, false
}
