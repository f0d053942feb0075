package unpack

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
)

// Members of a zip archive that no central directory lists.

// searchFactor is how many times its size, and a little, an archive is searched for headers. An archive that consists of
// headers makes every one of them a reason to search.
const searchFactor = 16

// look reads into buf from at on, to search for headers.
func (z *zipWalk) look(buf []byte, at int64) (int, error) {
	if err := z.w.alive(z.n.path); err != nil {
		return 0, err
	}
	k, _ := z.n.blob.ReadAt(buf, at) // what cannot be read is reported where it is wanted
	if z.looked += int64(k); z.looked > searchFactor*z.size+16<<20 {
		return 0, z.w.stop(TooMany, z.n.path, errorf(TooMany, "zip", "so many headers that no directory lists that looking for more was given up"))
	}
	return k, nil
}

// maxDescriptor is the length of the longest data descriptor.
const maxDescriptor = 24

// leftOver reads the members that no central directory lists: programs that read an archive as it comes in see them, and
// so do those that repair. They are searched for between what is known.
func (z *zipWalk) leftOver() error {
	next := int64(0) // where a member must be, if there is one more
	for at := int64(0); at < z.size; {
		end, known := z.covered.gap(at, z.size)
		if known {
			at, next = end, end
			continue
		}
		found, err := z.search(at, end)
		if err != nil {
			return err
		}
		if found < 0 {
			at = end
			continue
		}
		chained := found-next <= maxDescriptor
		after, err := z.unlisted(found, chained)
		if err != nil {
			return err
		}
		at = after
		if chained {
			next = after
		}
	}
	return nil
}

// search returns the offset of the first local header that begins in [from, to), -1 when there is none.
func (z *zipWalk) search(from, to int64) (int64, error) {
	const overlap = zipLocal + 64
	buf := make([]byte, min(8<<10, to-from+overlap)) // headers mostly follow each other
	for at := from; at < to; at += int64(len(buf)) - overlap {
		k, err := z.look(buf, at)
		if err != nil {
			return 0, err
		}
		for i := 0; i < k; i++ {
			j := bytes.Index(buf[i:k], []byte(sigLocal))
			if j < 0 {
				break
			}
			i += j
			if off := at + int64(i); off < to && looksLikeLocalHeader(buf[i:k]) {
				if _, known := z.headers[off]; !known {
					return off, nil
				}
			}
		}
		if k < len(buf) {
			break
		}
	}
	return -1, nil
}

// unlisted reads the member whose local header is at off, and returns where to go on. What turns out to be no member is
// not reported, unless it stands where a member must be.
func (z *zipWalk) unlisted(off int64, chained bool) (after int64, err error) {
	z.headers[off] = struct{}{}
	e, ok := z.local(off)
	if !ok {
		if chained {
			z.w.problem(z.n.path, errorf(Undecodable, "zip", "%w, at offset %d", errCutHeader, off))
		}
		return off + 4, nil
	}
	e.listed = chained
	if e.flags&flagDescriptor != 0 && e.packed == 0 && !endsItself(e.method) {
		e.packed = z.descriptor(e.data) - e.data
		e.size = e.packed
	}
	r, err := z.read([]zipEntry{e})
	if r.err != nil && !chained {
		return off + 4, err
	}
	return r.end, err
}

// descriptor returns where stored content ends whose size only the descriptor behind it tells: at a descriptor with the
// right size, otherwise at the next header, otherwise at the end of the file.
func (z *zipWalk) descriptor(from int64) int64 {
	const overlap = 16
	buf := make([]byte, 64<<10)
	end := int64(-1)
	for at := from; at < z.size; at += int64(len(buf)) - overlap {
		k, err := z.look(buf, at)
		if err != nil {
			break // the walk has ended
		}
		for i := 0; i+4 <= k; i++ {
			j := bytes.Index(buf[i:k], []byte("PK"))
			if j < 0 || i+j+4 > k {
				break
			}
			i += j
			off := at + int64(i)
			switch string(buf[i : i+4]) {
			case sigData:
				if i+12 <= k && int64(binary.LittleEndian.Uint32(buf[i+8:])) == (off-from)&(1<<32-1) {
					return off
				}
			case sigLocal, sigCentral:
				if end < 0 {
					end = off
				}
			}
		}
		if k < len(buf) {
			break
		}
	}
	if end < 0 {
		return z.size
	}
	return end
}

// stretches are parts of a file.
type stretches struct {
	list   []stretch
	sorted bool
}

type stretch struct{ from, to int64 }

func (s *stretches) add(from, to int64) {
	if to > from {
		s.list, s.sorted = append(s.list, stretch{from, to}), false
	}
}

// gap returns, for an offset inside a stretch, where the stretch ends, and true; otherwise where the next one begins, or
// the file ends, and false.
func (s *stretches) gap(at, size int64) (int64, bool) {
	if !s.sorted {
		slices.SortFunc(s.list, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
		merged := s.list[:0]
		for _, t := range s.list {
			if last := len(merged) - 1; last >= 0 && t.from <= merged[last].to {
				merged[last].to = max(merged[last].to, t.to)
			} else {
				merged = append(merged, t)
			}
		}
		s.list, s.sorted = merged, true
	}
	i := sort.Search(len(s.list), func(i int) bool { return s.list[i].to > at })
	if i == len(s.list) {
		return size, false
	}
	if s.list[i].from <= at {
		return s.list[i].to, true
	}
	return s.list[i].from, false
}
