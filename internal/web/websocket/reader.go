package websocket

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// readAhead is how much of a connection's frames is read at a time: little, as most connections are idle most of the time.
const readAhead = 1 << 10

// Options say how a Reader reads.
type Options struct {
	Masked  bool     // frames come from a client, and must be masked; others must not be (RFC 6455, 5.1)
	Deflate *Deflate // what was agreed on for this direction; nil: nothing is compressed
	// Control is called with each Ping and Pong as it comes, between the fragments of a message too (RFC 6455, 5.4), on the
	// goroutine that reads. The payload is good until it returns. Its error ends the reading.
	Control func(op Op, payload []byte) error
}

// Reader reads the messages of one peer. It is used by one goroutine.
type Reader struct {
	br  *bufio.Reader
	opt Options

	frame   header // the data frame that is being read
	left    uint64 // bytes of it that have not been read
	pos     uint64 // bytes of it that have been read, for the mask
	inside  bool   // a message has begun whose final frame has not been read to its end
	closing *CloseFrame
	err     error

	inflate *inflater // of the message that is being read, nil where it is not compressed
	window  []byte    // what compressed messages refer back to
	text    bool
	utf8    utf8Check
	began   bool // Next has announced a message that has not been read to its end
	control [maxControl]byte
}

// NewReader returns a Reader of what a peer sends over src, after the handshake.
func NewReader(src io.Reader, opt Options) *Reader {
	return &Reader{br: bufio.NewReaderSize(src, readAhead), opt: opt}
}

type header struct {
	fin, rsv1 bool
	op        Op
	masked    bool
	mask      [4]byte
	length    uint64
}

// Next waits for the next message and returns Text or Binary, after which Read returns its content; or Close, after which
// Closed returns what it said, and nothing else comes. What was left of the message before is skipped.
//
// The error is io.EOF where the connection ended between frames, without a Close frame; io.ErrUnexpectedEOF inside of one;
// an *Error for what the protocol forbids; or the connection's own.
func (r *Reader) Next() (Op, error) {
	if r.began {
		if _, err := io.Copy(io.Discard, onlyReader{r}); err != nil {
			return r.ended(err)
		}
	}
	if r.err != nil {
		return r.ended(r.err)
	}
	if err := r.data(); err != nil {
		r.err = err
		return r.ended(err)
	}
	r.began = true
	r.text, r.utf8 = r.frame.op == Text, utf8Check{}
	if r.frame.rsv1 {
		r.inflate = newInflater(fragments{r}, r.window)
	}
	return r.frame.op, nil
}

func (r *Reader) ended(err error) (Op, error) {
	if r.closing != nil && errors.Is(err, errClosed) {
		return Close, nil
	}
	return 0, err
}

// Closed returns what the peer's Close frame said; ok is false where none has come.
func (r *Reader) Closed() (c CloseFrame, ok bool) {
	if r.closing == nil {
		return CloseFrame{}, false
	}
	return *r.closing, true
}

// errClosed says that a Close frame has come. One in the middle of a message means that its rest will not come.
var errClosed = errors.New("the peer has closed the WebSocket")

// Read returns the content of the message that Next announced, decoded, and io.EOF at its end. Other errors stay: those of
// Next, and one that wraps ErrUndecodable.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if !r.began {
		return 0, io.EOF
	}
	var n int
	var err error
	if r.inflate != nil {
		n, err = r.inflate.Read(p)
	} else {
		n, err = fragments{r}.Read(p)
	}
	if r.text && !r.utf8.add(p[:n]) {
		clear(p[:n])
		r.err = &Error{Code: InvalidData, What: "a text message is not UTF-8"}
		r.endMessage()
		return 0, r.err
	}
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		if r.text && r.utf8.n > 0 {
			err = &Error{Code: InvalidData, What: "a text message ends inside a character"}
		}
	}
	r.endMessage()
	if err != io.EOF { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		r.err = err
	}
	return n, err
}

// endMessage gives back what the message needed, and keeps what the next one may refer to.
func (r *Reader) endMessage() {
	r.began = false
	if r.inflate == nil {
		return
	}
	r.window = r.inflate.close()
	if r.opt.Deflate == nil || r.opt.Deflate.NoTakeover {
		r.window = nil
	}
	r.inflate = nil
}

// fragments reads the payload of a message's frames, unmasked, still compressed where it is.
type fragments struct{ r *Reader }

