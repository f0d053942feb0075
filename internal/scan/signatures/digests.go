package signatures

import (
	"bytes"
	"cmp"
	"slices"
)

// algorithm is a digest that signatures are written in.
type algorithm uint8

const (
	algMD5 algorithm = iota
	algSHA1
	algSHA256
	algorithms
)

// byLength returns the algorithm whose digest has n bytes.
func byLength(n int) (algorithm, bool) {
	switch n {
	case 16:
		return algMD5, true
	case 20:
		return algSHA1, true
	case 32:
		return algSHA256, true
	}
	return 0, false
}

// keySize is how much of a digest is kept. 128 bits are all of an MD5; of the others they still leave nobody a way to have
// a harmless file of somebody else's reported. What allows something is compared whole: see allowKey.
const keySize = 16

// digest is one signature of a whole file.
type digest struct {
	key  [keySize]byte
	size uint32 // 0: any
	name uint32 // in names
}

// digests is an immutable table of signatures of whole files, 24 bytes each.
type digests struct {
	rows   []digest // sorted by key and size
	starts []uint32 // of the rows whose key begins with so many bits
	shift  uint
	sizes  []uint64 // a bitmap of hashed sizes: what is not in it is the size of none
	mask   uint64
	any    bool // some have no size
}

// newDigests sorts rows, which it takes over, and indexes them.
func newDigests(rows []digest) *digests {
	slices.SortFunc(rows, func(a, b digest) int {
		if c := bytes.Compare(a.key[:], b.key[:]); c != 0 {
			return c
		}
		return cmp.Compare(a.size, b.size)
	})
	rows = slices.CompactFunc(rows, func(a, b digest) bool { return a.key == b.key && a.size == b.size })
	rows = append(make([]digest, 0, len(rows)), rows...) // the excess capacity goes
	bits := uint(1)
	for bits < 24 && len(rows)>>bits > 16 {
		bits++
	}
	t := &digests{rows: rows, shift: 32 - bits, starts: make([]uint32, 1<<bits+1)}
	words := 1
	for words < 1<<16 && words*8 < len(rows) {
		words *= 2
	}
	t.sizes, t.mask = make([]uint64, words), uint64(words*64-1)
	for i := range rows {
		t.starts[t.bucket(&rows[i].key)+1]++
		if rows[i].size == 0 {
			t.any = true
			continue
		}
		h := sizeHash(rows[i].size) & t.mask
		t.sizes[h>>6] |= 1 << (h & 63)
	}
	for i := 1; i < len(t.starts); i++ {
		t.starts[i] += t.starts[i-1]
	}
	return t
}

func sizeHash(size uint32) uint64 { return uint64(size) * hashMultiplier >> 32 }

func (t *digests) bucket(key *[keySize]byte) uint32 {
	return (uint32(key[0])<<24 | uint32(key[1])<<16 | uint32(key[2])<<8 | uint32(key[3])) >> t.shift
}

// has says whether an object of size bytes could be in the table, so that its digest is worth computing.
func (t *digests) has(size int64) bool {
	if t.any && len(t.rows) > 0 {
		return true
	}
	if size <= 0 || size > maxDigestSize {
		return false
	}
	h := sizeHash(uint32(size)) & t.mask
	return t.sizes[h>>6]>>(h&63)&1 != 0
}

// find returns the name of the signature of an object of size bytes whose digest is sum.
func (t *digests) find(sum []byte, size int64) (name uint32, ok bool) {
	key := [keySize]byte(sum[:keySize])
	b := t.bucket(&key)
	rows := t.rows[t.starts[b]:t.starts[b+1]]
	i, _ := slices.BinarySearchFunc(rows, key, func(d digest, k [keySize]byte) int { return bytes.Compare(d.key[:], k[:]) })
	for ; i < len(rows) && rows[i].key == key; i++ {
		if rows[i].size == 0 || int64(rows[i].size) == size {
			return rows[i].name, true
		}
	}
	return 0, false
}

// allowKey is an entry of an allow-list. The digest is kept whole: what is on the list passes.
type allowKey struct {
	alg  algorithm
	size uint32 // 0: any
	sum  [32]byte
}

// allowed is the allow-list: what is on it is clean whatever the other signatures say.
type allowed struct {
	keys  map[allowKey]struct{}
	sizes [algorithms]map[uint32]struct{}
}

func newAllowed() *allowed {
	a := &allowed{keys: map[allowKey]struct{}{}}
	for i := range a.sizes {
		a.sizes[i] = map[uint32]struct{}{}
	}
	return a
}

func (a *allowed) add(alg algorithm, sum []byte, size uint32) {
	k := allowKey{alg: alg, size: size}
	copy(k.sum[:], sum)
	a.keys[k] = struct{}{}
	a.sizes[alg][size] = struct{}{}
}

// has says whether an object of size bytes could be on the list by a digest of alg.
func (a *allowed) has(alg algorithm, size int64) bool {
	if _, unsized := a.sizes[alg][0]; unsized {
		return true
	}
	if size <= 0 || size > maxDigestSize {
		return false
	}
	_, ok := a.sizes[alg][uint32(size)]
	return ok
}

// find says whether an object of size bytes whose digest of alg is sum is on the list.
func (a *allowed) find(alg algorithm, sum []byte, size int64) bool {
	k := allowKey{alg: alg}
	copy(k.sum[:], sum)
	if _, ok := a.keys[k]; ok {
		return true
	}
	if size <= 0 || size > maxDigestSize {
		return false
	}
	k.size = uint32(size)
	_, ok := a.keys[k]
	return ok
}
