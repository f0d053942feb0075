package unpack

import (
	"bufio"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"lazaret/internal/spool"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
)

// OpenPGP messages (RFC 9580, 10.3) that nobody needs a key to read: literal data, compressed or not, with or without signatures around
// it. Mail programs show what is in them without being asked. What is encrypted, and keys, have no members here.

// Types of packets (RFC 9580, 5).
const (
	pgpSignature  = 2
	pgpOnePass    = 4
	pgpCompressed = 8
	pgpMarker     = 10
	pgpLiteral    = 11
	pgpPadding    = 21
	pgpPrivate    = 60 // and up: private and experimental ones, which are passed over
)

const (
	pgpDepth    = 16      // compressed packets inside each other
	pgpPackets  = 1000    // packets in one message, or in one compressed packet
	pgpSniffed  = 16      // packets that are looked at to say whether it is one at all
	pgpChecksum = 3       // bytes behind the message that decoders of base64 make of the checksum in its armour
	pgpMemory   = 8 << 20 // what a decoder needs, that of bzip2 most
)

// errNoPacket is what is no packet.
var errNoPacket = errors.New("no OpenPGP packet")

// pgpBody is the body of a packet, with its lengths taken out.
type pgpBody struct {
	r    io.Reader
	left int64 // of the present piece; less than 0: to the end of r
	more bool  // another piece follows
}

// nextPacket reads the header of a packet (RFC 9580, 4.2). Its body has to be read, or passed over, before the next.
func nextPacket(r io.Reader) (tag byte, body *pgpBody, err error) {
	c, err := readByte(r)
	if err != nil {
		return 0, nil, err
	}
	body = &pgpBody{r: r}
	switch {
	case c&0x80 == 0:
		return 0, nil, errNoPacket
	case c&0x40 != 0:
		return c & 0x3f, body, body.length()
	case c&3 == 3:
		body.left = -1
		return c >> 2 & 0xf, body, nil
	}
	body.left, err = readNumber(r, 1<<(c&3))
	return c >> 2 & 0xf, body, err
}

// length reads the length of a packet, or of a piece of one (RFC 9580, 4.2.1).
func (b *pgpBody) length() error {
	c, err := readByte(b.r)
	b.more = false
	switch {
	case err != nil:
		return err
	case c < 192:
		b.left = int64(c)
	case c < 224:
		low, err := readByte(b.r)
		b.left = int64(c-192)<<8 + int64(low) + 192
		return err
	case c < 255:
		b.left, b.more = 1<<(c&0x1f), true
	default:
		b.left, err = readNumber(b.r, 4)
	}
	return err
}

