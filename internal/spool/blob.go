package spool

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Blob is a sealed object: immutable, reopenable, counted.
type Blob struct {
	pool     *Pool
	mem      []byte
	reserved int64
	file     *os.File
	onDisk   int64
	size     int64
	sum      [sha256.Size]byte
	refs     atomic.Int32
}

// Of returns b as a Blob of the pool, for content that is in memory anyway, such as a test's. The pool's limits apply.
func (p *Pool) Of(b []byte) (*Blob, error) {
	w := p.New()
	if _, err := w.Write(b); err != nil {
		w.Discard()
		return nil, err
	}
	return w.Seal()
}

// Size returns the number of bytes.
func (b *Blob) Size() int64 { return b.size }

// SHA256 returns the digest of all bytes, computed while they were written.
func (b *Blob) SHA256() [sha256.Size]byte { return b.sum }

// Bytes returns the content when it is in memory, and whether it is. The slice must not be written to, nor kept beyond
// the caller's reference.
func (b *Blob) Bytes() ([]byte, bool) { return b.mem, b.file == nil }

// ReadAt implements io.ReaderAt.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if b.refs.Load() <= 0 {
		return 0, ErrClosed
	}
	if b.file != nil {
		return b.file.ReadAt(p, off)
	}
	if off < 0 || off >= int64(len(b.mem)) {
		return 0, io.EOF
	}
	n := copy(p, b.mem[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Reader is what NewReader returns.
type Reader interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// NewReader returns an independent reader from the start. It holds no reference: keep yours while reading.
func (b *Blob) NewReader() Reader {
	if b.file == nil {
		return bytes.NewReader(b.mem)
	}
	return io.NewSectionReader(b, 0, b.size)
}

// File returns a file to hand over to another process: it has the whole content, is positioned at the start, and shares
// no position with any other. The caller closes it. For content in memory it is a memfd, made for this call.
func (b *Blob) File() (*os.File, error) {
	if b.refs.Load() <= 0 {
		return nil, ErrClosed
	}
	if b.file != nil {
		// Opened anew through /proc, because a duplicated descriptor would share the position.
		return os.Open("/proc/self/fd/" + strconv.Itoa(int(b.file.Fd())))
	}
	fd, err := unix.MemfdCreate("lazaret-object", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:lazaret-object")
	if _, err := f.WriteAt(b.mem, 0); err != nil {
		_ = f.Close() // the write's error is the one to report
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return f, nil
}

// Retain adds a reference and returns b.
func (b *Blob) Retain() *Blob {
	b.refs.Add(1)
	return b
}

// Close gives one reference back, and with the last one the room. More closes than references are harmless.
func (b *Blob) Close() error {
	if b.refs.Add(-1) != 0 {
		return nil
	}
	b.pool.memory.Add(-b.reserved)
	var err error
	if b.file != nil {
		err = b.file.Close()
	}
	b.pool.giveBack(b.onDisk)
	return err
}
