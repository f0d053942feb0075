package clamd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"lazaret/internal/scan"

	"golang.org/x/sys/unix"
)

// chunk is the most that INSTREAM sends in one chunk.
const chunk = 256 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// source is something that clamd can be asked about.
type source interface {
	Size() int64
	// Bytes returns the content when it is in memory, and whether it is.
	Bytes() ([]byte, bool)
	// ReadAt is io.ReaderAt.
	ReadAt(p []byte, off int64) (int, error)
	// File returns a file to hand over, which the caller closes.
	File() (*os.File, error)
}

// session is one connection in an IDSESSION. It is used by one goroutine at a time, and closed after the first error.
type session struct {
	conn  net.Conn
	rd    *bufio.Reader
	id    uint32    // number of the last request
	used  time.Time // when it was last given back
	of    identity
	small scratch
	// spoiled: a context ended while the session was in use, and may still change its deadline.
	spoiled bool
}

// identity tells apart the clamds that may be behind one address, one after the other.
type identity struct {
	generation uint64
	pid        int32 // of a Unix socket's other end; 0: unknown
}

// connect connects to e; timeout zero: only ctx ends that.
func connect(ctx context.Context, e endpoint, timeout time.Duration) (*session, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(ctx, e.network, e.address)
	if err != nil {
		return nil, fmt.Errorf("connecting to clamd: %w", err)
	}
	return &session{conn: c, rd: bufio.NewReaderSize(c, maxReply), of: identity{pid: peerPID(c)}}, nil
}

// open connects to e and begins an IDSESSION. Nothing is waited for but the connection: IDSESSION has no reply.
func open(ctx context.Context, e endpoint, timeout time.Duration) (*session, error) {
	s, err := connect(ctx, e, timeout)
	if err != nil {
		return nil, err
	}
	stop := s.until(ctx)
	_, err = io.WriteString(s.conn, "zIDSESSION\x00")
	stop()
	if err != nil || s.spoiled {
		s.close()
		return nil, ioError(ctx, err)
	}
	return s, nil
}

// close ends the connection. What clamd was doing for it ends by itself.
func (s *session) close() {
	_ = s.conn.Close()
	s.small.close()
}

// until has every read and write fail once ctx ends. The caller calls stop afterwards; when ctx had ended by then the
// session is spoiled.
func (s *session) until(ctx context.Context) (stop func()) {
	_ = s.conn.SetDeadline(time.Time{})
	end := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if !end() {
			s.spoiled = true
		}
	}
}

// ioError returns what a failed read or write means: the end of ctx, or a lost connection.
func ioError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &scan.Error{Reason: scan.Unavailable, Err: fmt.Errorf("%w: %w", errLost, err)}
}

// alive says whether a session that waited unused still stands: clamd has neither closed it nor said anything.
func (s *session) alive() bool {
	sc, ok := s.conn.(syscall.Conn)
	if !ok || s.spoiled || s.rd.Buffered() > 0 {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, rerr := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(rerr, unix.EAGAIN)
		return true
	})
	return err == nil && quiet
}

// command sends one of the commands that have neither argument nor data, and returns the reply's text.
func (s *session) command(ctx context.Context, name string) (string, error) {
	defer s.until(ctx)()
	s.id++
	if _, err := io.WriteString(s.conn, "z"+name+"\x00"); err != nil {
		return "", ioError(ctx, err)
	}
	line, err := s.readReply(ctx)
	if err != nil {
		return "", err
	}
	return body(line, s.id)
}

// scan asks about src, by FILDES if handOver, else by INSTREAM.
func (s *session) scan(ctx context.Context, src source, handOver bool) (reply, error) {
	stop := s.until(ctx)
	defer stop()
	s.id++
	var err error
	if handOver {
		err = s.sendFile(ctx, src)
	} else {
		err = s.sendStream(ctx, src)
	}
	var own *sourceError
	if errors.As(err, &own) {
		return reply{}, err
	}
	// After a failed write there may still be a reply that says why: clamd closes when a stream is too long.
	line, rerr := s.readReply(ctx)
	if rerr != nil {
		if err != nil {
			return reply{}, err
		}
		return reply{}, rerr
	}
	r, perr := parseScan(line, s.id)
	if perr != nil {
		return reply{}, perr
	}
	if r.kind == replyOK && (err != nil || s.rd.Buffered() > 0) {
		return reply{}, errProtocol("an OK came before the object was sent, or with something after it")
	}
	return r, nil
}

