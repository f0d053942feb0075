package attachment

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"lazaret/internal/filetype"
	"lazaret/internal/spool"
)

// form is how a part is shown, by mail programs or by what an attachment is opened with.
type form uint8

const (
	otherForm form = iota
	formHTML
	formXML     // a browser shows pages and pictures that are written in it
	formArchive // a web page with all that belongs to it, as a mail: a browser opens it
)

// formsByName are those of files.
var formsByName = map[string]form{
	".htm": formHTML, ".html": formHTML, ".shtml": formHTML, ".shtm": formHTML, ".xht": formHTML, ".xhtml": formHTML,
	".svg": formXML, ".svgz": formXML, ".xml": formXML, ".xsl": formXML, ".xslt": formXML, ".mht": formArchive, ".mhtml": formArchive,
}

// formOf says how an entity is shown: by its type, by its names, and by its content where it has no name that says more. The error
// is one of the machine.
func formOf(ctx context.Context, b *spool.Blob, e *entity) (form, error) {
	if !e.leaf() {
		return otherForm, nil
	}
	if strings.Contains(e.typ, "html") {
		return formHTML, nil
	}
	named := false
	for _, n := range e.names {
		ext := path.Ext(plain(n))
		if f := formsByName[ext]; f != otherForm {
			return f, nil
		}
		named = named || ext != ""
	}
	if isXML(e.typ) {
		return formXML, nil
	}
	if named || e.typ == "text/plain" {
		return otherForm, nil
	}
	// What cannot be decoded is broken, and told by whoever decodes all of it.
	head := make([]byte, 4<<10)
	n, err := io.ReadFull(decoder(ctx, b, e), head)
	if ctx.Err() != nil {
		return otherForm, ctx.Err()
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && n == 0 {
		return otherForm, nil //nolint:nilerr // there is nothing in it, or nothing that could be read
	}
	return formByContent(head[:n]), nil
}

func formByContent(head []byte) form {
	mime := filetype.Of("", strings.NewReader(string(head)), int64(len(head))).MIME
	switch {
	case strings.Contains(mime, "html"):
		return formHTML
	case isXML(mime):
		return formXML
	}
	return otherForm
}

func isXML(typ string) bool {
	return typ == "text/xml" || typ == "application/xml" || strings.HasSuffix(typ, "+xml") || strings.HasPrefix(typ, "text/xsl")
}

// saved says whether an entity may be saved as a file. A mark has to say then that it is UTF-8.
func saved(e *entity) bool {
	main, _, _ := parseValue(e.h.Value("content-disposition"))
	return main == "attachment" || len(e.names) > 0
}

// typeField returns a Content-Type with the names that the entity's has.
func typeField(e *entity) string {
	typ, params, _ := parseValue(e.h.Value("content-type"))
	if typ == "" || strings.Contains(typ, "html") {
		typ = "text/html"
	}
	field := "Content-Type: " + typ + "; charset=utf-8"
	for _, q := range params {
		if base, _, _ := strings.Cut(q.name, "*"); base == "name" {
			value := quoted(q.value)
			if strings.HasSuffix(q.name, "*") {
				value = q.value // RFC 2231 has it without quotes
			}
			field += ";\r\n\t" + q.name + "=" + value
		}
	}
	return field + "\r\n"
}

// xml judges an entity that is XML, and returns why it is taken out; empty: it stays as it is.
func (h *HTML) xml(ctx context.Context, pool *spool.Pool, b *spool.Blob, e *entity) (why, broken string, err error) {
	d, bad, err := decode(ctx, pool, b, e)
	if err != nil {
		return "", "", err
	}
	if bad {
		return "", "XML in " + e.encoding + " that is broken", nil
	}
	defer d.Close() // the room is given back
	if d.Size() > maxHTML {
		return "more XML than can be looked at", "", nil
	}
	text := make([]byte, d.Size())
	if _, err := io.ReadFull(d.NewReader(), text); err != nil {
		return "", "", err
	}
	picture := strings.HasPrefix(e.typ, "image/svg") || slices.ContainsFunc(e.names, func(n string) bool {
		return strings.HasPrefix(path.Ext(plain(n)), ".svg")
	})
	return activeXML(text, picture), "", ctx.Err()
}
