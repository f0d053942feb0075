package intercept

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// learnedFile is where learned hosts are kept in the state directory, and learnedLock what those who write it hold.
// saveAfter is how long a change may wait for others to be written with it, and lookEvery how often the file is looked at
// for changes of others' making.
const (
	learnedFile    = "learned.json"
	learnedLock    = "learned.lock"
	maxLearnedFile = 8 << 20
	saveAfter      = 2 * time.Second
	lookEvery      = time.Second
)

// Learned is a host whose connections are passed through because of what it did, or a client of it did.
type Learned struct {
	Host   string    `json:"host"`             // host:port
	Client string    `json:"client,omitempty"` // the address of the one client that this is for; empty: all
	Rule   Rule      `json:"rule,omitempty"`   // for one client, RuleLearned: a request of it taught that; else empty
	Reason string    `json:"reason"`           // in words
	Until  time.Time `json:"until"`            // when it is forgotten
}

func (e Learned) key() string {
	if e.Client == "" {
		return e.Host
	}
	key := e.Host + " " + e.Client
	if e.Rule != "" {
		key += " " + string(e.Rule)
	}
	return key
}

// of says whether an entry is for a host: "host" with any port, "[address]" or "host:port".
func (e Learned) of(host string) bool {
	return e.Host == host || strings.HasPrefix(e.Host, host+":") || strings.HasPrefix(e.Host, "["+host+"]:")
}

// learnedHosts remembers hosts, in memory and in a file of the state directory. The file may be changed by others while
// this one is in use: by `lazaret bypass forget`, or by an Interceptor of former settings that still has connections. So
// what it says is taken over when it changes, and what is written is what both sides know.
type learnedHosts struct {
	hosts *lru[string, Learned]
	path  string // empty: in memory only
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex
	timer  *time.Timer        // set while a change waits to be written
	base   map[string]Learned // what both sides knew when the file was last read or written
	looked time.Time
	state  fileState
}

// newLearnedHosts returns what the file in dir says; an empty dir is none. A file that cannot be read is reported and
// begun anew: all that is lost is that hosts are learned again.
func newLearnedHosts(dir string, log *slog.Logger, now func() time.Time) *learnedHosts {
	l := &learnedHosts{hosts: newLRU[string, Learned](maxLearned, now), log: log, now: now}
	if dir == "" {
		return l
	}
	l.path = filepath.Join(dir, learnedFile)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeOver()
	return l
}

// get returns what is remembered under a key, after a look at the file where the last one was a while ago.
func (l *learnedHosts) get(key string) (Learned, bool) {
	l.refresh()
	return l.hosts.get(key)
}

// refresh takes over what others have changed in the file.
func (l *learnedHosts) refresh() {
	if l.path == "" {
		return
	}
	if !l.mu.TryLock() {
		return // it is being read or written: no connection waits for that
	}
	defer l.mu.Unlock()
	if time.Since(l.looked) < lookEvery {
		return
	}
	l.looked = time.Now()
	if st, err := os.Stat(l.path); err == nil && stateOf(st) == l.state {
		return
	} else if err != nil && l.state == (fileState{}) {
		return // there was none before, either
	}
	l.takeOver()
}

// takeOver merges the file's entries into memory. What the other side dropped since both knew the same is dropped here,
// what it has more is added, and of two entries for one host the one that lasts longer holds. The mutex is held.
func (l *learnedHosts) takeOver() {
	entries, st, err := readLearned(l.path)
	l.state = st
	if err != nil {
		l.log.Error("the list of learned hosts cannot be read; it goes on with what is in memory", "file", l.path, "error", err)
		return
	}
	theirs := make(map[string]Learned, len(entries))
	for _, e := range entries {
		theirs[e.key()] = e
	}
	mine := map[string]Learned{}
	for _, e := range l.hosts.values() {
		mine[e.key()] = e
	}
	for key, e := range mine {
		if before, known := l.base[key]; known && !e.Until.After(before.Until) {
			if _, still := theirs[key]; !still {
				l.hosts.drop(key)
			}
		}
	}
	for key, e := range theirs {
		own, here := mine[key]
		_, known := l.base[key]
		if (here && e.Until.After(own.Until) || !here && !known) && e.Until.After(l.now()) {
			l.hosts.put(key, e, e.Until)
		}
	}
	l.base = theirs
}

// ReadLearned returns the hosts that the gateway with the state directory dir has learned, by name. It may be called while
// the gateway runs; what was learned in the last seconds may be missing.
func ReadLearned(dir string) ([]Learned, error) {
	entries, _, err := readLearned(filepath.Join(dir, learnedFile))
	return entries, err
}

