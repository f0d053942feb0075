package message

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"lazaret/internal/spool"
)

// sinkBuffer is how much a sink holds back: a reading that has outgrown memory would be written to disk line by line.
const sinkBuffer = 4 << 10

var sinkBuffers = sync.Pool{New: func() any { return new([sinkBuffer]byte) }}

// sink collects a reading.
type sink struct {
	w    *spool.Writer
	held *[sinkBuffer]byte // nil: nothing is held back
	n    int               // how much is
}

func newSink(e *finder) *sink { return &sink{w: e.Writer()} }

func (s *sink) write(b []byte) {
	if s.n+len(b) > sinkBuffer {
		s.flush()
	}
	if len(b) > sinkBuffer {
		_, _ = s.w.Write(b) // Emit reports what a Writer could not take
		return
	}
	if len(b) == 0 {
		return
	}
	if s.held == nil {
		s.held = sinkBuffers.Get().(*[sinkBuffer]byte)
	}
	s.n += copy(s.held[s.n:], b)
}

func (s *sink) flush() {
	if s.n > 0 {
		_, _ = s.w.Write(s.held[:s.n]) // Emit reports what a Writer could not take
		s.n = 0
	}
}

// empty says whether nothing was written.
func (s *sink) empty() bool { return s.n == 0 && s.w.Size() == 0 }

// fork returns a sink with the same in it. The error says that what is there could not be read.
func (s *sink) fork(e *finder) (*sink, error) {
	s.flush()
	out := newSink(e)
	size := s.w.Size()
	if size == 0 {
		return out, nil
	}
	if _, err := io.Copy(out.w, io.NewSectionReader(s.w, 0, size)); err != nil && !errors.Is(err, spool.ErrTooLarge) && !errors.Is(err, spool.ErrFull) {
		return out, fmt.Errorf("reading a part once more: %w", err) // what a Writer could not take Emit reports
	}
	return out, nil
}

// end returns the writer with everything in it.
func (s *sink) end() *spool.Writer {
	s.flush()
	s.release()
	return s.w
}

func (s *sink) discard() {
	s.n = 0
	s.release()
	s.w.Discard()
}

func (s *sink) release() {
	if s.held != nil {
		sinkBuffers.Put(s.held)
		s.held = nil
	}
}
