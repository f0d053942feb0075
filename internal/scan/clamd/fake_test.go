package clamd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"

	"golang.org/x/sys/unix"
)

// fake speaks clamd's protocol, and shows faults that the real one does not produce when asked to. Only replies to scans
// are at fault: VERSION and PING are always answered, so that the driver cannot tell beforehand.
type fake struct {
	network, address string
	met              atomic.Int64
	scans            atomic.Int64
	version          atomic.Pointer[string]
	noDescriptors    atomic.Bool // FILDES gets no descriptor, as under AppArmor

	mu sync.Mutex
	// answer overrides the reply to the scan of content; "" leaves it.
	answer func(content []byte) string
	fault  scantest.Fault
	ln     net.Listener
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
}

// startFake returns a fake on a socket of its own, which ends with the test.
func startFake(t *testing.T, network string) *fake {
	t.Helper()
	f := &fake{network: network, address: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	if network == "unix" {
		f.address = filepath.Join(shortDir(t), "s")
	}
	version := "ClamAV 1.4.3/27453/Mon Nov 24 09:01:01 2025"
	f.version.Store(&version)
	if err := f.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f
}

// shortDir returns a directory whose path leaves room for the name of a socket, which a test's own directory may not.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lzr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (f *fake) addr() string { return f.network + ":" + f.address }

func (f *fake) listen() error {
	ln, err := net.Listen(f.network, f.address)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.ln, f.address = ln, ln.Addr().String()
	f.mu.Unlock()
	f.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[c] = true
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(c) })
		}
	})
	return nil
}

// drop ends the listener and every connection, as the end of the process would.
func (f *fake) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.ln.Close()
	for c := range f.conns {
		_ = c.Close()
	}
	clear(f.conns)
}

func (f *fake) stop() {
	f.drop()
	f.wg.Wait()
}

func (f *fake) set(t *testing.T, fault scantest.Fault) {
	f.mu.Lock()
	before := f.fault
	f.fault = fault
	f.mu.Unlock()
	if fault == scantest.Absent {
		f.drop()
	}
	if before == scantest.Absent && fault == 0 {
		if err := f.listen(); err != nil {
			t.Errorf("listening again: %v", err)
		}
	}
}

func (f *fake) answerWith(answer func(content []byte) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fake) now() scantest.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// client is one connection to the fake.
type client struct {
	net.Conn
	f    *fake
	buf  []byte
	fds  []int
	id   int
	sess bool
}

// more reads some bytes, with the descriptors beside them.
func (c *client) more() error {
	size := 64 << 10
	if c.f.now() == scantest.Fragmented {
		size = 7
	}
	b, oob := make([]byte, size), make([]byte, 128)
	u, ok := c.Conn.(*net.UnixConn)
	if !ok {
		n, err := c.Read(b)
		c.buf = append(c.buf, b[:n]...)
		return err
	}
	n, oobn, _, _, err := u.ReadMsgUnix(b, oob)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	c.buf = append(c.buf, b[:n]...)
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			c.fds = append(c.fds, fds...)
		}
	}
	return nil
}

func (c *client) take(n int) ([]byte, error) {
	for len(c.buf) < n {
		if err := c.more(); err != nil {
			return nil, err
		}
	}
	out := bytes.Clone(c.buf[:n])
	c.buf = c.buf[n:]
	return out, nil
}

func (c *client) command() (string, error) {
	for {
		if i := bytes.IndexByte(c.buf, 0); i >= 0 {
			out := string(c.buf[:i])
			c.buf = c.buf[i+1:]
			return out, nil
		}
		if err := c.more(); err != nil {
			return "", err
		}
	}
}

func (f *fake) serve(conn net.Conn) {
	c := &client{Conn: conn, f: f}
	defer func() {
		_ = conn.Close()
		for _, fd := range c.fds {
			_ = unix.Close(fd)
		}
		f.mu.Lock()
		delete(f.conns, conn)
		f.mu.Unlock()
	}()
	for {
		cmd, err := c.command()
		if err != nil {
			return
		}
		if cmd == "zIDSESSION" {
			c.sess = true
			continue
		}
		c.id++
		if !f.execute(c, cmd) || !c.sess {
			return
		}
	}
}

