package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Sample returns a settings file with every key, its meaning, and its default, commented out: as it stands it changes
// nothing.
func Sample() []byte {
	var b strings.Builder
	b.WriteString("# Settings of Lazaret. Every key is shown with its default, commented out; as it stands this file changes\n" +
		"# nothing. Sizes are written \"256 KiB\" or \"1.5 GiB\", durations \"500ms\", \"2s\", \"5m\", \"36h\" or \"7d\".\n" +
		"# \"lazaret check --config FILE\" says what is wrong in a file, each error with line and column.\n\n")
	c := Default()
	v := reflect.ValueOf(c).Elem()
	for _, f := range fieldsOf(v) {
		if f.key == "state_dir" {
			f.value.SetString("") // the sample is the same whoever asks for it
			sampleKey(&b, f)
		}
	}
	sampleTables(&b, v, "")
	b.WriteString("\n# Engines. Without any: a clamd found at the usual sockets; else a clamd program found on the machine, run and\n" +
		"# supervised; else the built-in signatures alone, with a warning.\n")
	for _, name := range scannerTypeNames() {
		b.WriteString("\n# [[scanner]]\n")
		s := Scanner{Type: name, Required: true}
		for _, f := range append(fieldsOf(reflect.ValueOf(&s).Elem()), fieldsOf(scannerTypes[name]().Elem())...) {
			sampleKey(&b, f)
		}
	}
	return []byte(b.String())
}

func sampleTables(b *strings.Builder, v reflect.Value, path string) {
	for _, f := range fieldsOf(v) {
		if f.value.Kind() != reflect.Struct || f.doc != "" {
			continue
		}
		full := join(path, f.key)
		fmt.Fprintf(b, "\n[%s]\n", full)
		for _, k := range fieldsOf(f.value) {
			if (k.value.Kind() != reflect.Struct || k.doc != "") && !tables(k) {
				sampleKey(b, k)
			}
		}
		for _, k := range fieldsOf(f.value) {
			if tables(k) {
				sampleArray(b, k, join(full, k.key))
			}
		}
		sampleTables(b, f.value, full)
	}
}

// tables says whether a key is an array of tables.
func tables(f field) bool {
	return f.value.Kind() == reflect.Slice && f.value.Type().Elem().Kind() == reflect.Struct &&
		!f.value.Type().Elem().Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// sampleArray shows one table of an array, which stands behind the other keys: it would end their table.
func sampleArray(b *strings.Builder, f field, path string) {
	b.WriteString("\n")
	for _, line := range fold(f.doc, 100) {
		b.WriteString("# " + line + "\n")
	}
	fmt.Fprintf(b, "# [[%s]]\n", path)
	for _, k := range fieldsOf(reflect.New(f.value.Type().Elem()).Elem()) {
		sampleKey(b, k)
	}
}

func sampleKey(b *strings.Builder, f field) {
	for _, line := range fold(f.doc, 100) {
		b.WriteString("# " + line + "\n")
	}
	fmt.Fprintf(b, "# %s = %s\n", f.key, literal(f.value))
}

// literal writes a value as TOML.
func literal(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		if err != nil {
			return `""`
		}
		if _, err := strconv.Atoi(string(text)); err == nil {
			return string(text)
		}
		return strconv.Quote(string(text))
	}
	switch v.Kind() {
	case reflect.String:
		return strconv.Quote(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = literal(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// fold breaks a text into lines of at most width characters.
func fold(text string, width int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len(line)+1+len(w) > width {
			out = append(out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}
