package message

import (
	"lazaret/internal/spool"
)

// sinkBuffer is how much a sink holds back: a reading that has outgrown memory would be written to disk line by line.
const sinkBuffer = 4 << 10

// sink collects a reading.
type sink struct {
	w   *spool.Writer
	buf []byte
}

func newSink(e *finder) *sink { return &sink{w: e.Writer()} }

func (s *sink) write(b []byte) {
	if len(s.buf)+len(b) > sinkBuffer {
		s.flush()
	}
	if len(b) > sinkBuffer {
		_, _ = s.w.Write(b) // Emit reports what a Writer could not take
		return
	}
	s.buf = append(s.buf, b...)
}

func (s *sink) flush() {
	if len(s.buf) > 0 {
		_, _ = s.w.Write(s.buf) // Emit reports what a Writer could not take
		s.buf = s.buf[:0]
	}
}

// end returns the writer with everything in it.
func (s *sink) end() *spool.Writer {
	s.flush()
	return s.w
}

func (s *sink) discard() {
	s.buf = nil
	s.w.Discard()
}