// sourceError is a failure on our side: the object could not be read.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "reading the object: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// errNoFile says that a source has no file to hand over.
var errNoFile = errors.New("there is no file to hand over")

// sendFile hands src over: the command, a byte of nothing, and the descriptor beside it.
func (s *session) sendFile(ctx context.Context, src source) error {
	u, ok := s.conn.(*net.UnixConn)
	if !ok {
		return &sourceError{errNoFile}
	}
	if b, ok := src.Bytes(); ok && len(b) <= maxScratch {
		if err := s.small.hold(b); err != nil {
			return &sourceError{fmt.Errorf("%w: %w", errNoFile, err)}
		}
		return sendDescriptor(ctx, u, s.small.fd)
	}
	f, err := src.File()
	if err != nil {
		return &sourceError{fmt.Errorf("%w: %w", errNoFile, err)}
	}
	defer func() { _ = f.Close() }()
	raw, err := f.SyscallConn()
	if err != nil {
		return &sourceError{err}
	}
	var werr error
	if err := raw.Control(func(fd uintptr) { werr = sendDescriptor(ctx, u, int(fd)) }); err != nil {
		return &sourceError{err}
	}
	return werr
}

// sendDescriptor sends the command with a descriptor.
func sendDescriptor(ctx context.Context, u *net.UnixConn, fd int) error {
	if _, _, err := u.WriteMsgUnix([]byte("zFILDES\x00\x00"), unix.UnixRights(fd), nil); err != nil {
		return ioError(ctx, err)
	}
	return nil
}

// sendStream sends src: chunks with their length before them, and an empty one at the end.
func (s *session) sendStream(ctx context.Context, src source) error {
	const start = "zINSTREAM\x00"
	if b, ok := src.Bytes(); ok && len(b) <= chunk {
		bufs := net.Buffers{[]byte(start)}
		if len(b) > 0 {
			bufs = append(bufs, binary.BigEndian.AppendUint32(nil, uint32(len(b))), b)
		}
		bufs = append(bufs, make([]byte, 4))
		if _, err := bufs.WriteTo(s.conn); err != nil {
			return ioError(ctx, err)
		}
		return nil
	}
	if _, err := io.WriteString(s.conn, start); err != nil {
		return ioError(ctx, err)
	}
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	for off, size := int64(0), src.Size(); off < size; {
		n := int(min(size-off, int64(len(buf)-4)))
		if got, err := src.ReadAt(buf[4:4+n], off); got != n {
			return &sourceError{fmt.Errorf("at byte %d: %w", off, err)}
		}
		binary.BigEndian.PutUint32(buf[:4], uint32(n))
		if _, err := s.conn.Write(buf[:4+n]); err != nil {
			return ioError(ctx, err)
		}
		off += int64(n)
	}
	if _, err := s.conn.Write(make([]byte, 4)); err != nil {
		return ioError(ctx, err)
	}
	return nil
}

// readReply returns the next reply without its terminator. The slice is good until the next read.
func (s *session) readReply(ctx context.Context) ([]byte, error) {
	line, err := s.rd.ReadSlice(0)
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errProtocol("a reply has more than %d bytes and no end; it begins with %s", maxReply, quote(line))
	case len(line) > 0 && ctx.Err() == nil:
		// Such as "COMMAND READ TIMED OUT\n", which clamd says to an idle connection before it closes it.
		return nil, ioError(ctx, fmt.Errorf("after %s: %w", quote(line), err))
	}
	return nil, ioError(ctx, err)
}

// quiet waits for d, and returns an error at once when clamd closes the connection or says something unasked.
func (s *session) quiet(ctx context.Context, d time.Duration) error {
	if s.rd.Buffered() > 0 {
		return errProtocol("clamd said something that was not asked for")
	}
	_ = s.conn.SetDeadline(time.Now().Add(d))
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	_, err := s.rd.Peek(1)
	if !stop() {
		s.spoiled = true
		return ctx.Err()
	}
	switch {
	case err == nil:
		return errProtocol("clamd said something that was not asked for")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return ioError(ctx, err)
}

// peerPID returns the process at the other end of a Unix socket, 0 where that is not known.
func peerPID(c net.Conn) int32 {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	var pid int32
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}
