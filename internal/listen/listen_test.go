package listen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newListener(t *testing.T, opt Options, edit ...func(*Config)) *Listener {
	t.Helper()
	cfg := Default()
	for _, e := range edit {
		e(&cfg)
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	ls, err := Listen(t.Context(), "127.0.0.1:0", cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ls[0].Close() })
	return ls[0]
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func accept(t *testing.T, l *Listener) *Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*Conn)
}

// closed says that the peer ended the connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is open: %v", err)
	}
}

func TestConnectionsAboveTheLimitsAreClosedAndCounted(t *testing.T) {
	for what, edit := range map[string]func(*Config){
		"in all":     func(c *Config) { c.MaxConnections = 2 },
		"per client": func(c *Config) { c.MaxPerClient = 2 },
	} {
		t.Run(what, func(t *testing.T) {
			l := newListener(t, Options{}, edit)
			dial(t, l)
			dial(t, l)
			one, two := accept(t, l), accept(t, l)
			closed(t, dial(t, l))
			if l.Refused() != 1 {
				t.Errorf("%d refused", l.Refused())
			}
			_ = one.Close()
			_ = one.Close() // a second time gives nothing more back
			dial(t, l)
			accept(t, l)
			closed(t, dial(t, l))
			_ = two.Close()
		})
	}
}

func TestClientsAreCountedApart(t *testing.T) {
	l := NewLimits(100, 1)
	for _, tc := range []struct {
		addr string
		ok   bool
	}{
		{"192.0.2.1", true},
		{"192.0.2.1", false},
		{"::ffff:192.0.2.1", false},
		{"192.0.2.2", true},
		{"2001:db8:1:1::1", true},
		{"2001:db8:1:1:ffff::2", false}, // the same /64: one host
		{"2001:db8:1:2::1", true},
	} {
		if _, reason := l.enter(netip.MustParseAddr(tc.addr)); (reason == "") != tc.ok {
			t.Errorf("%s: %q", tc.addr, reason)
		}
	}
	if l.Open() != 4 {
		t.Errorf("%d are open", l.Open())
	}
	l.Set(4, 10)
	if _, reason := l.enter(netip.MustParseAddr("192.0.2.3")); !strings.Contains(reason, "max_connections") {
		t.Errorf("above a limit that was lowered: %q", reason)
	}
}

// failingListener fails to accept a number of times, each time with the error given.
type failingListener struct {
	net.Listener
	left atomic.Int64
	err  error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", l.err)}
	}
	return l.Listener.Accept()
}

func TestLackOfFileDescriptorsIsSurvived(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ECONNABORTED} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		bad := &failingListener{Listener: ln, err: errno}
		bad.left.Store(4)
		var log bytes.Buffer
		l, err := New(bad, Default(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		dial(t, l)
		_ = accept(t, l).Close()
		_ = l.Close()
		if !strings.Contains(log.String(), "cannot be accepted") {
			t.Errorf("%v: the log says %q", errno, log.String())
		}
	}
}

func TestAcceptEndsWithTheListener(t *testing.T) {
	l := newListener(t, Options{})
	dial(t, l) // accepted, and never asked for
	errs := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				errs <- err
				return
			}
			_ = c.Close()
		}
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ends with %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close returns %v", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	taken := newListener(t, Options{}).Addr().String()
	for address, want := range map[string]string{
		taken:              "another program",
		"192.0.2.1:0":      "does not have that address",
		"3128":             "not an address to listen on",
		"host.example:80":  "not an address of this machine",
		"127.0.0.1:http":   "not a number",
		"127.0.0.1:65536":  "not a number",
		"systemd:":         "lacks the socket's name",
		"systemd:missing!": "FileDescriptorName",
	} {
		ls, err := Listen(t.Context(), address, Default(), Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
		for _, l := range ls {
			_ = l.Close()
		}
	}
	for _, address := range []string{"127.0.0.1:3128", ":3128", "[::1]:3128", "localhost:0", "systemd:web"} {
		if err := CheckAddress(address); err != nil {
			t.Error(err)
		}
	}
	if err := (Config{ProxyProtocol: []string{"x"}}).Validate(); err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("five keys are wrong: %v", err)
	}
}

// v2 returns a header of version 2.
func v2(command, family byte, body []byte) []byte {
	return append(append(bytes.Clone(v2Signature), command, family, byte(len(body)>>8), byte(len(body))), body...)
}