// Read implements io.Reader.
func (b *pgpBody) Read(p []byte) (int, error) {
	for b.left == 0 {
		if !b.more {
			return 0, io.EOF
		}
		if err := b.length(); err != nil {
			return 0, unexpected(err)
		}
	}
	if b.left < 0 {
		return b.r.Read(p)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF && (b.left > 0 || b.more) { //nolint:errorlint // io.Reader says that the end is io.EOF itself
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func readByte(r io.Reader) (byte, error) {
	var c [1]byte
	_, err := io.ReadFull(r, c[:])
	return c[0], err
}

// readNumber reads a big-endian number of n bytes, 4 at most.
func readNumber(r io.Reader, n int) (int64, error) {
	var c [4]byte
	_, err := io.ReadFull(r, c[:n])
	v := int64(0)
	for _, b := range c[:n] {
		v = v<<8 | int64(b)
	}
	return v, err
}

// looksLikeOpenPGP says whether b could be an OpenPGP message that is not encrypted. There is no magic; of random bytes one in a
// thousand could be one.
func looksLikeOpenPGP(head []byte, b *spool.Blob) bool {
	if head[0]&0x80 == 0 || head[0] == 0xff && head[1] == 0xd8 { // every JPEG picture begins like a private packet
		return false
	}
	r := &atReader{b: b}
	for range pgpSniffed {
		tag, body, err := nextPacket(r)
		if err != nil {
			return false
		}
		var begin [3]byte
		from := r.at
		n, _ := io.ReadFull(body, begin[:]) // what there is not is zero
		if n == 0 && tag != pgpPadding && tag < pgpPrivate {
			return false
		}
		switch {
		case tag == pgpCompressed:
			return compressedByPGP(begin)
		case tag == pgpLiteral:
			return literalFormat(begin[0])
		case tag == pgpOnePass:
			return begin[0] == 3 || begin[0] == 6
		case tag == pgpSignature && begin[0] >= 3 && begin[0] <= 6, tag == pgpMarker && string(begin[:]) == "PGP", tag == pgpPadding, tag >= pgpPrivate:
		default:
			return false
		}
		if body.more || body.left < 0 {
			return false // these packets are never in pieces
		}
		r.at = max(r.at, from+int64(n)) + body.left
	}
	return true
}

// compressedByPGP says whether a compressed packet could begin like that (RFC 9580, 5.6).
func compressedByPGP(begin [3]byte) bool {
	switch begin[0] {
	case 0:
		return begin[1]&0x80 != 0
	case 1:
		return begin[1]&6 != 6 // there is no such block (RFC 1951, 3.2.3)
	case 2:
		return begin[1]&0xf == 8 && (int(begin[1])<<8|int(begin[2]))%31 == 0
	case 3:
		return begin[1] == 'B' && begin[2] == 'Z'
	}
	return false
}

// literalFormat says whether c is the format of a literal packet (RFC 9580, 5.9).
func literalFormat(c byte) bool {
	switch c {
	case 'b', 't', 'u', 'l', '1', 'm':
		return true
	}
	return false
}

// atReader reads a blob from at on.
type atReader struct {
	b  *spool.Blob
	at int64
}

func (r *atReader) Read(p []byte) (int, error) {
	n, err := r.b.ReadAt(p, r.at)
	r.at += int64(n)
	return n, err
}

// pgpWalk is the reading of one message.
type pgpWalk struct {
	w *walker
	n *node
	// literals counts the literal packets that were read to their ends; broken says that one was not.
	literals int
	broken   bool
}

// openOpenPGP opens an OpenPGP message. It may be something else that begins like one: what is broken, or ends too early, is visited as
// far as it goes, and is no problem.
func openOpenPGP(w *walker, n *node, off int64) error {
	s := w.stream(n, off, -1)
	defer s.close()
	p := &pgpWalk{w: w, n: n}
	if err := p.packets(s, 0); err != nil {
		return err
	}
	_, err := s.Peek(pgpChecksum + 1)
	n.message = p.literals > 0 && !p.broken && err != nil && !w.stopped
	return nil
}

// packets reads a message.
func (p *pgpWalk) packets(r io.Reader, depth int) error {
	for range pgpPackets {
		tag, body, err := nextPacket(r)
		if err != nil {
			return p.w.alive(p.n.path) // the end, or the walk's
		}
		switch tag {
		case pgpCompressed:
			err = p.compressed(body, depth)
		case pgpLiteral:
			err = p.literal(body, depth)
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return p.w.alive(p.n.path)
		}
	}
	return errorf(TooMany, "OpenPGP", "more than %d packets", pgpPackets)
}

// compressed reads a compressed packet (RFC 9580, 5.6).
func (p *pgpWalk) compressed(body *pgpBody, depth int) error {
	algorithm, err := readByte(body)
	if err != nil {
		return p.w.alive(p.n.path)
	}
	if depth >= pgpDepth {
		return errorf(TooDeep, "OpenPGP", "more than %d compressed packets inside each other", pgpDepth)
	}
	release, err := p.w.reserve(pgpMemory, "OpenPGP")
	if err != nil {
		return err
	}
	defer release()
	var in io.Reader
	switch algorithm {
	case 0:
		in = body
	case 1:
		in = flate.NewReader(body)
	case 2:
		if in, err = zlib.NewReader(body); err != nil {
			return p.w.alive(p.n.path)
		}
	case 3:
		in = bzip2.NewReader(body)
	default:
		return nil // nobody knows it
	}
	return p.packets(bufio.NewReader(&pgpInflated{p: p, r: in}), depth+1)
}

// pgpInflated is what comes out of a compressed packet, within the limits: what is passed over there counts as what is visited.
type pgpInflated struct {
	p *pgpWalk
	r io.Reader
}

// Read implements io.Reader.
func (f *pgpInflated) Read(b []byte) (int, error) {
	w, path := f.p.w, f.p.n.path
	if err := w.alive(path); err != nil {
		return 0, err
	}
	n, err := readSafely(f.r, b)
	w.expanded += int64(n)
	switch {
	case w.expanded > int64(w.lim.Bytes):
		return 0, w.stop(TooLarge, path, fmt.Errorf("the object expands to more than %v", w.lim.Bytes))
	case w.lim.isBomb(w.expanded, w.root):
		return 0, w.stop(Bomb, path, fmt.Errorf("the object expands to more than %d times its size", w.lim.Ratio))
	}
	return n, err
}

// literal gives what a literal packet holds (RFC 9580, 5.9): a format, a name, a date, and the content.
func (p *pgpWalk) literal(body *pgpBody, depth int) error {
	var head [2]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return p.w.alive(p.n.path)
	}
	rest := make([]byte, int(head[1])+4)
	if _, err := io.ReadFull(body, rest); err != nil {
		return p.w.alive(p.n.path)
	}
	m, err := p.w.take(p.n, string(rest[:head[1]]), body)
	if m.err != nil && kindOf(m.err) == Undecodable {
		// Behind a decoder that has brought it here it is one; outside it may be anything.
		m.quiet = depth == 0 || errors.Is(m.err, io.ErrUnexpectedEOF)
	}
	if m.mail = true; m.err == nil && err == nil {
		p.literals++
	} else {
		p.broken = true
	}
	if giveErr := p.w.give(p.n, &m); err == nil {
		err = giveErr
	}
	return err
}
