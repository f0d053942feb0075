package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
)

// diskStep is how much disk a Writer reserves at a time, so that the shared counters and the file system are asked
// rarely.
const diskStep = 4 << 20

// Writer collects one object. It is used by one goroutine, and ended by Seal or Discard; Size and ReadAt alone may be called by
// others meanwhile.
type Writer struct {
	mu       sync.Mutex // what follows is changed under it
	pool     *Pool
	limit    int64
	mem      []byte
	reserved int64 // bytes of mem's capacity that are counted in pool.memory
	file     *os.File
	onDisk   int64 // bytes that are counted in pool.disk
	size     int64
	sum      hash.Hash
	err      error
	blob     *Blob    // what Seal has made of it
	waits    *Waiting // nil: it does not wait for room on disk
	claim    int64    // how much of the disk it will need at most
	ahead    int64    // how far ahead of what it has others are to think of it
}

// New returns a Writer for one object, limited by the pool's max_object.
func (p *Pool) New() *Writer { return p.NewLimited(int64(p.cfg.MaxObject)) }

// NewLimited returns a Writer that refuses more than limit bytes with ErrTooLarge; the pool's max_object holds besides.
func (p *Pool) NewLimited(limit int64) *Writer {
	return &Writer{pool: p, limit: min(limit, int64(p.cfg.MaxObject)), sum: sha256.New()}
}

// Expect says that about n bytes will come, so that memory for them is taken once. It promises nothing.
func (w *Writer) Expect(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil && w.err == nil && n > int64(cap(w.mem)) && n <= int64(w.pool.cfg.Memory) && len(w.mem) == 0 {
		w.reserve(int(n))
	}
}

// Write implements io.Writer. Its errors (ErrTooLarge, ErrFull, or the disk's own) stay: what was written is incomplete,
// and Seal will refuse it.
func (w *Writer) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.size+int64(len(b)) > w.limit {
		w.err = ErrTooLarge
		return 0, w.err
	}
	w.sum.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.store(b); err != nil {
		w.err = err
		return 0, err
	}
	w.size += int64(len(b))
	return len(b), nil
}

// Fill reads r into the memory that Expect has taken, without a buffer between, until that is full or r ends. ended says that r has
// ended; the error is r's. Where Expect has taken none it does nothing.
func (w *Writer) Fill(r io.Reader) (ended bool, err error) {
	for idle := 0; w.err == nil; {
		// Others read what was written before only, and nobody else writes.
		room := w.mem[len(w.mem):cap(w.mem)]
		if left := w.limit - w.size; int64(len(room)) > left {
			room = room[:left]
		}
		if w.file != nil || len(room) == 0 {
			return false, nil
		}
		n, err := r.Read(room)
		w.sum.Write(room[:n])
		w.mu.Lock()
		w.mem = w.mem[:len(w.mem)+n]
		w.size += int64(n)
		w.mu.Unlock()
		if err == io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if idle++; n > 0 {
			idle = 0
		} else if idle > 100 {
			return false, io.ErrNoProgress
		}
	}
	return false, nil
}