// Read implements io.Reader.
func (f fragments) Read(p []byte) (int, error) {
	r := f.r
	for r.left == 0 {
		if !r.inside {
			return 0, io.EOF
		}
		if err := r.data(); err != nil {
			return 0, inMessage(err)
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	if uint64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.br.Read(p)
	r.unmask(p[:n])
	if r.left == 0 && r.frame.fin {
		r.inside = false
	}
	if n > 0 {
		return n, nil // an error comes again
	}
	return 0, inMessage(err)
}

// unmask undoes the mask of what was read of the frame (RFC 6455, 5.3), and counts it.
func (r *Reader) unmask(p []byte) {
	if r.frame.masked {
		maskBytes(r.frame.mask, r.pos, p)
	}
	r.pos += uint64(len(p))
	r.left -= uint64(len(p))
}

func inMessage(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// data reads frames until one has data, and makes it the current one. Control frames are dealt with on the way.
func (r *Reader) data() error {
	for {
		h, err := r.header()
		if err != nil {
			return err
		}
		if h.op.control() {
			if err := r.controlFrame(h); err != nil {
				return err
			}
			continue
		}
		switch {
		case h.op == Continuation && !r.inside:
			return broken("a continuation of no message")
		case h.op != Continuation && r.inside:
			return broken("a message begins inside another one")
		case h.rsv1 && h.op == Continuation:
			return broken("RSV1 in a continuation")
		case h.rsv1 && r.opt.Deflate == nil:
			return broken("RSV1 without an extension that uses it")
		}
		r.frame, r.left, r.pos = h, h.length, 0
		r.inside = !h.fin || h.length > 0
		return nil
	}
}

// header reads and checks the head of a frame (RFC 6455, 5.2).
func (r *Reader) header() (h header, err error) {
	var b [8]byte
	if b[0], err = r.br.ReadByte(); err != nil {
		return h, err
	}
	if b[1], err = r.br.ReadByte(); err != nil {
		return h, inMessage(err)
	}
	h = header{fin: b[0]&0x80 != 0, rsv1: b[0]&0x40 != 0, op: Op(b[0] & 0x0F), masked: b[1]&0x80 != 0, length: uint64(b[1] & 0x7F)}
	switch {
	case b[0]&0x30 != 0:
		return h, broken("RSV2 or RSV3 without an extension that uses them")
	case h.op > Binary && h.op < Close, h.op > Pong:
		return h, broken("the reserved opcode %#x", byte(h.op))
	case h.op.control() && (!h.fin || h.rsv1):
		return h, broken("a control frame in fragments, or compressed")
	case h.op.control() && h.length > maxControl:
		return h, broken("a control frame of more than %d bytes", maxControl)
	case h.masked != r.opt.Masked:
		if h.masked {
			return h, broken("a server's frame is masked")
		}
		return h, broken("a client's frame is not masked")
	}
	if err := r.longLength(&h); err != nil {
		return h, inMessage(err)
	}
	if h.masked {
		_, err = io.ReadFull(r.br, h.mask[:])
	}
	return h, inMessage(err)
}

// longLength reads a length of 16 or 64 bits, which must have needed them.
func (r *Reader) longLength(h *header) error {
	size := map[uint64]int{126: 2, 127: 8}[h.length]
	if size == 0 {
		return nil
	}
	var b [8]byte
	if _, err := io.ReadFull(r.br, b[8-size:]); err != nil {
		return err
	}
	h.length = binary.BigEndian.Uint64(b[:])
	if (size == 2 && h.length < 126) || (size == 8 && h.length <= 0xFFFF) || h.length>>63 != 0 {
		return broken("a length that is not written in its shortest form, or too long")
	}
	return nil
}

// controlFrame reads a control frame and passes it on.
func (r *Reader) controlFrame(h header) error {
	p := r.control[:h.length]
	if _, err := io.ReadFull(r.br, p); err != nil {
		return inMessage(err)
	}
	if h.masked {
		maskBytes(h.mask, 0, p)
	}
	if h.op == Close {
		c, err := ParseClose(p)
		if err != nil {
			return err
		}
		r.closing = &c
		return errClosed
	}
	if r.opt.Control == nil {
		return nil
	}
	return r.opt.Control(h.op, p)
}

// maskBytes applies a mask to p, whose first byte is the pos-th of the frame.
func maskBytes(mask [4]byte, pos uint64, p []byte) {
	for len(p) > 0 && pos%4 != 0 {
		p[0] ^= mask[pos%4]
		p, pos = p[1:], pos+1
	}
	m := binary.LittleEndian.Uint32(mask[:])
	wide := uint64(m)<<32 | uint64(m)
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= mask[i%4]
	}
}

// onlyReader hides other methods from io.Copy.
type onlyReader struct{ io.Reader }