// execute answers one command, and says whether the connection goes on.
func (f *fake) execute(c *client, cmd string) bool {
	switch cmd {
	case "zPING":
		return c.say("PONG")
	case "zRELOAD":
		return c.say("RELOADING")
	case "zVERSION":
		return c.say(*f.version.Load())
	case "zFILDES":
		if _, err := c.take(1); err != nil {
			return false
		}
		if len(c.fds) == 0 || f.noDescriptors.Load() {
			return c.say("No file descriptor received. ERROR")
		}
		file := os.NewFile(uintptr(c.fds[0]), "handed-over")
		c.fds = c.fds[1:]
		content, err := io.ReadAll(file)
		_ = file.Close()
		if err != nil {
			return c.say("fd[10]: Can't read file ERROR")
		}
		return f.scan(c, "fd[10]: ", content)
	case "zINSTREAM":
		return f.stream(c)
	}
	return c.say("UNKNOWN COMMAND") && false
}

func (f *fake) stream(c *client) bool {
	var content []byte
	for {
		size, err := c.take(4)
		if err != nil {
			return false
		}
		n := binary.BigEndian.Uint32(size)
		if n == 0 {
			return f.scan(c, "stream: ", content)
		}
		if f.now() == scantest.SizeLimit {
			f.met.Add(1)
			c.say("INSTREAM size limit exceeded. ERROR")
			return false
		}
		b, err := c.take(int(n))
		if err != nil {
			return false
		}
		content = append(content, b...)
	}
}

func (c *client) say(text string) bool {
	if c.sess {
		text = fmt.Sprintf("%d: %s", c.id, text)
	}
	return c.raw(text + "\x00")
}

func (c *client) raw(text string) bool {
	_, err := io.WriteString(c, text)
	return err == nil
}

// scan replies to the scan of content, with the fault of the moment.
func (f *fake) scan(c *client, name string, content []byte) bool {
	scans := f.scans.Add(1)
	good := name + "OK"
	switch {
	case bytes.HasPrefix(content, []byte("PK")):
		return c.say(name + "Heuristics.Limits.Exceeded.MaxRecursion FOUND")
	case bytes.HasPrefix(content, []byte("Received: ")): // what the driver asks, to know whether attachments are found
		return c.say(name + "Eicar-Test-Signature FOUND")
	case bytes.Contains(content, scan.EICAR()):
		good = name + "Eicar-Test-Signature FOUND"
	}
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		if a := answer(content); a != "" {
			return c.say(name + a)
		}
	}
	fault := f.now()
	if fault != 0 {
		f.met.Add(1)
	}
	switch fault {
	case scantest.LostBefore:
		return false
	case scantest.LostWithin:
		c.raw(fmt.Sprintf("%d: %s", c.id, good)) // no terminator: an OK without its end is none
		return false
	case scantest.LostAfter:
		c.say(good)
		return false
	case scantest.Garbage:
		return c.raw("\xff\xfe<html>503</html>\x00")
	case scantest.UnknownReply:
		return c.say(name + "PROBABLY OK")
	case scantest.OverLong:
		return c.raw(fmt.Sprintf("%d: %s", c.id, strings.Repeat("OK ", 1<<20)))
	case scantest.Stall:
		_ = c.more() // until the driver goes
		return false
	case scantest.ErrorReply:
		return c.say(name + "Can't allocate memory ERROR")
	case scantest.SizeLimit:
		return c.say(name + "Heuristics.Limits.Exceeded.MaxFileSize FOUND")
	case scantest.Restart:
		if scans%2 == 1 {
			f.drop()
			_ = f.listen()
			return false
		}
	case scantest.Fragmented:
		for _, b := range fmt.Sprintf("%d: %s\x00", c.id, good) {
			c.raw(string(b))
			time.Sleep(100 * time.Microsecond)
		}
		return true
	}
	return c.say(good)
}