var (
	body4 = []byte{192, 0, 2, 1, 198, 51, 100, 7, 0xdb, 0xd6, 1, 0xbb}
	body6 = append(append(bytes.Repeat([]byte{0x20}, 16), bytes.Repeat([]byte{0x30}, 16)...), 0xdb, 0xd6, 1, 0xbb)
)

func TestProxyProtocolOfTrustedSources(t *testing.T) {
	trust := func(c *Config) { c.ProxyProtocol = []string{"127.0.0.0/8"} }
	for what, tc := range map[string]struct{ head, client, local string }{
		"version 1, IPv4":   {"PROXY TCP4 192.0.2.1 198.51.100.7 56278 443\r\n", "192.0.2.1:56278", "198.51.100.7:443"},
		"version 1, IPv6":   {"PROXY TCP6 2001:db8::1 2001:db8::2 56278 443\r\n", "[2001:db8::1]:56278", "[2001:db8::2]:443"},
		"version 1, mapped": {"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", "192.0.2.1:1", "192.0.2.2:2"},
		"unknown":           {"PROXY UNKNOWN\r\n", "", ""},
		"unknown, with":     {"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", "", ""},
		"version 2, IPv4":   {string(v2(v2Proxy, v2TCP4, body4)), "192.0.2.1:56278", "198.51.100.7:443"},
		"with extensions":   {string(v2(v2Proxy, v2TCP4, append(bytes.Clone(body4), 3, 0, 4, 1, 2, 3, 4))), "192.0.2.1:56278", "198.51.100.7:443"},
		"version 2, IPv6":   {string(v2(v2Proxy, v2TCP6, body6)), "[2020:2020:2020:2020:2020:2020:2020:2020]:56278", "[3030:3030:3030:3030:3030:3030:3030:3030]:443"},
		"local":             {string(v2(v2Local, 0, nil)), "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			l := newListener(t, Options{}, trust)
			c := dial(t, l)
			if _, err := io.WriteString(c, tc.head+"GET /"); err != nil {
				t.Fatal(err)
			}
			got := accept(t, l)
			client, local := got.RemoteAddr().String(), got.LocalAddr().String()
			if tc.client == "" {
				tc.client, tc.local = c.LocalAddr().String(), l.Addr().String()
			}
			if client != tc.client || local != tc.local || got.Client().String() != client {
				t.Errorf("from %s to %s, want %s and %s", client, local, tc.client, tc.local)
			}
			b := make([]byte, 5)
			if _, err := io.ReadFull(got, b); err != nil || string(b) != "GET /" {
				t.Errorf("behind the header came %q, %v", b, err)
			}
			_ = got.Close()
			if l.opt.Limits.Open() != 0 {
				t.Errorf("%d places are taken after the end", l.opt.Limits.Open())
			}
		})
	}
}

func TestConnectionsWithoutAHeaderAreClosedWhereOneIsDue(t *testing.T) {
	for what, sent := range map[string]string{
		"none":             "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"a long one":       "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
		"no address":       "PROXY TCP4 x y 1 2\r\n",
		"another family":   "PROXY TCP4 ::1 ::1 1 2\r\n",
		"a port too large": "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
		"a port of zeros":  "PROXY TCP4 192.0.2.1 192.0.2.2 0001 2\r\n",
		"a field more":     "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
		"version 3":        string(v2(0x31, v2TCP4, body4)),
		"UDP":              string(v2(v2Proxy, 0x12, body4)),
		"short addresses":  string(v2(v2Proxy, v2TCP4, body4[:8])),
		"a huge one":       string(v2(v2Proxy, v2TCP4, make([]byte, maxV2+1))),
	} {
		t.Run(what, func(t *testing.T) {
			l := newListener(t, Options{}, func(c *Config) { c.ProxyProtocol = []string{"127.0.0.1"} })
			c := dial(t, l)
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			closed(t, c)
			_ = l.Close()
			if l.Faulty() != 1 || l.opt.Limits.Open() != 0 {
				t.Errorf("%d counted, %d places taken", l.Faulty(), l.opt.Limits.Open())
			}
		})
	}
}

