package websocket

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// maxWindow is how far DEFLATE refers back (RFC 1951, 2). Whatever window the peers agreed on is within it.
const maxWindow = 32 << 10

// tail is what a sender leaves out at the end of a message (RFC 7692, 7.2.1), and a final empty block that makes the
// decoder see the end.
const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// inflaters are decoders that nobody uses.
var inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// inflater reads one compressed message.
type inflater struct {
	src  *deflated
	z    io.ReadCloser
	past []byte // the last maxWindow bytes, of earlier messages too
	err  error
}

// newInflater reads what src, the payload of a message, is when it is decompressed. Window is what came before.
func newInflater(src io.Reader, window []byte) *inflater {
	i := &inflater{src: &deflated{src: bufio.NewReaderSize(src, readAhead)}, z: inflaters.Get().(io.ReadCloser), past: window}
	i.err = i.begin()
	return i
}

func (i *inflater) begin() error {
	return i.z.(flate.Resetter).Reset(i.src, i.past)
}

// Read implements io.Reader. A sender may end the stream with a final block in the midst of a message, and begin anew
// (RFC 7692, 7.2.3.4): whoever stopped there would not see what others read.
func (i *inflater) Read(p []byte) (int, error) {
	for {
		if i.err != nil {
			return 0, i.err
		}
		n, err := i.z.Read(p)
		i.remember(p[:n])
		if errors.Is(err, io.EOF) {
			switch i.src.rest() {
			case 0, len(tail): // the end, or a final block that the sender put at the very end
				i.err = io.EOF
			default:
				i.err = i.begin()
			}
		} else if err != nil {
			i.err = cannotInflate(err)
		}
		if i.src.err != nil { // the connection's fault, not the content's
			i.err = i.src.err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// remember keeps the last bytes of what was read.
func (i *inflater) remember(p []byte) {
	if len(p) >= maxWindow {
		i.past = append(i.past[:0], p[len(p)-maxWindow:]...)
		return
	}
	if over := len(i.past) + len(p) - maxWindow; over > 0 {
		i.past = append(i.past[:0], i.past[over:]...)
	}
	i.past = append(i.past, p...)
}

// close gives the decoder back, and returns the window for the next message.
func (i *inflater) close() []byte {
	_ = i.z.(flate.Resetter).Reset(nothing{}, nil) // lets go of the connection
	inflaters.Put(i.z)
	return i.past
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
func (nothing) ReadByte() (byte, error)  { return 0, io.EOF }

// deflated is the payload of a message with the tail behind it. It is an io.ByteReader, so that the decoder takes no more
// of it than it needs.
type deflated struct {
	src  *bufio.Reader
	tail int   // bytes of the tail that were given; the payload has ended where it is not 0, or ended is set
	end  bool  // the payload has ended
	err  error // what the payload's reading ended with, if not by its end
}

// ReadByte implements io.ByteReader.
func (d *deflated) ReadByte() (byte, error) {
	if !d.end {
		b, err := d.src.ReadByte()
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, io.EOF) {
			d.err = err
			return 0, err
		}
		d.end = true
	}
	if d.tail == len(tail) {
		return 0, io.EOF
	}
	b := tail[d.tail]
	d.tail++
	return b, nil
}

// Read implements io.Reader.
func (d *deflated) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !d.end {
		n, err := d.src.Read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			d.err = err
			return 0, err
		}
		if err == nil {
			return 0, nil
		}
		d.end = true
	}
	n := copy(p, tail[d.tail:])
	if d.tail += n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// rest returns how many bytes the decoder has not taken: exactly, where none of the payload is left; otherwise more than
// the tail has.
func (d *deflated) rest() int {
	if !d.end {
		_, err := d.src.Peek(1)
		switch {
		case err == nil:
			return len(tail) + 1
		case !errors.Is(err, io.EOF):
			d.err = err
		}
		d.end = true
	}
	return len(tail) - d.tail
}
