// Package origin is the HTTPS site that the benchmark fetches from, as a process of its own, and the form of the bodies
// that it sends.
package origin

import (
	"bytes"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand/v2"
)

// A body is a fixed first line, so that no random first bytes look like an archive or a program to anybody; random bytes,
// which do not compress; and the CRC-32C of everything before it, so that whoever fetches it sees that it is whole.
const (
	firstLine = "A body of the benchmark.\n"
	sumSize   = 4
	// MinSize is the smallest body in bytes: enough of them are random to make it unique.
	MinSize = len(firstLine) + 16 + sumSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteBody writes a body of size bytes, at least MinSize, that is different each time.
func WriteBody(w io.Writer, size int64) error {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails, see its documentation
	src := rand.NewChaCha8(seed)
	sum := crc32.New(castagnoli)
	buf := make([]byte, min(size, 64<<10))
	n := copy(buf, firstLine)
	for left := size - sumSize; left > 0; n = 0 {
		chunk := buf[:min(left, int64(len(buf)))]
		_, _ = src.Read(chunk[n:]) // never fails, see its documentation
		_, _ = sum.Write(chunk)    // neither does a hash
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		left -= int64(len(chunk))
	}
	_, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// Body returns a body of size bytes that is different each time.
func Body(size int64) []byte {
	var b bytes.Buffer
	b.Grow(int(size))
	_ = WriteBody(&b, size) // a buffer takes everything
	return b.Bytes()
}

// Checker is an io.Writer that takes a body and says whether it is whole.
type Checker struct {
	sum  hash.Hash32
	tail []byte
	size int64
}

// NewChecker returns a Checker at the beginning of a body.
func NewChecker() *Checker {
	return &Checker{sum: crc32.New(castagnoli), tail: make([]byte, 0, 2*sumSize)}
}

// Write takes the next bytes. It never fails.
func (c *Checker) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	if len(p) >= sumSize {
		_, _ = c.sum.Write(c.tail)
		_, _ = c.sum.Write(p[:len(p)-sumSize])
		c.tail = append(c.tail[:0], p[len(p)-sumSize:]...)
		return len(p), nil
	}
	c.tail = append(c.tail, p...)
	if over := len(c.tail) - sumSize; over > 0 {
		_, _ = c.sum.Write(c.tail[:over])
		c.tail = append(c.tail[:0], c.tail[over:]...)
	}
	return len(p), nil
}

// Size returns the number of bytes so far.
func (c *Checker) Size() int64 { return c.size }

// Check returns nil when a whole body of size bytes has been written, and begins a new one.
func (c *Checker) Check(size int64) error {
	got, want, n := c.sum.Sum32(), c.tail, c.size
	defer func() {
		c.sum.Reset()
		c.tail, c.size = c.tail[:0], 0
	}()
	if n != size {
		return fmt.Errorf("a body of %d bytes came with %d bytes", size, n)
	}
	if len(want) != sumSize || got != binary.BigEndian.Uint32(want) {
		return errors.New("a body came with other bytes than it was sent with")
	}
	return nil
}
