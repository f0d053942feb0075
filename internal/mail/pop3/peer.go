package pop3

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"lazaret/internal/idle"
)

// The buffers of a session: a client sends little.
const (
	clientBuffer = 1 << 10
	serverBuffer = 8 << 10
	writeBuffer  = 8 << 10
)

// errTooLong says that a line is longer than any that is legal.
var errTooLong = errors.New("the line is too long")

// peer is one side of a session. Every read and write has a deadline.
type peer struct {
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	timeout time.Duration // of a write, and of the reads whose caller sets no other deadline
	owed    int           // replies to commands that nobody has waited for
}

func newPeer(c net.Conn, buffer int, timeout time.Duration) *peer {
	p := &peer{conn: c, timeout: timeout}
	p.r = bufio.NewReaderSize(c, buffer)
	p.w = bufio.NewWriterSize(deadlineWriter{p}, writeBuffer)
	return p
}

// deadlineWriter gives each piece a deadline of its own, so that a large message may take as long as it comes along.
type deadlineWriter struct{ p *peer }

func (w deadlineWriter) Write(b []byte) (n int, err error) {
	const piece = 32 << 10
	for len(b) > 0 {
		if err := w.p.conn.SetWriteDeadline(time.Now().Add(w.p.timeout)); err != nil {
			return n, err
		}
		m, err := w.p.conn.Write(b[:min(len(b), piece)])
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

// send writes b and whatever waits before it.
func (p *peer) send(b []byte) error {
	if _, err := p.w.Write(b); err != nil {
		return err
	}
	return p.w.Flush()
}

// expect sets the deadline of the reads that follow.
func (p *peer) expect(d time.Duration) error { return p.conn.SetReadDeadline(time.Now().Add(d)) }

// line reads a line with its LF, of at most maxLine bytes. What it returns is the caller's.
func (p *peer) line() ([]byte, error) {
	var line []byte
	for {
		part, err := p.r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, fmt.Errorf("%w: more than %d bytes", errTooLong, maxLine)
		}
		line = append(line, part...)
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// reply reads a status line within the timeout.
func (p *peer) reply() (line []byte, ok bool, err error) {
	if err := p.expect(p.timeout); err != nil {
		return nil, false, err
	}
	if line, err = p.line(); err != nil {
		return nil, false, err
	}
	ok, err = status(line)
	return line, ok, err
}

// maxOwed bounds the replies that nobody has waited for.
const maxOwed = 60

// errUnasked says that nothing which the server says can be matched to a command any more.
var errUnasked = errors.New("the server sent something that it was not asked for")

// errEnded says that the server has ended the connection between two commands.
var errEnded = errors.New("the server has ended the connection")

// nudge sends the server a NOOP, and does not wait for the reply: order reads it.
func (p *peer) nudge() error {
	if p.owed == maxOwed {
		return nil
	}
	if p.owed == 0 && p.buffered() {
		return errUnasked
	}
	p.owed++
	return p.send([]byte("NOOP\r\n"))
}

// order sends the server a command, after the replies that it still owes were read. What the server says before it was asked would be
// taken for the reply: errUnasked.
func (p *peer) order(line []byte) error {
	for begun := time.Now(); p.owed > 0; p.owed-- {
		if time.Since(begun) > p.timeout {
			return errors.New("its replies to NOOP take too long")
		}
		if _, _, err := p.reply(); err != nil {
			return fmt.Errorf("its reply to NOOP: %w", err)
		}
	}
	if !p.silent() {
		if p.buffered() {
			return errUnasked
		}
		return errEnded
	}
	return p.send(line)
}

// silent says whether the peer has said nothing that was not read, and has not ended the connection.
func (p *peer) silent() bool {
	return !p.buffered() && idle.Silent(intoBuffer{p.conn, p.r}, idle.TCPBelow(p.conn))
}

// intoBuffer is a connection what comes over which is left in the buffer.
type intoBuffer struct {
	net.Conn
	r *bufio.Reader
}

// Read says whether there is something, and returns nothing of it.
func (b intoBuffer) Read([]byte) (int, error) {
	if _, err := b.r.Peek(1); err != nil {
		return 0, err
	}
	return 1, nil
}

// buffered says whether the peer has sent more than was read.
func (p *peer) buffered() bool { return p.r.Buffered() > 0 }

// errTooSlow is the error of a message that does not come along.
var errTooSlow = errors.New("the message comes too slowly (min_rate)")

// rateWindow is the time over which the minimum rate is taken.
const rateWindow = time.Minute

// pace watches over the minimum rate.
type pace struct {
	rate  int64
	since time.Time
	got   int64
}

// feed takes note of n bytes at a time, and says whether that is too few by now.
func (p *pace) feed(n int, now time.Time) error {
	if p.since.IsZero() {
		p.since = now
	}
	p.got += int64(n)
	over := now.Sub(p.since)
	if over < rateWindow {
		return nil
	}
	if p.rate > 0 && p.got < p.rate*int64(over/time.Second) {
		return errTooSlow
	}
	p.since, p.got = now, 0
	return nil
}

// lines reads what follows a status line, without its byte-stuffing, up to the lone dot.
type lines struct {
	p    *peer
	u    unstuffer
	pace pace
	wire io.Writer // is given what comes as it comes; may be nil
	seen func(b []byte)
}

// Read implements io.Reader. The connection's end before the lone dot is io.ErrUnexpectedEOF.
func (l *lines) Read(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, io.ErrShortBuffer
	}
	for !l.u.done() {
		if !l.p.buffered() {
			if err := l.fill(); err != nil {
				return 0, err
			}
		}
		src, _ := l.p.r.Peek(l.p.r.Buffered()) // as much as is there cannot fail
		taken, n := l.u.next(b, src)
		if l.wire != nil {
			if _, err := l.wire.Write(src[:taken]); err != nil {
				return 0, err
			}
		}
		_, _ = l.p.r.Discard(taken) // it was there
		if n > 0 {
			if l.seen != nil {
				l.seen(b[:n])
			}
			return n, nil
		}
	}
	return 0, io.EOF
}

func (l *lines) fill() error {
	if err := l.p.expect(l.p.timeout); err != nil {
		return err
	}
	_, err := l.p.r.Peek(1)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	return l.pace.feed(l.p.r.Buffered(), time.Now())
}

// drain reads to the end, at most limit bytes.
func (l *lines) drain(limit int64) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := l.Read(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if limit -= int64(n); limit < 0 {
			return errors.New("the message does not end")
		}
	}
}

// list reads lines up to the lone dot, bounded, each with its CRLF and without byte-stuffing.
func (p *peer) list(limit int) ([][]byte, error) {
	var out [][]byte
	for {
		line, err := p.line()
		if err != nil {
			return nil, err
		}
		if string(line) == ".\r\n" {
			return out, nil
		}
		if limit -= len(line); limit < 0 {
			return nil, errTooLong
		}
		out = append(out, bytes.TrimPrefix(line, []byte(".")))
	}
}
