package mail

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lazaret/test/harness"
)

// session is a POP3 session by hand, for tests that count failures instead of ending at the first.
type session struct {
	c net.Conn
	r *bufio.Reader
}

// open begins a session and logs in.
func open(address string) (*session, error) {
	c, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return nil, fmt.Errorf("dialling: %w", err)
	}
	s := &session{c, bufio.NewReader(c)}
	if err := errors.Join(c.SetDeadline(time.Now().Add(time.Minute)), s.reply()); err != nil {
		return nil, errors.Join(fmt.Errorf("greeting: %w", err), c.Close())
	}
	if err := errors.Join(s.command("USER "+user), s.command("PASS "+password)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func (s *session) reply() error {
	line, err := s.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+OK") {
		return fmt.Errorf("the reply is %q", line)
	}
	return nil
}

func (s *session) command(line string) error {
	if _, err := io.WriteString(s.c, line+"\r\n"); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	if err := s.reply(); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// fetch retrieves the first mail, which must end in what it ends in, and says goodbye.
func (s *session) fetch(end []byte) error {
	defer s.c.Close()
	if err := errors.Join(s.c.SetDeadline(time.Now().Add(time.Minute)), s.command("RETR 1")); err != nil {
		return err
	}
	got, err := io.ReadAll(textproto.NewReader(s.r).DotReader())
	if err != nil {
		return fmt.Errorf("RETR 1: after %d bytes: %w", len(got), err)
	}
	if !bytes.HasSuffix(bytes.TrimSpace(got), end) {
		return fmt.Errorf("RETR 1: %d bytes, which are another mail", len(got))
	}
	return s.command("QUIT")
}

// sessions counts what mail programs that come without pause meet.
type sessions struct {
	wg       sync.WaitGroup
	stop     chan struct{}
	ok       atomic.Int64
	mu       sync.Mutex
	failures []string
}

func (s *sessions) count(err error) {
	if err == nil {
		s.ok.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, err.Error())
}

func (s *sessions) start(address string, end []byte, n int) {
	for range n {
		s.wg.Go(func() {
			for {
				select {
				case <-s.stop:
					return
				default:
				}
				one, err := open(address)
				if err == nil {
					err = one.fetch(end)
				}
				s.count(err)
			}
		})
	}
}

// more waits until n more sessions have gone well.
func (s *sessions) more(t *testing.T, n int64) {
	t.Helper()
	want := s.ok.Load() + n
	for deadline := time.Now().Add(time.Minute); s.ok.Load() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("only %d sessions went well; of the others: %q", s.ok.Load(), s.failures[:min(5, len(s.failures))])
		}
	}
}

var successor = regexp.MustCompile(`"another process has taken over[^}]*"pid":(\d+)`)

// upgrade has the gateway pid started anew, the nth time, and returns the id of what took over.
func upgrade(t *testing.T, g *harness.Gateway, pid, nth int) int {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		found := successor.FindAllStringSubmatch(g.Log.String(), -1)
		if len(found) < nth {
			continue
		}
		next, err := strconv.Atoi(found[nth-1][1])
		if err != nil || next == pid {
			t.Fatalf("the successor is %v: %v", found[nth-1], err)
		}
		return next
	}
	t.Fatal("nothing has taken over")
	return 0
}

// TestReloadAndUpgradeLoseNoMailSession has mail programs come without pause, and others stay in the middle of a session,
// while the settings are read again and the program is started anew; none may notice.
func TestReloadAndUpgradeLoseNoMailSession(t *testing.T) {
	for _, mode := range []string{"auto", "on"} {
		t.Run("sandbox "+mode, func(t *testing.T) { loseNoMailSession(t, mode) })
	}
}

func loseNoMailSession(t *testing.T, mode string) {
	box := mailbox()[:1]
	end := bytes.TrimSpace(bytes.ReplaceAll(box[0], []byte("\r\n"), []byte("\n")))
	end = end[bytes.LastIndexByte(end, '\n')+1:]
	if len(end) == 0 {
		t.Fatal("the mail has no last line to know it by")
	}
	d := startDovecot(t, "127.0.0.1", "", "", box)
	g := startWith(t, d, harness.Settings{"audit": "record_clean = false\n", "sandbox": fmt.Sprintf("mode = %q\n", mode)})
	s := &sessions{stop: make(chan struct{})}
	s.start(g.POP3, end, 3)
	s.more(t, 10)
	for range 3 {
		g.Signal(t, syscall.SIGHUP)
		s.more(t, 10)
	}
	pid := g.PID()
	t.Cleanup(func() {
		if pid == g.PID() {
			return // nothing has taken over: the harness ends it
		}
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Signal(syscall.SIGTERM) // it may have ended
		}
	})
	const upgrades = 2
	for i := range upgrades {
		held, err := open(g.POP3)
		if err != nil {
			t.Fatal(err)
		}
		pid = upgrade(t, g, pid, i+1)
		s.more(t, 10)
		s.count(held.fetch(end))
	}
	for deadline := time.Now().Add(time.Minute); strings.Count(g.Log.String(), `"the gateway has ended"`) < upgrades; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process that was taken over from goes on")
		}
	}
	s.more(t, 10)
	close(s.stop)
	s.wg.Wait()
	if len(s.failures) > 0 {
		t.Errorf("of %d sessions %d failed:\n%s", s.ok.Load()+int64(len(s.failures)), len(s.failures), strings.Join(s.failures[:min(10, len(s.failures))], "\n"))
	}
	t.Logf("%d sessions, %d failures, over 3 reloads and %d upgrades", s.ok.Load(), len(s.failures), upgrades)
}
