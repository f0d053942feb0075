package attachment

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net/url"
	"slices"
	"strings"

	"lazaret/internal/filetype"
	"lazaret/internal/spool"
)

// edit replaces the bytes from start to end with text, and what is in blob behind it.
type edit struct {
	start, end int64
	text       string
	blob       *spool.Blob // nil: nothing; it is the plan's
}

// plan is what is to be done to a mail whose structure is clear.
type plan struct {
	rules *Rules
	tools Tools
	blob  *spool.Blob

	edits       []edit // what is done
	probe       []edit // what would be done if everything that a rule is about were taken out
	renamed     []Hit
	stripped    []Hit
	replace     *Hit
	gone        int64 // up to where a part was taken out, with all that is in it
	undecodable string
}

// entity judges one entity, and notes what is to be done to it.
func (p *plan) entity(ctx context.Context, e *entity) error {
	if e.start < p.gone {
		return nil
	}
	var types []filetype.Info
	if e.leaf() && p.rules.byType {
		b, broken, err := decode(ctx, p.tools.Pool, p.blob, e)
		if err != nil {
			return err
		}
		if broken {
			p.undecodable = "a part in " + e.encoding + " that is broken"
			return nil
		}
		for _, name := range append([]string{""}, e.names...) {
			types = append(types, filetype.Of(plain(name), b, b.Size()))
		}
		_ = b.Close() // the room is given back
	}
	a, rule := p.rules.judge(e.names, types)
	hit := Hit{Name: display(e.names), Rule: rule}
	switch a {
	case leave:
		return nil
	case replace:
		if p.replace == nil {
			p.replace = &hit
		}
		return nil
	case strip:
		p.stripped = append(p.stripped, hit)
		p.edits = append(p.edits, p.stripEdits(e, p.tools.Note(hit))...)
		p.gone = e.end
	case rename:
		p.renamed = append(p.renamed, hit)
		p.edits = append(p.edits, p.renameEdits(e)...)
	}
	p.probe = append(p.probe, p.stripEdits(e, "x")...)
	return nil
}

// leftover returns what a rule is about and what would still be in the mail if all the parts that were found were taken out.
func (p *plan) leftover(ctx context.Context) (*Hit, error) {
	probe := p.blob
	if len(p.probe) > 0 {
		var err error
		if probe, err = p.build(true); err != nil {
			return nil, err
		}
		defer probe.Close() // the room is given back
	}
	left := maxEncoded
	if hit, err := p.rules.anywhere(ctx, p.tools, probe, &left); hit != nil || err != nil {
		return hit, err
	}
	return p.rules.anyName(ctx, probe, false)
}

// stripEdits puts a note in the place of an entity's content. Of a message's header only the fields about its content change.
func (p *plan) stripEdits(e *entity, note string) []edit {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(w, strings.ReplaceAll(strings.ReplaceAll(note, "\r\n", "\n"), "\n", "\r\n")+"\r\n") // a buffer takes everything
	_ = w.Close()
	fields := "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: inline\r\n"
	if !e.message {
		return []edit{{start: e.start, end: e.end, text: fields + "\r\n" + strings.TrimSuffix(b.String(), "\r\n")}}
	}
	if e.h.Value("mime-version") == "" {
		fields = "MIME-Version: 1.0\r\n" + fields
	}
	edits := dropFields(e, "content-")
	at := e.start + int64(e.h.End)
	return append(edits, edit{start: at, end: at, text: fields}, edit{start: e.body, end: e.end, text: b.String()})
}

// dropFields takes out the fields whose names begin like that.
func dropFields(e *entity, prefixes ...string) []edit {
	var edits []edit
	for _, f := range e.h.Fields {
		if slices.ContainsFunc(prefixes, func(s string) bool { return strings.HasPrefix(f.Name, s) }) {
			edits = append(edits, edit{start: e.start + int64(f.Start), end: e.start + int64(f.End)})
		}
	}
	return edits
}

// renameEdits gives an entity one name, with the suffix, in the place of all that it has.
func (p *plan) renameEdits(e *entity) []edit {
	name := p.rules.newName(e.names)
	typ := "application/octet-stream"
	prefixes := []string{"content-type", "content-disposition"}
	fields := fmt.Sprintf("Content-Type: %s;\r\n\t%s\r\n", typ, parameter("name", name))
	if !e.leaf() { // its type says how it is to be read
		prefixes, fields = prefixes[1:], ""
		if len(namesIn(e, "content-type")) > 0 {
			main, params, _ := parseValue(e.h.Value("content-type"))
			prefixes, fields = []string{"content-type", "content-disposition"}, "Content-Type: "+main
			for _, q := range params {
				if base, _, _ := strings.Cut(q.name, "*"); base != "name" {
					fields += ";\r\n\t" + q.name + "=" + quoted(q.value)
				}
			}
			fields += "\r\n"
		}
	}
	fields += "Content-Disposition: attachment;\r\n\t" + parameter("filename", name) + "\r\n"
	edits := dropFields(e, prefixes...)
	at := e.start + int64(e.h.End)
	return append(edits, edit{start: at, end: at, text: fields})
}

// namesIn returns the names that one field has.
func namesIn(e *entity, field string) []string {
	_, params, _ := parseValue(e.h.Value(field))
	names, _ := namesOf(params)
	return names
}

// maxName bounds a new name, in bytes.
const maxName = 100

// newName returns the name that an attachment gets: what shows of its old one, and the suffix.
func (r *Rules) newName(names []string) string {
	name := plain(display(names))
	if name == "" {
		name = "attachment"
	}
	name = strings.ToValidUTF8(strings.Map(func(c rune) rune {
		if strings.ContainsRune(`"\/:*?<>|%;`, c) {
			return '_'
		}
		return c
	}, name), "_")
	for i := range name {
		if i > maxName {
			name = name[:i]
			break
		}
	}
	return name + r.suffix
}

// parameter returns name="value", or RFC 2231's form where the value is not ASCII.
func parameter(name, value string) string {
	for i := range len(value) {
		if value[i] < ' ' || value[i] >= 0x7f {
			return name + "*=utf-8''" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
		}
	}
	return name + "=" + quoted(value)
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// build returns the mail with the edits: what is done, or what is probed.
func (p *plan) build(probe bool) (*spool.Blob, error) {
	edits := slices.Clone(p.edits)
	if probe {
		edits = slices.Clone(p.probe)
	}
	slices.SortStableFunc(edits, func(a, b edit) int {
		if a.start != b.start {
			return int(min(max(a.start-b.start, -1), 1))
		}
		return int(min(max(a.end-b.end, -1), 1))
	})
	w := p.tools.Pool.New()
	defer w.Discard()
	last := int64(0)
	for _, e := range edits {
		if e.start < last { // within a part that is gone
			continue
		}
		if _, err := io.Copy(w, io.NewSectionReader(p.blob, last, e.start-last)); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			return nil, err
		}
		if e.blob != nil {
			if _, err := io.Copy(w, e.blob.NewReader()); err != nil {
				return nil, err
			}
		}
		last = e.end
	}
	if _, err := io.Copy(w, io.NewSectionReader(p.blob, last, p.blob.Size()-last)); err != nil {
		return nil, err
	}
	return w.Seal()
}

// close gives back what the edits hold.
func (p *plan) close() {
	for _, e := range p.edits {
		if e.blob != nil {
			_ = e.blob.Close() // the room is given back
		}
	}
}
