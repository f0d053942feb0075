package idle

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience is for what must happen, moment for what must not.
const (
	patience = 10 * time.Second
	moment   = 50 * time.Millisecond
)

func watcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.Count() != 0 {
			t.Errorf("%d connections are watched still", w.Count())
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = nc.Close()
		_ = other.Close()
	})
	return nc.(*net.TCPConn), other.(*net.TCPConn)
}

// add watches nc, and returns what its watch says.
func add(t *testing.T, w *Watcher, nc *net.TCPConn, idle time.Duration) (*Watch, chan error) {
	t.Helper()
	said := make(chan error, 2)
	x, err := w.Add(nc, idle, func(err error) { said <- err })
	if err != nil {
		t.Fatal(err)
	}
	return x, said
}

// hears fails where nothing is said, or something else.
func hears(t *testing.T, said chan error, want error) {
	t.Helper()
	select {
	case err := <-said:
		if !errors.Is(err, want) {
			t.Fatalf("%v instead of %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("nobody was told")
	}
}

func hearsNothing(t *testing.T, said chan error) {
	t.Helper()
	select {
	case err := <-said:
		t.Fatalf("it was told %v", err)
	case <-time.After(moment):
	}
}

func TestWhatEndsAWatch(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(far *net.TCPConn)
		left string
	}{
		"something":   {func(far *net.TCPConn) { _, _ = io.WriteString(far, "x") }, "x"},
		"end":         {func(far *net.TCPConn) { _ = far.CloseWrite() }, ""},
		"end after x": {func(far *net.TCPConn) { _, _ = io.WriteString(far, "x"); _ = far.Close() }, "x"},
		"reset":       {func(far *net.TCPConn) { _ = far.SetLinger(0); _ = far.Close() }, ""},
	} {
		for order, before := range map[string]bool{"before": true, "after": false} {
			t.Run(name+" "+order, func(t *testing.T) {
				w := watcher(t)
				near, far := pair(t)
				if before {
					c.do(far)
				}
				x, said := add(t, w, near, time.Hour)
				if !before {
					hearsNothing(t, said)
					c.do(far)
				}
				hears(t, said, nil)
				if x.Stop() {
					t.Error("a watch that has ended says that it was stopped")
				}
				if b := make([]byte, len(c.left)); c.left != "" {
					if _, err := io.ReadFull(near, b); err != nil || string(b) != c.left {
						t.Errorf("what was left to read: %q, %v", b, err)
					}
				}
				hearsNothing(t, said)
			})
		}
	}
}

func TestIdleForTooLong(t *testing.T) {
	w := watcher(t)
	near, _ := pair(t)
	_, said := add(t, w, near, time.Millisecond)
	hears(t, said, os.ErrDeadlineExceeded)
	x, said := add(t, w, near, moment)
	if !x.Stop() || x.Stop() {
		t.Error("a watch is stopped once")
	}
	time.Sleep(moment)
	hearsNothing(t, said)
}

func TestAStoppedWatchSaysNothing(t *testing.T) {
	w := watcher(t)
	near, far := pair(t)
	x, said := add(t, w, near, 0)
	x.Stop()
	_, _ = io.WriteString(far, "x")
	hearsNothing(t, said)
	_, said = add(t, w, near, 0) // and can be watched again
	hears(t, said, nil)
}

func TestAClosedConnectionIsNotWatched(t *testing.T) {
	w := watcher(t)
	near, _ := pair(t)
	x, said := add(t, w, near, 0)
	_ = near.Close()
	hearsNothing(t, said)
	if _, err := w.Add(near, 0, func(error) {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed one is watched: %v", err)
	}
	// The next connection may have its descriptor: it must not lose its watch to this one.
	other, far := pair(t)
	y, heard := add(t, w, other, 0)
	if !x.Stop() {
		t.Error("it was not watched any more")
	}
	_, _ = io.WriteString(far, "x")
	hears(t, heard, nil)
	if y.Stop() {
		t.Error("the other one is watched still")
	}
}

// More come at once than are looked at together, and some go meanwhile: each is told once, or was stopped.
func TestManyAtOnce(t *testing.T) {
	w := watcher(t)
	const n = 300
	var told, stopped atomic.Int32
	var all sync.WaitGroup
	all.Add(n)
	for i := range n {
		near, far := pair(t)
		x, err := w.Add(near, time.Hour, func(error) { told.Add(1); all.Done() })
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(far, "x") }()
		if i%3 == 0 {
			go func() {
				if x.Stop() {
					stopped.Add(1)
					all.Done()
				}
			}()
		}
	}
	all.Wait()
	if told.Load()+stopped.Load() != n || told.Load() < n/2 {
		t.Errorf("%d told, %d stopped, of %d", told.Load(), stopped.Load(), n)
	}
}

func TestAWatcherThatIsClosedTellsNobody(t *testing.T) {
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	near, _ := pair(t)
	_, said := add(t, w, near, 20*time.Millisecond)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	hearsNothing(t, said)
}

// The number of epoll's descriptor may be another's after Close.
func TestAWatcherThatIsClosedTouchesNoOtherDescriptor(t *testing.T) {
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	v := watcher(t)
	if v.fd != w.fd {
		t.Skip("the number was not used again")
	}
	mine, far := pair(t)
	his, _ := pair(t)
	y, said := add(t, v, his, 0)
	x, err := w.Add(mine, 0, func(error) {})
	if err != nil {
		y.Stop()
		return
	}
	_, _ = io.WriteString(far, "x")
	select {
	case <-said:
		t.Error("another watcher's connection, on which nothing came, was woken")
	case <-time.After(patience):
	}
	x.Stop()
	y.Stop()
}
