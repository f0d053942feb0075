package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// assigner puts a tree into settings, and collects what does not fit.
type assigner struct {
	errs []*Error
	// places says where each key of the file stands, by its full name.
	places map[string]pos
	// names lists every key that there is, for hints: by its last part, the full names.
	names map[string][]string
}

func (a *assigner) fail(p pos, key, format string, args ...any) {
	if len(a.errs) < maxErrors {
		a.errs = append(a.errs, &Error{Line: p.line, Column: p.col, Key: key, Message: fmt.Sprintf(format, args...)})
	}
}

// table assigns the keys of n to the struct v, whose own name is path.
func (a *assigner) table(n *node, v reflect.Value, path string) {
	fields := fieldsOf(v)
	for _, name := range n.names() {
		val := n.fields[name]
		full := join(path, name)
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == name })
		if i < 0 {
			a.fail(val.pos, full, "there is no such key%s", a.hint(name, path, fields))
			continue
		}
		a.places[full] = val.pos
		a.value(val, fields[i].value, full)
	}
}

func (a *assigner) value(n *node, v reflect.Value, path string) {
	if v.Type() == reflect.TypeFor[Scanner]() {
		a.scanner(n, v, path)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && n.kind != kindArray && n.kind != kindTable {
		a.text(n, v, u, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if n.kind != kindTable {
			a.wrong(n, path, "a table")
			return
		}
		a.table(n, v, path)
	case reflect.Slice:
		a.slice(n, v, path)
	case reflect.String:
		if n.kind != kindString {
			a.wrong(n, path, "a string, in quotes")
			return
		}
		v.SetString(n.text)
	case reflect.Bool:
		if n.kind != kindBool {
			a.wrong(n, path, "true or false, without quotes")
			return
		}
		v.SetBool(n.text == "true")
	case reflect.Int, reflect.Int64, reflect.Uint16, reflect.Uint32:
		a.integer(n, v, path)
	default:
		a.fail(n.pos, path, "settings of type %s cannot be read: this is a fault of the program", v.Type())
	}
}

// wrong says that a value is of the wrong type. It does not repeat the value, which may be a secret.
func (a *assigner) wrong(n *node, path, want string) {
	a.fail(n.pos, path, "is %s, and must be %s", kindNames[n.kind], want)
}

func (a *assigner) text(n *node, v reflect.Value, u encoding.TextUnmarshaler, path string) {
	text := n.text
	if n.kind == kindTime && v.Type() == reflect.TypeFor[time.Time]() {
		text = strings.Replace(text, " ", "T", 1)
	}
	_, takesBool := u.(interface{ TakesBool() })
	if n.kind == kindBool && !takesBool || n.kind == kindFloat {
		a.wrong(n, path, "a string, in quotes")
		return
	}
	if n.kind == kindInteger {
		text = strings.ReplaceAll(text, "_", "")
	}
	if err := u.UnmarshalText([]byte(text)); err != nil {
		if v.Type() == reflect.TypeFor[netip.Prefix]() {
			a.fail(n.pos, path, "%q is not a network: write one such as \"192.0.2.0/24\", or \"192.0.2.7/32\" for a single address", text)
			return
		}
		a.fail(n.pos, path, "%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
}

func (a *assigner) slice(n *node, v reflect.Value, path string) {
	if n.kind != kindArray {
		if n.kind == kindString && v.Type().Elem().Kind() == reflect.String {
			a.fail(n.pos, path, "is a string, and must be an array: write [%q]", n.text)
			return
		}
		a.wrong(n, path, "an array, in brackets")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		full := fmt.Sprintf("%s[%d]", path, i+1)
		if item.kind == kindTable {
			a.places[full] = item.pos
		}
		a.value(item, out.Index(i), full)
	}
	v.Set(out)
}

func (a *assigner) integer(n *node, v reflect.Value, path string) {
	if n.kind != kindInteger {
		a.wrong(n, path, "an integer, without quotes")
		return
	}
	i, err := strconv.ParseInt(strings.ReplaceAll(n.text, "_", ""), 0, 64)
	if err != nil || v.CanUint() && (i < 0 || v.OverflowUint(uint64(i))) || v.CanInt() && v.OverflowInt(i) {
		a.fail(n.pos, path, "%s is out of range", n.text)
		return
	}
	if v.CanUint() {
		v.SetUint(uint64(i))
		return
	}
	v.SetInt(i)
}

// field is a setting: its key, its text for the sample, and where its value is.
type field struct {
	key, doc string
	value    reflect.Value
}

// fieldsOf returns the settings of a struct; those of embedded structs are its own.
func fieldsOf(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			out = append(out, fieldsOf(v.Field(i))...)
			continue
		}
		if key := f.Tag.Get("toml"); key != "" && key != "-" {
			out = append(out, field{key: key, doc: f.Tag.Get("doc"), value: v.Field(i)})
		}
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// hint returns what may have been meant by an unknown key.
func (a *assigner) hint(name, path string, fields []field) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, f := range fields {
		if d := editDistance(name, f.key); d < distance {
			best, distance = f.key, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	if elsewhere := a.names[name]; len(elsewhere) > 0 {
		table, _, ok := cutLast(elsewhere[0], ".")
		if !ok {
			return "; it belongs before the first [table]"
		}
		return fmt.Sprintf("; it belongs into [%s]", table)
	}
	if path == "" {
		for full := range a.names {
			if d := editDistance(name, full); d < distance {
				best, distance = a.names[full][0], d
			}
		}
		if best != "" {
			return fmt.Sprintf("; did you mean %q?", best)
		}
	}
	return "; see \"lazaret config\" for all that there are"
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
