package config

import (
	"reflect"
	"slices"
	"strings"

	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/command"
	"lazaret/internal/scan/signatures"
)

// Scanner is one [[scanner]]: what all have, and the settings of its type.
type Scanner struct {
	Type     string `toml:"type" doc:"\"clamd\", \"command\" or \"signatures\""`
	Required bool   `toml:"required" doc:"whether an object is clean only when this engine says so; an engine that is not required can only find"`

	// Settings is the Config of the type's package.
	Settings interface{ Validate() error } `toml:"-"`
}

// scannerTypes says what each type's settings are, with their defaults.
var scannerTypes = map[string]func() reflect.Value{
	"clamd":      func() reflect.Value { return pointerTo(clamd.Default()) },
	"command":    func() reflect.Value { return pointerTo(command.Default()) },
	"signatures": func() reflect.Value { return pointerTo(signatures.Default()) },
}

func pointerTo[T any](v T) reflect.Value { return reflect.ValueOf(&v) }

func scannerTypeNames() []string {
	var out []string
	for name := range scannerTypes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// scanner assigns a [[scanner]]: which keys there are depends on its type.
func (a *assigner) scanner(n *node, v reflect.Value, path string) {
	if n.kind != kindTable {
		a.wrong(n, path, "a table: write [[scanner]]")
		return
	}
	a.places[path] = n.pos
	s := Scanner{Required: true}
	typ := n.fields["type"]
	if typ == nil || typ.kind != kindString {
		a.fail(n.pos, join(path, "type"), "is missing: write type = \"clamd\" (or %s)", strings.Join(scannerTypeNames(), ", "))
		return
	}
	fresh, ok := scannerTypes[typ.text]
	switch {
	case typ.text == "icap":
		a.fail(typ.pos, join(path, "type"), "\"icap\" is not available in this version; write some of %s", strings.Join(scannerTypeNames(), ", "))
		return
	case !ok:
		a.fail(typ.pos, join(path, "type"), "there is no scanner of type %q; write one of %s", typ.text, strings.Join(scannerTypeNames(), ", "))
		return
	}
	settings := fresh()
	common := reflect.ValueOf(&s).Elem()
	fields := append(fieldsOf(common), fieldsOf(settings.Elem())...)
	for _, name := range n.names() {
		val := n.fields[name]
		full := join(path, name)
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == name })
		if i < 0 {
			a.fail(val.pos, full, "a scanner of type %q has no such key%s", typ.text, a.hint(name, path, fields))
			continue
		}
		a.places[full] = val.pos
		a.value(val, fields[i].value, full)
	}
	s.Settings = settings.Elem().Interface().(interface{ Validate() error })
	v.Set(reflect.ValueOf(s))
}