// readLearned reads the file, and says in which state it was read. One that is not there has no entries.
func readLearned(path string) ([]Learned, fileState, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fileState{}, nil
	}
	if err != nil {
		return nil, fileState{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fileState{}, err
	}
	st := stateOf(info)
	if info.Size() > maxLearnedFile {
		return nil, st, fmt.Errorf("%s is larger than anything that was written there", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxLearnedFile))
	if err != nil {
		return nil, st, err
	}
	var entries []Learned
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, st, fmt.Errorf("%s: %w", path, err)
	}
	return entries, st, nil
}

// ForgetLearned drops a host ("host" for all its ports, or "host:port") from what the gateway with the state directory dir
// has learned, and returns what was dropped. The gateway may run: it takes the change over within a second or so.
func ForgetLearned(dir, host string) ([]Learned, error) {
	host = strings.ToLower(host)
	path := filepath.Join(dir, learnedFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	unlock, err := lockFile(filepath.Join(dir, learnedLock))
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, _, err := readLearned(path)
	if err != nil {
		return nil, err
	}
	var gone []Learned
	kept := slices.DeleteFunc(entries, func(e Learned) bool {
		if e.of(host) {
			gone = append(gone, e)
			return true
		}
		return false
	})
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, writeLearned(path, kept)
}

// ForgetLately is ForgetLearned for a host that may have been learned just now: where the file has nothing of it, it waits for as long
// as a running gateway may take to write it there, some seconds. It ends early with ctx, and then with the context's error.
func ForgetLately(ctx context.Context, dir, host string) ([]Learned, error) {
	for end := time.Now().Add(2 * saveAfter); ; {
		gone, err := ForgetLearned(dir, host)
		if err != nil || len(gone) > 0 || !time.Now().Before(end) {
			return gone, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(saveAfter / 20):
		}
	}
}

// writeLearned writes the file; the lock is held. It keeps the owner, as root may change what belongs to the gateway.
func writeLearned(path string, entries []Learned) error {
	b, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		return err
	}
	old, statErr := os.Stat(path)
	if err := replace(path, append(b, '\n'), 0o600); err != nil || statErr != nil {
		return err
	}
	if sys, ok := old.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Chown(path, int(sys.Uid), int(sys.Gid))
	}
	return nil
}

// lockFile takes the lock at path, which others hold for the time of one small write, and returns what gives it back.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if dir, err := os.Stat(filepath.Dir(path)); err == nil && os.Geteuid() == 0 {
		if sys, ok := dir.Sys().(*syscall.Stat_t); ok { // root makes it for the gateway's user
			_ = f.Chown(int(sys.Uid), int(sys.Gid))
		}
	}
	for range 50 {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = f.Close()
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// add remembers a host.
func (l *learnedHosts) add(e Learned) {
	l.hosts.put(e.key(), e, e.Until)
	l.changed()
}

// list returns what is remembered now, by name.
func (l *learnedHosts) list() []Learned {
	l.refresh()
	return l.sorted()
}

func (l *learnedHosts) sorted() []Learned {
	out := l.hosts.values()
	slices.SortFunc(out, func(a, b Learned) int { return strings.Compare(a.key(), b.key()) })
	return out
}

// forget drops the entries of a host, with any port where none is given, and returns how many there were.
func (l *learnedHosts) forget(host string) int {
	n := 0
	for _, e := range l.hosts.values() {
		if e.of(host) && l.hosts.drop(e.key()) {
			n++
		}
	}
	if n > 0 {
		l.changed()
	}
	return n
}

// changed has the file written soon.
func (l *learnedHosts) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path != "" && l.timer == nil {
		l.timer = time.AfterFunc(saveAfter, func() {
			if err := l.save(); err != nil {
				l.log.Error("what was learned about hosts could not be written", "error", err)
			}
		})
	}
}

// save writes the file where a change waits for it.
func (l *learnedHosts) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return nil
	}
	l.timer.Stop()
	l.timer = nil
	unlock, err := lockFile(filepath.Join(filepath.Dir(l.path), learnedLock))
	if err != nil {
		return err
	}
	defer unlock()
	if st, err := os.Stat(l.path); err == nil && stateOf(st) != l.state {
		l.takeOver()
	}
	entries := l.sorted()
	if err := writeLearned(l.path, entries); err != nil {
		return err
	}
	l.base = make(map[string]Learned, len(entries))
	for _, e := range entries {
		l.base[e.key()] = e
	}
	st, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	l.state = stateOf(st)
	return nil
}

// Learned returns the hosts that are passed through because of what they did, by name.
func (i *Interceptor) Learned() []Learned { return i.learned.list() }

// Forget drops what was learned about a host ("host" for all its ports, or "host:port") and returns how many entries that
// were.
func (i *Interceptor) Forget(host string) int { return i.learned.forget(strings.ToLower(host)) }

// Close writes what has to outlive the process. Sessions that are open go on.
func (i *Interceptor) Close() error { return i.learned.save() }
