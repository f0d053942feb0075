package web

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"lazaret/internal/notice"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"
)

// The bounds of authentication.
const (
	rememberFor   = 10 * time.Minute // a password that was right is not hashed again
	maxRemembered = 10000
	freeFailures  = 5 // wrong passwords of one client address before it has to wait
	maxBackOff    = time.Minute
	maxFailing    = 10000
	recheckAfter  = time.Second // how often the file is looked at
)

// authenticate demands a user and a password where an auth_file is set (RFC 9110, 11.7; RFC 7617), and answers the request
// where they are missing or wrong.
func (x *exchange) authenticate() bool {
	users := x.set.users
	if users == nil {
		return true
	}
	name, password, ok := proxyBasicAuth(x.r)
	if !ok {
		x.challenge("no user and password were given")
		return false
	}
	right, wait := users.check(x.r.Context(), x.facts.Client, name, password)
	switch {
	case right:
		x.facts.User = name
		return true
	case wait > 0:
		x.w.Header().Set("Connection", "close")
		x.challenge(fmt.Sprintf("user %q: too many wrong passwords from this address; the next one is looked at in %v", name, wait.Round(time.Second)))
	default:
		x.challenge(fmt.Sprintf("user %q: wrong user or password", name))
	}
	return false
}

func (x *exchange) challenge(detail string) {
	x.w.Header().Set("Proxy-Authenticate", `Basic realm="Lazaret", charset="UTF-8"`)
	x.refuse(notice.AuthRequired, "the proxy wants a user and a password", detail)
}

func proxyBasicAuth(r *http.Request) (user, password string, ok bool) {
	values := r.Header["Proxy-Authorization"]
	if len(values) != 1 {
		return "", "", false
	}
	// net/http reads Basic credentials from Authorization only.
	return (&http.Request{Header: http.Header{"Authorization": values}}).BasicAuth()
}

// users are those of an htpasswd file. It is read again when it changes; one that has become wrong leaves the former
// users in place.
type users struct {
	path string
	log  *slog.Logger
	key  [32]byte // of the HMAC under which right passwords are remembered
	work *semaphore.Weighted

	mu         sync.Mutex
	hashes     map[string][]byte
	stamp      fileStamp
	looked     time.Time
	remembered map[[sha256.Size]byte]time.Time // until when
	failing    map[netip.Addr]*failures
	nobody     []byte // a hash that no password has, so that unknown users take as long as known ones
}

type fileStamp struct {
	modified time.Time
	size     int64
}

// failures are the wrong passwords of one client address.
type failures struct {
	count int
	until time.Time
}

// openUsers reads an htpasswd file.
func openUsers(path string, log *slog.Logger) (*users, error) {
	u := &users{
		path: path, log: log, work: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
		remembered: map[[sha256.Size]byte]time.Time{}, failing: map[netip.Addr]*failures{},
	}
	_, _ = rand.Read(u.key[:]) // never fails: crypto/rand ends the process rather than return an error
	if err := u.load(); err != nil {
		return nil, err
	}
	return u, nil
}

// load reads the file. The caller holds mu, or is the only one.
func (u *users) load() error {
	info, err := os.Stat(u.path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	u.stamp = fileStamp{info.ModTime(), info.Size()}
	text, err := os.ReadFile(u.path) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	hashes, err := parseHtpasswd(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", u.path, err)
	}
	cost := bcrypt.MinCost
	for _, h := range hashes {
		if c, err := bcrypt.Cost(h); err == nil {
			cost = max(cost, c)
		}
	}
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // see openUsers
	if u.nobody, err = bcrypt.GenerateFromPassword(secret[:], cost); err != nil {
		return err
	}
	u.hashes = hashes
	clear(u.remembered)
	return nil
}

// refresh reads the file again where it has changed. The caller holds mu.
func (u *users) refresh(now time.Time) {
	if now.Sub(u.looked) < recheckAfter {
		return
	}
	u.looked = now
	info, err := os.Stat(u.path) //nolint:gosec // the operator names the file
	if err == nil && u.stamp == (fileStamp{info.ModTime(), info.Size()}) {
		return
	}
	if err == nil {
		err = u.load()
	}
	if err != nil {
		u.log.Error("auth_file cannot be read again; the former users stay", "error", err)
		return
	}
	u.log.Info("auth_file was read again", "users", len(u.hashes))
}

// check says whether a user's password is right. Where wait is greater than zero it was not looked at: too many wrong
// ones came from that address.
func (u *users) check(ctx context.Context, client netip.Addr, name, password string) (right bool, wait time.Duration) {
	mac := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(mac, "%d:%s:%s", len(name), name, password)
	var id [sha256.Size]byte
	mac.Sum(id[:0])

	now := time.Now()
	u.mu.Lock()
	u.refresh(now)
	if until, ok := u.remembered[id]; ok && now.Before(until) {
		u.mu.Unlock()
		return true, 0
	}
	if f := u.failing[client]; f != nil && now.Before(f.until) {
		u.mu.Unlock()
		return false, f.until.Sub(now)
	}
	hash, known := u.hashes[name]
	if !known {
		hash = u.nobody
	}
	u.mu.Unlock()

	if len(password) > 72 || u.work.Acquire(ctx, 1) != nil { // bcrypt looks at 72 bytes only
		return false, 0
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	u.work.Release(1)
	return u.settle(client, id, known && err == nil), 0
}

// settle remembers how a check ended, and returns that.
func (u *users) settle(client netip.Addr, id [sha256.Size]byte, right bool) bool {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if right {
		delete(u.failing, client)
		if len(u.remembered) >= maxRemembered {
			clear(u.remembered) // all are hashed again once: rarer and cheaper than keeping an order
		}
		u.remembered[id] = now.Add(rememberFor)
		return true
	}
	f := u.failing[client]
	if f == nil {
		if len(u.failing) >= maxFailing {
			for a, old := range u.failing {
				if now.After(old.until.Add(maxBackOff)) {
					delete(u.failing, a)
				}
			}
		}
		if len(u.failing) >= maxFailing {
			clear(u.failing)
		}
		f = &failures{}
		u.failing[client] = f
	}
	f.count++
	if over := f.count - freeFailures; over >= 0 {
		f.until = now.Add(min(maxBackOff, time.Second<<min(over, 10)))
	}
	return false
}

// parseHtpasswd reads the lines of an htpasswd file, "user:hash". Only bcrypt hashes can be used; anything else is an
// error that names the line.
func parseHtpasswd(text string) (map[string][]byte, error) {
	hashes := map[string][]byte{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d: not of the form user:hash", n)
		}
		// Some tools append further fields.
		hash, _, _ = strings.Cut(hash, ":")
		if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > 16 {
			return nil, fmt.Errorf("line %d: the hash of user %q is not bcrypt of a cost up to 16; make it by \"htpasswd -B\"", n, name)
		}
		if _, twice := hashes[name]; twice {
			return nil, fmt.Errorf("line %d: user %q occurs twice", n, name)
		}
		hashes[name] = []byte(hash)
	}
	if len(hashes) == 0 {
		return nil, fmt.Errorf("there is no user in it")
	}
	return hashes, nil
}
