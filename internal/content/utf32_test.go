package content

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/unicode/utf32"
)

func TestUTF32IsRead(t *testing.T) {
	for name, c := range map[string]struct {
		order utf32.Endianness
		bom   utf32.BOMPolicy
		typ   string
	}{
		"little endian with a mark":    {utf32.LittleEndian, utf32.UseBOM, "text/plain"},
		"big endian with a mark":       {utf32.BigEndian, utf32.UseBOM, "text/plain"},
		"little endian by its looks":   {utf32.LittleEndian, utf32.IgnoreBOM, "text/plain"},
		"big endian by its looks":      {utf32.BigEndian, utf32.IgnoreBOM, "application/octet-stream"},
		"big endian by its charset":    {utf32.BigEndian, utf32.IgnoreBOM, "text/plain; charset=UTF-32BE"},
		"little endian by its charset": {utf32.LittleEndian, utf32.IgnoreBOM, "text/plain; charset=utf-32le"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := utf32.UTF32(c.order, c.bom).NewEncoder().String(strings.Repeat("<p>"+secret, 20))
			if err != nil {
				t.Fatal(err)
			}
			parts, problems := find(t, text, c.typ, Default(), false)
			if !slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, secret) }) || len(problems) > 0 {
				t.Errorf("%d parts, problems %v", len(parts), problems)
			}
		})
	}
}
