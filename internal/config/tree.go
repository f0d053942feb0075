package config

import (
	"errors"
	"fmt"
	"sort"

	"github.com/pelletier/go-toml/v2/unstable"
)

// pos is a place in the file, both counted from 1.
type pos struct{ line, col int }

// kind is the TOML type of a value.
type kind uint8

const (
	kindTable kind = iota
	kindString
	kindInteger
	kindFloat
	kindBool
	kindTime
	kindArray
)

var kindNames = [...]string{"a table", "a string", "an integer", "a number", "a boolean", "a date", "an array"}

// node is a value of the file with its place.
type node struct {
	pos    pos
	kind   kind
	text   string           // of scalars, as TOML means it
	items  []*node          // of arrays
	fields map[string]*node // of tables
	header bool             // a table that a [header] made: its keys may not be given by dotted keys again
	tables bool             // an array that [[headers]] made
}

func newTable(p pos) *node { return &node{pos: p, kind: kindTable, fields: make(map[string]*node)} }

// names returns the keys of a table in their order in the file.
func (n *node) names() []string {
	out := make([]string, 0, len(n.fields))
	for k := range n.fields {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := n.fields[out[i]].pos, n.fields[out[j]].pos
		return a.line < b.line || a.line == b.line && a.col < b.col
	})
	return out
}

// builder makes a tree of a file.
type builder struct {
	p    unstable.Parser
	root *node
	here *node // the table that key-values go to
	errs []*Error
}

// maxErrors bounds how many errors of one file are told.
const maxErrors = 100

// parse returns the tree of data, as far as it could be read, and the errors of its syntax.
func parse(data []byte) (*node, []*Error) {
	b := &builder{root: newTable(pos{1, 1})}
	b.here = b.root
	b.p.Reset(data)
	for b.p.NextExpression() {
		b.expression(b.p.Expression())
	}
	if err := b.p.Error(); err != nil {
		b.errs = append(b.errs, b.syntax(err))
	}
	return b.root, b.errs
}

func (b *builder) syntax(err error) *Error {
	var pe *unstable.ParserError
	at := pos{1, 1}
	if errors.As(err, &pe) {
		if len(pe.Highlight) > 0 {
			at = b.at(b.p.Range(pe.Highlight))
		}
		return &Error{Line: at.line, Column: at.col, Message: pe.Message + ": this is not TOML; what follows was not read"}
	}
	return &Error{Line: at.line, Column: at.col, Message: err.Error()}
}

func (b *builder) at(r unstable.Range) pos {
	s := b.p.Shape(r).Start
	return pos{s.Line, s.Column}
}

func (b *builder) fail(p pos, format string, args ...any) {
	if len(b.errs) < maxErrors {
		b.errs = append(b.errs, &Error{Line: p.line, Column: p.col, Message: fmt.Sprintf(format, args...)})
	}
}

type keyPart struct {
	name string
	pos  pos
}

func (b *builder) key(n *unstable.Node) []keyPart {
	var out []keyPart
	for it := n.Key(); it.Next(); {
		out = append(out, keyPart{string(it.Node().Data), b.at(it.Node().Raw)})
	}
	return out
}

func (b *builder) expression(n *unstable.Node) {
	key := b.key(n)
	if len(key) == 0 {
		return
	}
	last := key[len(key)-1]
	switch n.Kind {
	case unstable.KeyValue:
		t := b.descend(b.here, key[:len(key)-1])
		if t != nil {
			b.set(t, last, b.value(n.Value(), last.pos))
		}
	case unstable.Table:
		b.here = newTable(last.pos) // where a wrong header's keys go: nowhere
		t := b.descend(b.root, key[:len(key)-1])
		if t == nil {
			return
		}
		switch have := t.fields[last.name]; {
		case have == nil:
			b.here.header = true
			t.fields[last.name] = b.here
		case have.kind != kindTable || have.header:
			b.fail(last.pos, "[%s] is there already, at line %d", last.name, have.pos.line)
		default:
			have.header, have.pos = true, last.pos
			b.here = have
		}
	case unstable.ArrayTable:
		b.here = newTable(last.pos)
		t := b.descend(b.root, key[:len(key)-1])
		if t == nil {
			return
		}
		have := t.fields[last.name]
		if have == nil {
			have = &node{pos: last.pos, kind: kindArray, tables: true}
			t.fields[last.name] = have
		}
		if !have.tables {
			b.fail(last.pos, "%s is there already, at line %d, and is no [[%s]]", last.name, have.pos.line, last.name)
			return
		}
		have.items = append(have.items, b.here)
	}
}

// descend returns the table below t that the key names, made where it is missing.
func (b *builder) descend(t *node, key []keyPart) *node {
	for _, k := range key {
		next := t.fields[k.name]
		switch {
		case next == nil:
			next = newTable(k.pos)
			t.fields[k.name] = next
		case next.tables:
			next = next.items[len(next.items)-1]
		case next.kind != kindTable:
			b.fail(k.pos, "%s is %s, at line %d, and cannot have keys", k.name, kindNames[next.kind], next.pos.line)
			return nil
		}
		t = next
	}
	return t
}

func (b *builder) set(t *node, k keyPart, v *node) {
	if have := t.fields[k.name]; have != nil {
		b.fail(k.pos, "%s is there already, at line %d", k.name, have.pos.line)
		return
	}
	t.fields[k.name] = v
}

// value copies a value out of the parser, which uses its memory again.
func (b *builder) value(n *unstable.Node, at pos) *node {
	v := &node{pos: at, text: string(n.Data)}
	switch n.Kind {
	case unstable.String:
		v.kind = kindString
	case unstable.Integer:
		v.kind = kindInteger
	case unstable.Float:
		v.kind = kindFloat
	case unstable.Bool:
		v.kind = kindBool
	case unstable.DateTime, unstable.LocalDateTime, unstable.LocalDate, unstable.LocalTime:
		v.kind = kindTime
	case unstable.Array:
		v.kind = kindArray
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, b.value(it.Node(), at))
		}
	case unstable.InlineTable:
		v.fields = make(map[string]*node)
		for it := n.Children(); it.Next(); {
			key := b.key(it.Node())
			if len(key) == 0 {
				continue
			}
			if t := b.descend(v, key[:len(key)-1]); t != nil {
				b.set(t, key[len(key)-1], b.value(it.Node().Value(), key[len(key)-1].pos))
			}
		}
	}
	return v
}
