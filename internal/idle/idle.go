// Package idle waits for many idle connections at once, by one goroutine for all of them: one for each has a stack that takes more
// memory than all else that the connection needs.
package idle

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher watches connections for as long as nothing comes over them, by epoll(7). It is safe for use by many goroutines.
type Watcher struct {
	poll *os.File // epoll's own descriptor can be waited for as any other, so no thread is kept in the kernel
	raw  syscall.RawConn
	fd   int
	done chan struct{} // closed when its goroutine has ended

	mu      sync.Mutex
	closed  bool
	watches map[uint64]*Watch // by what the kernel knows them as: descriptors are used again, these numbers are not
	last    uint64
}

// Watch is one connection that is watched.
type Watch struct {
	of    *Watcher
	id    uint64
	conn  syscall.RawConn
	woken func(error)
	timer *time.Timer // nil: it may be idle for ever
}

// New returns a watcher that has nothing to watch yet, and an error when the system has none to give. Close ends it.
func New() (*Watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watching idle connections: epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	w := &Watcher{poll: os.NewFile(uintptr(fd), "epoll"), fd: fd, done: make(chan struct{}), watches: map[uint64]*Watch{}}
	// Without a place in the runtime's own epoll, which may be full, there are no deadlines.
	if err = w.poll.SetReadDeadline(time.Time{}); err == nil {
		w.raw, err = w.poll.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watching idle connections: %w", err), w.poll.Close())
	}
	go w.run()
	return w, nil
}

// Close ends the watcher, and all watches: it calls nobody any more, and Add returns net.ErrClosed.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	for _, x := range w.watches {
		w.remove(x)
	}
	w.mu.Unlock()
	err := w.poll.Close()
	<-w.done
	return err
}

// Add watches a connection until something comes over it, which includes its end and an error, or until it has been idle for so long;
// 0: for ever. Then woken is called once, with nil or os.ErrDeadlineExceeded, on a goroutine of its own, and the connection is watched
// no longer. What came is left where it is. A connection that this side closes is not reported: who closes it calls Stop.
func (w *Watcher) Add(t *net.TCPConn, idle time.Duration, woken func(error)) (*Watch, error) {
	conn, err := t.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("watching an idle connection: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, net.ErrClosed
	}
	w.last++
	x := &Watch{of: w, id: w.last, conn: conn, woken: woken}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(uint32(x.id)), Pad: int32(uint32(x.id >> 32))}
	if e := conn.Control(func(fd uintptr) { err = unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, int(fd), &event) }); e != nil || err != nil {
		return nil, fmt.Errorf("watching an idle connection: %w", errors.Join(e, err))
	}
	w.watches[x.id] = x
	if idle > 0 {
		x.timer = time.AfterFunc(idle, func() {
			if x.Stop() {
				woken(os.ErrDeadlineExceeded)
			}
		})
	}
	return x, nil
}

// Stop ends the watch, and says whether it did so before woken was, or is being, called.
func (x *Watch) Stop() bool {
	w := x.of
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.remove(x)
}

// remove has x be watched no longer, and says whether it was. The lock is held.
func (w *Watcher) remove(x *Watch) bool {
	if w.watches[x.id] != x {
		return false
	}
	delete(w.watches, x.id)
	if x.timer != nil {
		x.timer.Stop()
	}
	// A connection that is closed is not watched by the kernel any more, and its number may be another's by now.
	_ = x.conn.Control(func(fd uintptr) { _ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_DEL, int(fd), nil) })
	return true
}

func (w *Watcher) run() {
	defer close(w.done)
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := w.raw.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if err != nil {
			return // closed: there is nothing else that could go wrong
		}
		for _, e := range events[:max(n, 0)] {
			w.wake(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}

// wake tells whose watch it is that something has come.
func (w *Watcher) wake(id uint64) {
	w.mu.Lock()
	x := w.watches[id]
	there := x != nil && w.remove(x)
	w.mu.Unlock()
	if there {
		go x.woken(nil)
	}
}

// Count returns how many connections are watched.
func (w *Watcher) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.watches)
}
