package config

import (
	"reflect"
	"strings"
)

// Has says whether there is a setting of that full name, "pop3.max_sessions". Those of scanners are not among them.
func Has(key string) bool {
	v := reflect.ValueOf(Default()).Elem()
	names := strings.Split(key, ".")
	for i, name := range names {
		found := false
		for _, f := range fieldsOf(v) {
			if f.key != name {
				continue
			}
			last := i == len(names)-1
			if last != (f.value.Kind() != reflect.Struct || f.doc != "") {
				return false
			}
			v, found = f.value, true
			break
		}
		if !found {
			return false
		}
	}
	return true
}