// copyBuffers are what ReadFrom reads into.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ReadFrom implements io.ReaderFrom: it writes what r has to its end, and returns how much that was. The error is r's, or
// Write's.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	// Neither side is shown for what it is: each would leave the copying to the other.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// Size returns how many bytes were written.
func (w *Writer) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// ReadAt reads what was written so far (io.ReaderAt); the end of that is io.EOF. It goes on after Seal as long as the object
// has not been closed; after that, and after Discard, there is an error.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	mem, file, size, blob := w.mem, w.file, w.size, w.blob
	w.mu.Unlock()
	switch {
	case blob != nil:
		return blob.ReadAt(p, off)
	case mem == nil && file == nil && size > 0:
		return 0, ErrClosed
	case off < 0 || off >= size:
		return 0, io.EOF
	}
	short := int64(len(p)) > size-off
	if short {
		p = p[:size-off]
	}
	if file == nil {
		copy(p, mem[off:size])
	} else if n, err := file.ReadAt(p, off); err != nil {
		return n, err
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

func (w *Writer) store(b []byte) error {
	if w.file == nil {
		if w.growMemory(len(b)) {
			w.mem = append(w.mem, b...)
			return nil
		}
		if err := w.grow(w.size + int64(len(b))); err != nil {
			return err
		}
		if err := w.spill(); err != nil {
			return err
		}
	}
	return w.writeFile(b)
}

// growMemory makes room for n more bytes in memory, and says whether there is.
func (w *Writer) growMemory(n int) bool {
	need := len(w.mem) + n
	if int64(need) > int64(w.pool.cfg.Memory) {
		return false
	}
	if need <= cap(w.mem) {
		return true
	}
	size := max(1024, cap(w.mem))
	for size < need {
		size *= 2
	}
	return w.reserve(size)
}

// reserve has memory hold size bytes, and says whether there is so much.
func (w *Writer) reserve(size int) bool {
	if !take(&w.pool.memory, int64(size)-w.reserved, w.pool.cfg.TotalMemory) {
		return false
	}
	w.reserved = int64(size)
	grown := make([]byte, len(w.mem), size)
	copy(grown, w.mem)
	w.mem = grown
	return true
}

// spill moves what is in memory to an unlinked file, for which there is room.
func (w *Writer) spill() error {
	f, err := w.pool.unlinked()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if _, err := f.Write(w.mem); err != nil {
		_ = f.Close() // the write's error is the one to report
		return diskError(err)
	}
	w.file = f
	w.pool.memory.Add(-w.reserved)
	w.mem, w.reserved = nil, 0
	return nil
}

func (w *Writer) writeFile(b []byte) error {
	if err := w.grow(w.size + int64(len(b))); err != nil {
		return err
	}
	if _, err := w.file.Write(b); err != nil {
		return diskError(err)
	}
	return nil
}

func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// grow has the object have room for size bytes on disk, or for more ahead.
func (w *Writer) grow(size int64) error {
	need := size - w.onDisk
	if need <= 0 {
		return nil
	}
	p, step := w.pool, max(need, diskStep)
	if w.waits != nil {
		if w.onDisk < w.claim {
			step = max(need, min(diskStep, w.claim-w.onDisk))
		}
		w.mu.Unlock() // what was written may be read meanwhile
		err := w.await(step)
		w.mu.Lock()
		if err != nil {
			return err
		}
	} else {
		for !take(&p.disk, step, p.cfg.TotalDisk) {
			if p.reclaim() {
				continue
			}
			step = need
			if !take(&p.disk, step, p.cfg.TotalDisk) {
				return ErrFull
			}
			break
		}
		w.onDisk += step
	}
	for !p.roomOnDisk(step) {
		if !p.reclaim() {
			return ErrFull
		}
	}
	return nil
}

// Seal ends the writing and returns the object, with one reference that the caller closes. After a failed Write it
// returns that error, and the room is given back.
func (w *Writer) Seal() (*Blob, error) {
	if w.err != nil {
		err := w.err
		w.Discard()
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = ErrClosed
	w.settled()
	if excess := w.onDisk - w.size; w.file != nil && excess > 0 {
		w.onDisk -= excess
		w.pool.giveBack(excess)
	}
	b := &Blob{pool: w.pool, mem: w.mem, reserved: w.reserved, file: w.file, onDisk: w.onDisk, size: w.size}
	w.sum.Sum(b.sum[:0])
	b.refs.Store(1)
	w.mem, w.file, w.blob = nil, nil, b
	return b, nil
}

// Part ends the writing like Seal, after a Write that failed with ErrTooLarge too: the object then is what was written before.
func (w *Writer) Part() (*Blob, error) {
	if errors.Is(w.err, ErrTooLarge) {
		w.err = nil
	}
	return w.Seal()
}

// Discard ends the writing and gives the room back. After Seal it does nothing.
func (w *Writer) Discard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		// The file is unlinked and read by nobody: a failed close loses nothing.
		_ = w.file.Close()
	}
	if w.blob == nil {
		w.pool.memory.Add(-w.reserved)
		w.settled()
		w.pool.giveBack(w.onDisk)
		w.reserved, w.onDisk = 0, 0
	}
	w.mem, w.file = nil, nil
	w.err = ErrClosed
}
