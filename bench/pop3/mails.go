package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// mailServer is a POP3 server whose mails are in memory: what it takes to serve them is next to nothing.
type mailServer struct {
	l net.Listener

	mu    sync.Mutex
	mails [][]byte // as on the wire, without the dot; no line begins with one
}

func newMailServer() (*mailServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &mailServer{l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

func (s *mailServer) addr() string { return s.l.Addr().String() }

func (s *mailServer) all() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails
}

// fill makes n new mails of about size bytes, a fifth of it text, the rest an attachment.
func (s *mailServer) fill(n, size int) {
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1)) //nolint:gosec // any bytes will do
	mails := make([][]byte, n)
	for i := range mails {
		mails[i] = newMail(r, i, size)
	}
	s.mu.Lock()
	s.mails = mails
	s.mu.Unlock()
}

func newMail(r *rand.Rand, i, size int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Received: from a.example.org by b.example.org; Mon, 1 Jun 2026 10:00:00 +0200\r\nFrom: Grace <grace@example.org>\r\n"+
		"To: ada@example.net\r\nSubject: mail %d\r\nDate: Mon, 1 Jun 2026 10:00:00 +0200\r\nMessage-ID: <%d.%d@example.org>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: multipart/mixed; boundary=\"=_x\"\r\n\r\n--=_x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", i, i, r.Uint64())
	for b.Len() < size/5 {
		fmt.Fprintf(&b, "This is line %d of a text, and the number in it is %d.\r\n", b.Len(), r.Uint32())
	}
	b.WriteString("\r\n--=_x\r\nContent-Type: application/octet-stream; name=\"a.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	raw := make([]byte, 57)
	for b.Len() < size-100 {
		for k := 0; k+8 <= len(raw); k += 8 {
			binary.LittleEndian.PutUint64(raw[k:], r.Uint64())
		}
		b.WriteString(base64.StdEncoding.EncodeToString(raw) + "\r\n")
	}
	b.WriteString("--=_x--\r\n")
	return b.Bytes()
}

// sum returns the checksum of all mails one after the other.
func (s *mailServer) sum() [sha256.Size]byte {
	h := sha256.New()
	for _, m := range s.all() {
		h.Write(m)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (s *mailServer) serve(c net.Conn) {
	defer c.Close()
	r, w := bufio.NewReader(c), bufio.NewWriterSize(c, 64<<10)
	say := func(text string) { _, _ = w.WriteString(text) } // Flush reports it
	say("+OK ready\r\n")
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		mails := s.all()
		switch verb {
		case "RETR":
			n, err := strconv.Atoi(arg)
			if err != nil || n < 1 || n > len(mails) {
				say("-ERR no such message\r\n")
				continue
			}
			say("+OK\r\n")
			_, _ = w.Write(mails[n-1]) // Flush reports it
			say(".\r\n")
		case "QUIT":
			say("+OK\r\n")
			_ = w.Flush() // the client has what it wanted
			return
		default:
			say("+OK\r\n")
		}
	}
}

// client is a mail program.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func login(addr string) (*client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn, bufio.NewReaderSize(conn, 64<<10)}
	for _, command := range []string{"", "USER a\r\n", "PASS b\r\n"} {
		if _, err := io.WriteString(conn, command); err != nil {
			return nil, err
		}
		if err := c.ok(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *client) ok() error {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+OK") {
		return fmt.Errorf("the server says %q", line)
	}
	return nil
}

// fetch retrieves a mail, and returns its size.
func (c *client) fetch(n int) (int, error) {
	if _, err := fmt.Fprintf(c.conn, "RETR %d\r\n", n); err != nil {
		return 0, err
	}
	return c.message(sha256.New())
}

func (c *client) message(h hash.Hash) (size int, err error) {
	if err := c.ok(); err != nil {
		return 0, err
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return size, err
		}
		if string(line) == ".\r\n" {
			return size, nil
		}
		size += len(line)
		h.Write(line)
	}
}

// retrieve fetches n mails, with so many commands sent ahead, and checks that they are what they should be.
func retrieve(addr string, n, ahead int, want [sha256.Size]byte) error {
	c, err := login(addr)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	h := sha256.New()
	sent := 0
	for got := range n {
		var batch bytes.Buffer
		if sent == got {
			for sent < min(n, got+ahead) {
				sent++
				fmt.Fprintf(&batch, "RETR %d\r\n", sent)
			}
			if _, err := c.conn.Write(batch.Bytes()); err != nil {
				return err
			}
		}
		if _, err := c.message(h); err != nil {
			return fmt.Errorf("mail %d: %w", got+1, err)
		}
	}
	if [sha256.Size]byte(h.Sum(nil)) != want {
		return errors.New("the mails are not those that were sent")
	}
	return nil
}

// scanAll has clamd scan each mail, over one connection.
func scanAll(socket string, mails [][]byte) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("zIDSESSION\x00")); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	for _, m := range mails {
		b := append([]byte("zINSTREAM\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(m)))...) //nolint:gosec // far below 4 GiB
		b = append(append(b, m...), 0, 0, 0, 0)
		if _, err := conn.Write(b); err != nil {
			return err
		}
		reply, err := r.ReadString(0)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(reply, "stream: OK\x00") {
			return fmt.Errorf("clamd says %q", reply)
		}
	}
	return nil
}
