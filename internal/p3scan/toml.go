package p3scan

import (
	"fmt"
	"slices"
	"strings"
)

// file is a settings file in the making.
type file struct {
	tables  []string            // in the order of their first key
	lines   map[string][]string // by table: what stands in it
	written map[string]string   // values by the full names of their keys
}

func newFile() *file { return &file{lines: map[string][]string{}, written: map[string]string{}} }

// set writes a key with a value that is TOML already. What is set first stays; it returns what is in force.
func (f *file) set(key, value string) string {
	if first, ok := f.written[key]; ok {
		return first
	}
	f.written[key] = value
	i := strings.LastIndexByte(key, '.')
	f.line(key[:i], key[i+1:]+" = "+value)
	return value
}

// note writes a comment into a table.
func (f *file) note(table, text string) { f.line(table, "# "+text) }

func (f *file) line(table, line string) {
	if !slices.Contains(f.tables, table) {
		f.tables = append(f.tables, table)
	}
	f.lines[table] = append(f.lines[table], line)
}

// bytes returns the file. Arrays of tables are written as they are named: "[scanner]" is [[scanner]].
func (f *file) bytes(source string) []byte {
	var b strings.Builder
	b.WriteString("# Settings of Lazaret, made from " + oneLine(source) + ".\n")
	for _, t := range f.tables {
		fmt.Fprintf(&b, "\n[%s]\n", t)
		for _, l := range f.lines[t] {
			b.WriteString(l + "\n")
		}
	}
	return []byte(b.String())
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// quoted writes a string of TOML.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quotedList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quoted(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// words splits a command as a shell would, as far as quotes and backslashes go. ok is false where it needs a shell.
func words(s string) (out []string, ok bool) {
	var word strings.Builder
	quote, in := rune(0), false
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, in = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == '\'' || quote == '"' && r != '$' && r != '`':
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, in = r, true
		case strings.ContainsRune("|&;<>()$`*?[]#~!{}", r):
			return nil, false
		case r == ' ' || r == '\t':
			if in {
				out = append(out, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out, quote == 0 && !escaped && len(out) > 0
}
