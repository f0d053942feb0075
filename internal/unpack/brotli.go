package unpack

import (
	"io"
	"reflect"

	"github.com/andybalholm/brotli"
)

// brotliTables is what a decoder needs besides its window, measured: 52 KiB for itself and its input, and up to 2.6 MiB for 256
// prefix codes each of literals, lengths and distances (RFC 7932, 9.2), which a few bytes can ask for.
const brotliTables = 3 << 20

// brotliMost is the largest window, of 2^24 bytes.
const brotliMost = 1<<24 + brotliTables

// brotliCoder decodes RFC 7932. The large windows that are no part of it are refused by the library.
type brotliCoder struct {
	admission
	src brotliSource
	zr  *brotli.Reader // nil: none was needed yet
	on  bool           // the memory for it has been taken
}

// brotliSource gives a byte that was looked at before the others, and tells an empty body from a truncated one.
type brotliSource struct {
	r     io.Reader
	first [1]byte
	any   bool
	given bool // first
}

func (s *brotliSource) Read(p []byte) (int, error) {
	if s.any && !s.given && len(p) > 0 {
		s.given = true
		p[0] = s.first[0]
		return 1, nil
	}
	return s.r.Read(p)
}

// brotliWindow returns the size of the window that the first byte of a stream declares (RFC 7932, 9.1), at least: for the large
// windows of others, and what nobody declares, the largest that there is.
func brotliWindow(first byte) int64 {
	bits := uint(24)
	switch {
	case first&1 == 0:
		bits = 16
	case first>>1&7 != 0:
		bits = 17 + uint(first>>1&7)
	case first>>4&7 == 0:
		bits = 17
	case first>>4&7 > 1:
		bits = 8 + uint(first>>4&7)
	}
	return 1 << bits
}

func (c *brotliCoder) name() string { return "br" }

func (c *brotliCoder) reset(r io.Reader, admit func(n int64) error) {
	c.src, c.admit, c.on = brotliSource{r: r}, admit, false
}

func (c *brotliCoder) release() {
	c.src, c.admit = brotliSource{r: nothing{}}, nil
	if c.zr != nil && brotliHolds(c.zr) > littleMemory {
		c.zr = nil
	}
	brotliCoders.Put(c)
}

// brotliHolds returns how many bytes a library's Reader keeps for the next stream. It looks into it, because what a stream declares
// would say that nearly all are large: the window of 4 MiB that most servers declare is allocated only as far as it is needed.
func brotliHolds(zr *brotli.Reader) int64 {
	v := reflect.ValueOf(zr).Elem()
	n := int64(v.FieldByName("ringbuffer").Cap())
	for _, group := range []string{"literal_hgroup", "insert_copy_hgroup", "distance_hgroup"} {
		codes := v.FieldByName(group).FieldByName("codes")
		n += int64(codes.Cap()) * int64(codes.Type().Elem().Size())
	}
	return n
}

func (c *brotliCoder) begin() error {
	for tries := 0; !c.src.any; tries++ {
		n, err := c.src.r.Read(c.src.first[:])
		switch c.src.any = n > 0; {
		case err != nil && n == 0:
			return err
		case tries > 100:
			return io.ErrNoProgress
		}
	}
	if err := c.needs(brotliWindow(c.src.first[0]) + brotliTables); err != nil {
		return err
	}
	c.on = true
	if c.zr == nil {
		c.zr = brotli.NewReader(&c.src)
		return nil
	}
	return c.zr.Reset(&c.src)
}

func (c *brotliCoder) Read(p []byte) (int, error) {
	if !c.on {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	return c.zr.Read(p)
}
