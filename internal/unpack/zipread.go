package unpack

import (
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"
)

// Compression methods of zip (APPNOTE.TXT, 4.4.5).
const (
	zipStored    = 0
	zipDeflate   = 8
	zipDeflate64 = 9
	zipBzip2     = 12
	zipLZMA      = 14
	zipZstdOld   = 20
	zipZstd      = 93
	zipXZ        = 95
	zipAES       = 99 // the content is encrypted; its true method is in an extra field
)

var errMethod = errors.New("a compression method that is not known here")

// endsItself says whether the compressed data of a method has an end mark.
func endsItself(method uint16) bool { return method == zipDeflate || method == zipDeflate64 }

// zipAttempt is one way to read a member. For methods that mark their end by themselves packed and size are 0: whoever
// believes a header about where the content ends can see less of it, never more.
type zipAttempt struct {
	data         int64
	method       uint16
	packed, size int64
}

func (e *zipEntry) attempt() zipAttempt {
	a := zipAttempt{data: e.data, method: e.method}
	if !endsItself(e.method) {
		a.packed = e.packed
	}
	if e.method == zipLZMA {
		a.size = e.size
	}
	return a
}

// zipReading is a member while it is read in all the ways that its headers ask for.
type zipReading struct {
	name      string
	sums      []uint32 // the checksums that headers state
	encrypted bool     // a header says so
	listed    bool     // a central directory does, or it stands where members must be
	end       int64    // how far into the file the content goes
	right     bool     // the content was read, with its checksum
	tried     bool     // there was something to read
	err       error    // why it could not
}

// read reads one member in all the ways that its headers ask for, has what comes out visited, and reports what went wrong
// when none of them gave the content whose checksum a header states.
func (z *zipWalk) read(views []zipEntry) (*zipReading, error) {
	r := &zipReading{name: views[0].name, listed: views[0].listed, end: views[0].data}
	for _, e := range views {
		if e.flags&flagDescriptor == 0 || e.crc != 0 {
			r.sums = append(r.sums, e.crc)
		}
		r.encrypted = r.encrypted || e.flags&flagEncrypted != 0 || e.method == zipAES
		if e.method == zipStored && e.size != e.packed || !zipMethods(e.method) {
			// Of two sizes some programs take the one, some the other. What Android does not know it takes for stored.
			for _, size := range []int64{e.packed, e.size} {
				views = append(views, zipEntry{name: e.name, data: e.data, packed: size, size: size})
			}
		}
	}
	for i := range views {
		if err := z.attempt(r, &views[i]); err != nil {
			return r, err
		}
	}
	path := joinPath(z.n.path, cleanName(r.name))
	switch {
	case r.right || !r.tried:
	case r.encrypted:
		z.w.problem(path, errorf(Encrypted, "zip", "the member is encrypted"))
	case r.listed && r.err != nil:
		z.w.problem(path, r.err)
	}
	return r, nil
}

// attempt reads a member in one way.
func (z *zipWalk) attempt(r *zipReading, e *zipEntry) error {
	a := e.attempt()
	if !endsItself(e.method) && e.packed <= 0 {
		return nil // nothing in it
	}
	if _, again := z.tried[a]; again {
		return nil // what there was to say about it was said then
	}
	z.tried[a] = struct{}{}
	r.tried = true
	s := z.w.stream(z.n, e.data, -1)
	if !endsItself(e.method) {
		s.close()
		s = z.w.stream(z.n, e.data, e.packed)
	}
	defer s.close()
	content, release, err := z.decoder(e, s)
	defer release()
	if err != nil {
		return z.failed(r, e, err)
	}
	sum := crc32.NewIEEE()
	m, err := z.w.take(z.n, e.name, io.TeeReader(content, sum))
	defer m.close()
	if err != nil && m.blob == nil {
		return err
	}
	r.end = max(r.end, s.pos())
	right := m.err == nil && (len(r.sums) == 0 || slices.Contains(r.sums, sum.Sum32()))
	r.right = r.right || right
	if r.encrypted && !right {
		return err // noise
	}
	if m.err == nil && !right {
		r.err = errorf(Undecodable, "zip", "the content does not have its checksum")
	}
	if m.err != nil && kindOf(m.err) == Undecodable {
		// Reported when no other way is right. The part that could be read is visited.
		r.err = &Error{Kind: Undecodable, What: "zip", Err: unexpected(m.err)}
		m.quiet = true
	}
	if giveErr := z.w.give(z.n, &m); err == nil {
		err = giveErr
	}
	return err
}

// failed notes that a decoder could not even begin. Another way of reading does not make up for what only a decoder that
// is missing here would show.
func (z *zipWalk) failed(r *zipReading, e *zipEntry, err error) error {
	if kindOf(err) == Undecodable && (!errors.Is(err, errMethod) || r.encrypted || !r.listed) {
		r.err = err
		return nil
	}
	z.w.problem(joinPath(z.n.path, cleanName(e.name)), err)
	return z.w.alive(z.n.path)
}

func zipMethods(method uint16) bool {
	switch method {
	case zipStored, zipDeflate, zipDeflate64, zipBzip2, zipLZMA, zipZstdOld, zipZstd, zipXZ:
		return true
	}
	return false
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(nothing{}) }}

// decoder returns a reader of e's content, which is compressed in s, and what gives its memory back.
func (z *zipWalk) decoder(e *zipEntry, s *stream) (r io.Reader, release func(), err error) {
	none := func() {}
	switch e.method {
	case zipStored:
		if e.packed > z.size-e.data {
			return io.MultiReader(s, truncated{}), none, nil
		}
		return s, none, nil
	case zipDeflate:
		f := inflaters.Get().(io.ReadCloser)
		err := f.(flate.Resetter).Reset(s, nil)
		return f, func() { inflaters.Put(f) }, err
	case zipDeflate64:
		return newInflate64(s), none, nil
	case zipBzip2:
		release, err = z.w.reserve(bzip2Memory, "bzip2")
		return bzip2.NewReader(s), release, err
	case zipLZMA:
		return z.lzma(e, s)
	case zipZstdOld, zipZstd:
		r, release, err = z.w.zstdReader(s)
		return &untilTrailing{r}, release, err
	case zipXZ:
		x := &xzReader{w: z.w, s: s}
		return &untilTrailing{x}, x.free, nil
	}
	return nil, none, &Error{Kind: Undecodable, What: "zip", Err: errMethod}
}

// lzma reads the header of an LZMA member: a version, the length of the properties, the properties.
func (z *zipWalk) lzma(e *zipEntry, s *stream) (io.Reader, func(), error) {
	var h [9]byte
	if _, err := io.ReadFull(s, h[:]); err != nil {
		return nil, func() {}, unexpected(err)
	}
	if h[2] != 5 || h[3] != 0 {
		return nil, func() {}, errorf(Undecodable, "zip", "a broken LZMA header")
	}
	size := uint64(e.size)
	if e.flags&2 != 0 { // the data has an end mark
		size = 1<<64 - 1
	}
	header := binary.LittleEndian.AppendUint64(h[4:9:9], size)
	return z.w.lzmaReader(header, &prefixed{head: header, stream: s})
}

// prefixed is a stream with something before it, that is still read byte by byte.
type prefixed struct {
	head []byte
	*stream
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.stream.Read(b)
}

func (p *prefixed) ReadByte() (byte, error) {
	if len(p.head) > 0 {
		c := p.head[0]
		p.head = p.head[1:]
		return c, nil
	}
	return p.stream.ReadByte()
}
