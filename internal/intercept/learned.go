package intercept

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// learnedFile is where learned hosts are kept in the state directory, and saveAfter how long a change may wait for others
// to be written with it.
const (
	learnedFile    = "learned.json"
	maxLearnedFile = 8 << 20
	saveAfter      = 2 * time.Second
)

// Learned is a host whose connections are passed through because of what it did.
type Learned struct {
	Host   string    `json:"host"`   // host:port
	Reason string    `json:"reason"` // in words
	Until  time.Time `json:"until"`  // when it is forgotten
}

// learnedHosts remembers hosts, in memory and in a file of the state directory.
type learnedHosts struct {
	hosts *lru[string, Learned]
	path  string // empty: in memory only
	log   *slog.Logger
	now   func() time.Time

	mu    sync.Mutex
	timer *time.Timer // set while a change waits to be written
}

// newLearnedHosts returns what the file in dir says; an empty dir is none. A file that cannot be read is reported and
// begun anew: all that is lost is that hosts are learned again.
func newLearnedHosts(dir string, log *slog.Logger, now func() time.Time) *learnedHosts {
	l := &learnedHosts{hosts: newLRU[string, Learned](maxLearned, now), log: log, now: now}
	if dir == "" {
		return l
	}
	l.path = filepath.Join(dir, learnedFile)
	entries, err := ReadLearned(dir)
	if err != nil {
		log.Error("what was learned about hosts is lost, and will be learned again", "error", err)
	}
	for _, e := range entries {
		if e.Until.After(now()) {
			l.hosts.put(e.Host, e, e.Until)
		}
	}
	return l
}

// ReadLearned returns the hosts that the gateway with the state directory dir has learned, by name. It may be called while
// the gateway runs; what was learned in the last seconds may be missing.
func ReadLearned(dir string) ([]Learned, error) {
	path := filepath.Join(dir, learnedFile)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxLearnedFile {
		return nil, fmt.Errorf("%s is larger than anything that was written there", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var entries []Learned
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil
}

// add remembers a host.
func (l *learnedHosts) add(e Learned) {
	l.hosts.put(e.Host, e, e.Until)
	l.changed()
}

// list returns what is remembered now, by name.
func (l *learnedHosts) list() []Learned {
	out := l.hosts.values()
	slices.SortFunc(out, func(a, b Learned) int { return strings.Compare(a.Host, b.Host) })
	return out
}

// forget drops the entries of a host, with any port where none is given, and returns how many there were.
func (l *learnedHosts) forget(host string) int {
	n := 0
	for _, e := range l.hosts.values() {
		if e.Host == host || strings.HasPrefix(e.Host, host+":") || strings.HasPrefix(e.Host, "["+host+"]:") {
			if l.hosts.drop(e.Host) {
				n++
			}
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
	b, err := json.MarshalIndent(l.list(), "", "  ")
	if err != nil {
		return err
	}
	return replace(l.path, append(b, '\n'), 0o600)
}

// Learned returns the hosts that are passed through because of what they did, by name.
func (i *Interceptor) Learned() []Learned { return i.learned.list() }

// Forget drops what was learned about a host ("host" for all its ports, or "host:port") and returns how many entries that
// were.
func (i *Interceptor) Forget(host string) int { return i.learned.forget(strings.ToLower(host)) }

// Close writes what has to outlive the process. Sessions that are open go on.
func (i *Interceptor) Close() error { return i.learned.save() }
