package websocket

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"sync"
)

// Writer writes frames to one peer. It is safe for use by many goroutines: frames do not mix. After Close nothing more is
// written.
type Writer struct {
	mu     sync.Mutex
	w      io.Writer
	mask   bool
	closed bool
}

// NewWriter returns a Writer to w. Mask says that the peer is a server, to which a client's frames are masked, each with a
// new random key (RFC 6455, 5.3 and 10.3).
func NewWriter(w io.Writer, mask bool) *Writer { return &Writer{w: w, mask: mask} }

// Control writes a Ping or Pong; payload has at most 125 bytes, more is cut off.
func (w *Writer) Control(op Op, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	return w.small(op, payload)
}

// Close writes a Close frame, once: later ones, and everything else later, is dropped.
func (w *Writer) Close(c CloseFrame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	return w.small(Close, c.payload())
}

func (w *Writer) small(op Op, payload []byte) error {
	payload = payload[:min(len(payload), maxControl)]
	b, key := w.head(make([]byte, 0, 6+maxControl), op, uint64(len(payload)))
	start := len(b)
	b = append(b, payload...)
	if w.mask {
		maskBytes(key, 0, b[start:])
	}
	_, err := w.w.Write(b)
	return err
}

// pieces are buffers for what is written of a message at a time.
var pieces = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// Message writes a message of size bytes that are read from r, as one frame. An error leaves the connection in the middle
// of a frame: it can only be closed.
func (w *Writer) Message(op Op, size int64, r io.Reader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	b, key := w.head((*buf)[:0], op, uint64(size))
	n, room := len(b), *buf // the head goes out together with the first piece
	for pos := uint64(0); ; {
		want := min(int64(len(room)-n), size-int64(pos))
		if _, err := io.ReadFull(r, room[n:n+int(want)]); err != nil {
			w.closed = true
			return inMessage(err)
		}
		if w.mask {
			maskBytes(key, pos, room[n:n+int(want)])
		}
		if _, err := w.w.Write(room[:n+int(want)]); err != nil {
			w.closed = true
			return err
		}
		if pos += uint64(want); int64(pos) >= size {
			return nil
		}
		n = 0
	}
}

// head appends the head of an unfragmented frame to b.
func (w *Writer) head(b []byte, op Op, length uint64) (_ []byte, key [4]byte) {
	var masked byte
	if w.mask {
		masked = 0x80
	}
	b = append(b, 0x80|byte(op))
	switch {
	case length < 126:
		b = append(b, masked|byte(length))
	case length <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), length)
	}
	if w.mask {
		_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the process rather than return an error
		b = append(b, key[:]...)
	}
	return b, key
}
