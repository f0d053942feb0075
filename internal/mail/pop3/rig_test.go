package pop3

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/gate"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = time.Minute

// rig is a Server between a client and a server that the test plays.
type rig struct {
	t      *testing.T
	s      *Server
	addr   string
	server net.Listener
	sink   *records
	pool   *spool.Pool
}

// records collects what was recorded.
type records struct {
	mu  sync.Mutex
	all []audit.Record
}

func (r *records) Record(rec audit.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, rec)
}

func (r *records) list() []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

type dialFunc func(ctx context.Context, hostport string) (net.Conn, error)

func (f dialFunc) Dial(ctx context.Context, hostport string) (net.Conn, error) {
	return f(ctx, hostport)
}

type knobs struct {
	config  func(*Config)
	policy  func(*policy.Config)
	spool   func(*spool.Config)
	options func(*Options)
}

func newRig(t *testing.T, s scan.Scanner, k knobs) *rig {
	t.Helper()
	sc := spool.Default()
	sc.Dir, sc.MinFree = t.TempDir(), 0
	if k.spool != nil {
		k.spool(&sc)
	}
	pool, err := spool.NewPool(sc)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, sink: &records{}, pool: pool}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	g := gate.New(gate.Default(), gate.Options{Pool: pool, Limits: unpack.Default(), Content: content.Default(), Sink: r.sink, Log: log})
	p := policy.Default()
	if k.policy != nil {
		k.policy(&p)
	}
	g.Use(scan.NewSet(scan.Member{Scanner: s, Required: true}), p, false)
	r.server = listenLocal(t)
	cfg := Default()
	cfg.Upstream = "mail.example.net"
	if k.config != nil {
		k.config(&cfg)
	}
	opt := Options{Gate: g, Log: log, Dialer: dialFunc(func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", r.server.Addr().String())
	})}
	if k.options != nil {
		k.options(&opt)
	}
	if r.s, err = New(cfg, opt); err != nil {
		t.Fatal(err)
	}
	l := listenLocal(t)
	r.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- r.s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(r.s.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
		g.Close()
		// A scan that was given up holds its object until the scanner has noticed.
		for end := time.Now().Add(patience); pool.Usage() != (spool.Usage{}); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("the spool still holds %+v", pool.Usage())
				return
			}
		}
	})
	return r
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// end is one end of a conversation.
type end struct {
	t    *testing.T
	who  string
	conn net.Conn
	r    *bufio.Reader
}

func (r *rig) end(who string, c net.Conn) *end {
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	return &end{r.t, who, c, bufio.NewReader(c)}
}

// session connects a client, has the server greet, and returns both ends.
func (r *rig) session() (client, server *end) {
	r.t.Helper()
	client, server = r.connect()
	server.says("+OK ready <1896.697170952@mail.example.net>\r\n")
	client.hears("+OK ready <1896.697170952@mail.example.net>\r\n")
	return client, server
}

func (r *rig) connect() (client, server *end) {
	r.t.Helper()
	client = r.dial()
	c, err := r.server.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	return client, r.end("server", c)
}

func (r *rig) dial() *end {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.end("client", c)
}

func (e *end) says(s string) {
	e.t.Helper()
	if _, err := io.WriteString(e.conn, s); err != nil {
		e.t.Fatalf("the %s cannot say %.60q: %v", e.who, s, err)
	}
}

// hears reads exactly s.
func (e *end) hears(s string) {
	e.t.Helper()
	b := make([]byte, len(s))
	n, err := io.ReadFull(e.r, b)
	if string(b[:n]) != s || err != nil {
		e.t.Fatalf("the %s heard %.300q (%v), not %.300q", e.who, b[:n], err, s)
	}
}

// line reads a line that begins with prefix.
func (e *end) line(prefix string) string {
	e.t.Helper()
	s, err := e.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(s, prefix) {
		e.t.Fatalf("the %s heard %.300q (%v), not %q", e.who, s, err, prefix)
	}
	return s
}

// ended reads to the connection's end, and returns what came before it.
func (e *end) ended() string {
	e.t.Helper()
	b, err := io.ReadAll(e.r)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		e.t.Fatalf("the %s's connection does not end; it heard %.300q", e.who, b)
	}
	return string(b)
}

// message reads a reply of several lines, and returns it without the status line and the dot, and with its byte-stuffing.
func (e *end) message() string {
	e.t.Helper()
	e.line("+OK")
	var b strings.Builder
	for {
		l, err := e.r.ReadString('\n')
		if err != nil {
			e.t.Fatalf("the %s heard %q, and then %v", e.who, b.String()+l, err)
		}
		if l == ".\r\n" && (b.Len() == 0 || strings.HasSuffix(b.String(), "\r\n")) {
			return b.String()
		}
		b.WriteString(l)
	}
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

const head = "Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0200\r\nFrom: Grace <grace@example.org>\r\nTo: ada@example.net\r\n" +
	"Date: Mon, 1 Jun 2026 10:00:00 +0200\r\nMessage-ID: <1@example.org>\r\nSubject: the subject\r\n"

func infected() string { return head + "\r\n" + string(scan.EICAR()) + "\r\n" }

func eicar() scan.Scanner { return scantest.FindsEICAR() }