func TestHeaderOfASourceThatIsNotTrustedIsContent(t *testing.T) {
	l := newListener(t, Options{}, func(c *Config) { c.ProxyProtocol = []string{"192.0.2.0/24"} })
	c := dial(t, l)
	const head = "PROXY TCP4 203.0.113.1 198.51.100.7 56278 443\r\n"
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	got := accept(t, l)
	if got.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("a stranger chose its address: %v", got.RemoteAddr())
	}
	b := make([]byte, len(head))
	if _, err := io.ReadFull(got, b); err != nil || string(b) != head {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestStallingLoadBalancerHoldsUpNobody(t *testing.T) {
	l := newListener(t, Options{}, func(c *Config) { c.ProxyProtocol = []string{"127.0.0.1"} })
	dial(t, l) // says nothing
	c := dial(t, l)
	if _, err := io.WriteString(c, "PROXY UNKNOWN\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := accept(t, l); got.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("accepted %v", got.RemoteAddr())
	}
	// Close waits for the stalling one no longer than it must.
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestLimitHoldsForTheClientBehindALoadBalancer(t *testing.T) {
	l := newListener(t, Options{}, func(c *Config) {
		c.ProxyProtocol, c.MaxPerClient = []string{"127.0.0.1"}, 1
	})
	send := func(client string) net.Conn {
		c := dial(t, l)
		if _, err := fmt.Fprintf(c, "PROXY TCP4 %s 198.51.100.7 1 2\r\n", client); err != nil {
			t.Fatal(err)
		}
		return c
	}
	send("192.0.2.1")
	accept(t, l)
	send("192.0.2.2")
	accept(t, l)
	closed(t, send("192.0.2.1"))
	if l.Refused() != 1 {
		t.Errorf("%d refused", l.Refused())
	}
}

func TestDirectConnectionHasNoOriginalDestination(t *testing.T) {
	l := newListener(t, Options{Transparent: true})
	dial(t, l)
	if got := accept(t, l); got.Original().IsValid() {
		t.Errorf("original destination %v", got.Original())
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.7 56278 443\r\n"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 2001:db8::2 56278 443\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(v2(v2Proxy, v2TCP4, body4))
	f.Add(v2(v2Proxy, v2TCP6, body6))
	f.Add(v2(v2Local, 0, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := parseHeader(r)
		read := len(b) - r.Len()
		switch {
		case err != nil:
			if h.source.IsValid() {
				t.Errorf("an address with the error %v", err)
			}
		case bytes.HasPrefix(b, v2Signature):
			if want := 16 + int(b[14])<<8 + int(b[15]); read != want {
				t.Errorf("%d bytes were read of a header of %d", read, want)
			}
		default:
			if i := bytes.Index(b, []byte("\r\n")); read != i+2 {
				t.Errorf("%d bytes were read of a line of %d", read, i+2)
			}
		}
		if h.source.IsValid() != h.destination.IsValid() {
			t.Error("one address without the other")
		}
	})
}

func FuzzListenFDs(f *testing.F) {
	f.Add("7", "2", "web:pop3")
	f.Add("7", "1", "")
	f.Add("8", "1", "web")
	f.Add("7", "-1", "")
	f.Add("7", "99999999", "a")
	f.Fuzz(func(t *testing.T, pid, n, labels string) {
		env := map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": n, "LISTEN_FDNAMES": labels}
		opened := 0
		files, err := parseListenFDs(func(k string) string { return env[k] }, 7, func(fd int, _ string) *os.File {
			if fd != firstFD+opened {
				t.Errorf("file descriptor %d is number %d", fd, opened)
			}
			opened++
			return nil
		})
		if err != nil && opened > 0 {
			t.Errorf("%d were opened with the error %v", opened, err)
		}
		got := 0
		for _, fs := range files {
			got += len(fs)
		}
		if got != opened || (pid != "7" && got > 0) {
			t.Errorf("%d of %d sockets, for process %q", got, opened, pid)
		}
	})
}

// starved is a listener without file descriptors, until some have been given up.
type starved struct {
	net.Listener
	freed atomic.Bool
}

func (l *starved) Accept() (net.Conn, error) {
	if !l.freed.Load() {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAShortageOfDescriptorsIsTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &starved{Listener: ln}
	l, err := New(s, Default(), Options{Logger: slog.New(slog.DiscardHandler), OnShortage: func() { s.freed.Store(true) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}
