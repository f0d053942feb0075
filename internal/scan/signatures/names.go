package signatures

import (
	"encoding/binary"
	"strings"
)

// names keeps signature names in little room: a name is the number of its family, which many names share, and the rest.
// It is written by one goroutine while a database is built, and then only read.
type names struct {
	blob     []byte
	families []string
	known    map[string]uint32 // nil when the database is built
}

// maxFamilies bounds the table of families, for files whose every name is different.
const maxFamilies = 1 << 16

func newNames() *names {
	return &names{known: map[string]uint32{"": 0}, families: []string{""}}
}

// add keeps name and returns what get needs to find it.
func (t *names) add(name string) uint32 {
	at := uint32(len(t.blob))
	family, rest := splitName(name)
	id, ok := t.known[family]
	switch {
	case ok:
	case len(t.families) < maxFamilies:
		id = uint32(len(t.families))
		family = strings.Clone(family)
		t.families = append(t.families, family)
		t.known[family] = id
	default:
		id, rest = 0, name
	}
	t.blob = binary.AppendUvarint(t.blob, uint64(id))
	t.blob = binary.AppendUvarint(t.blob, uint64(len(rest)))
	t.blob = append(t.blob, rest...)
	return at
}

// get returns the name that add kept at the place at.
func (t *names) get(at uint32) string {
	b := t.blob[at:]
	id, n := binary.Uvarint(b)
	b = b[n:]
	length, n := binary.Uvarint(b)
	return t.families[id] + string(b[n:n+int(length)])
}

// full says whether there is no room for another name of the length n.
func (t *names) full(n int) bool { return uint64(len(t.blob))+uint64(n)+16 > 1<<32-1 }

// seal gives back what is only needed while names are added.
func (t *names) seal() {
	t.known = nil
	t.blob = append(make([]byte, 0, len(t.blob)), t.blob...)
}

// splitName splits before the first digit that follows a separator, "Win.Trojan.Agent-" and "123-0"; else behind the last
// separator.
func splitName(name string) (family, rest string) {
	last := 0
	for i := 1; i < len(name); i++ {
		switch name[i-1] {
		case '.', '-', '_', '/':
			if name[i] >= '0' && name[i] <= '9' {
				return name[:i], name[i:]
			}
			last = i
		}
	}
	return name[:last], name[last:]
}
