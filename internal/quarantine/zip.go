package quarantine

import (
	"archive/zip"
	"bufio"
	"compress/flate"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// ZipPassword is what samples are protected with by convention: it keeps scanners and fingers off, and nobody out.
const ZipPassword = "infected"

// WriteZip writes a zip file with one member, deflated and encrypted by the traditional method (APPNOTE.TXT 6.1), which every
// tool knows. The content must be smaller than 4 GiB.
func WriteZip(w io.Writer, name string, modified time.Time, password string, content io.Reader) error {
	z := zip.NewWriter(w)
	h := &zip.FileHeader{
		Name: name, Method: zip.Deflate, Modified: modified,
		Flags:          0x1 | 0x8 | 0x800, // encrypted, sizes follow the data, names are UTF-8
		CreatorVersion: 3<<8 | 20, ReaderVersion: 20,
	}
	h.SetMode(0o600)
	// CreateRaw takes the date as MS-DOS has it.
	var clock uint16
	h.ModifiedDate, clock = dosTime(modified) //nolint:staticcheck // what CreateRaw writes
	h.ModifiedTime = clock                    //nolint:staticcheck // what CreateRaw writes
	raw, err := z.CreateRaw(h)
	if err != nil {
		return err
	}
	stored := &counter{w: raw}
	c := newZipCrypto(stored, password)
	var random [12]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process rather than return an error
	// The last byte tells a wrong password; with flag 8 it is one of the time, as the checksum is not known yet.
	random[11] = byte(clock >> 8)
	if _, err := c.Write(random[:]); err != nil {
		return err
	}
	out := bufio.NewWriterSize(c, 64<<10)
	deflate, err := flate.NewWriter(out, flate.DefaultCompression)
	if err != nil {
		return err
	}
	sum := &checksum{Hash32: crc32.NewIEEE()}
	if _, err := io.Copy(io.MultiWriter(deflate, sum), content); err != nil {
		return err
	}
	if err := errors.Join(deflate.Close(), out.Flush()); err != nil {
		return err
	}
	if sum.n > math.MaxUint32 || stored.n > math.MaxUint32 {
		return fmt.Errorf("%d bytes are too many for such a zip file: export it raw", sum.n)
	}
	h.CRC32, h.CompressedSize64, h.UncompressedSize64 = sum.Sum32(), uint64(stored.n), uint64(sum.n)
	h.CompressedSize, h.UncompressedSize = uint32(stored.n), uint32(sum.n) //nolint:staticcheck // what CreateRaw's descriptor is made of
	return z.Close()
}

func dosTime(t time.Time) (date, clock uint16) {
	return uint16(t.Day() + int(t.Month())<<5 + max(0, t.Year()-1980)<<9), uint16(t.Second()/2 + t.Minute()<<5 + t.Hour()<<11)
}

type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

type checksum struct {
	hash.Hash32
	n int64
}

// Write implements io.Writer.
func (c *checksum) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash32.Write(p)
}

// zipCrypto encrypts by the traditional method of PKZIP (APPNOTE.TXT 6.1). It protects from nothing but accidents.
type zipCrypto struct {
	w    io.Writer
	keys [3]uint32
	buf  []byte
}

func newZipCrypto(w io.Writer, password string) *zipCrypto {
	c := &zipCrypto{w: w, keys: [3]uint32{0x12345678, 0x23456789, 0x34567890}}
	for i := range len(password) {
		c.update(password[i])
	}
	return c
}

func (c *zipCrypto) update(b byte) {
	c.keys[0] = crc(c.keys[0], b)
	c.keys[1] = (c.keys[1]+c.keys[0]&0xff)*134775813 + 1
	c.keys[2] = crc(c.keys[2], byte(c.keys[1]>>24))
}

func crc(sum uint32, b byte) uint32 { return crc32.IEEETable[byte(sum)^b] ^ sum>>8 }

// Write implements io.Writer.
func (c *zipCrypto) Write(p []byte) (int, error) {
	c.buf = append(c.buf[:0], p...)
	for i, b := range p {
		t := c.keys[2] | 2
		c.buf[i] = b ^ byte(t*(t^1)>>8)
		c.update(b)
	}
	return c.w.Write(c.buf)
}
