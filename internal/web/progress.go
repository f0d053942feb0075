package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Browsers that ask for something large in a navigation get a page that shows how far it is: a job fetches it and has it judged
// while the page asks again and again, and at the end the page leads to the file. Nothing of the object is in the page. See
// docs/decisions/0010-holding-without-waiting.md.

// progressPrefix begins the paths, in the site's own origin, that belong to jobs: a page served by https may not lead to a
// download by http, and has no other name that the browser would trust. The path is of the kind that RFC 8615 reserves.
const progressPrefix = "/.well-known/lazaret/"

// jobKey says which navigations are for the same download: by one client, with the same credentials.
type jobKey struct {
	client, user, url string
	credentials       [sha256.Size]byte
}

func (x *exchange) jobKey() jobKey {
	sum := sha256.New()
	for _, name := range []string{"Cookie", "Authorization", "User-Agent"} {
		for _, v := range x.r.Header[name] {
			_, _ = io.WriteString(sum, v+"\x00") // a hash takes everything
		}
		_, _ = io.WriteString(sum, "\x01")
	}
	k := jobKey{client: x.facts.Client.String(), user: x.facts.User, url: x.facts.URL}
	sum.Sum(k.credentials[:0])
	return k
}

// site is the origin, in the sense of browsers, that a job's addresses are in.
func (x *exchange) site() string { return x.scheme + "://" + x.to.short(x.scheme) }

// jobs are the downloads that progress pages are about. It is safe for use by many goroutines.
type jobs struct {
	mu      sync.Mutex
	byToken map[string]*job
	byKey   map[jobKey]*job
	each    map[netip.Addr]int
	ready   []*job // those that have a file, oldest first
	size    int64  // of their files
	closed  bool
}

func newJobs() *jobs {
	return &jobs{byToken: map[string]*job{}, byKey: map[jobKey]*job{}, each: map[netip.Addr]int{}}
}

// add takes j in, gives it its token, and says whether there was room.
func (p *jobs) add(j *job) bool {
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails: crypto/rand ends the process rather than return an error
	p.mu.Lock()
	defer p.mu.Unlock()
	client := counted(j.client)
	if p.closed || len(p.byToken) >= j.set.Progress.Jobs || p.each[client] >= j.set.Progress.Client || p.byKey[j.key] != nil {
		return false
	}
	j.token = hex.EncodeToString(token[:])
	p.byToken[j.token], p.byKey[j.key] = j, j
	p.each[client]++
	j.expiry = time.AfterFunc(j.set.Progress.Idle.Std(), func() { p.drop(j) })
	j.expiry.Stop() // until a page is shown, the request that it was begun for waits, and drops it
	return true
}

// drop gives a job up, whatever state it is in. It may be called more than once.
func (p *jobs) drop(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked(j)
}

func (p *jobs) dropLocked(j *job) {
	if p.byToken[j.token] != j {
		return
	}
	delete(p.byToken, j.token)
	p.forgetLocked(j)
	client := counted(j.client)
	if p.each[client]--; p.each[client] <= 0 {
		delete(p.each, client)
	}
	for i, r := range p.ready {
		if r == j {
			p.ready = append(p.ready[:i:i], p.ready[i+1:]...)
			p.size -= j.object.Body.Size()
			_ = j.object.Body.Close() // room is given back; nothing is lost with it
			break
		}
	}
	j.expiry.Stop()
	j.dropped = true
	j.cancel(errNobodyAsks)
}

// forgetLocked keeps later navigations from joining j.
func (p *jobs) forgetLocked(j *job) {
	if p.byKey[j.key] == j {
		delete(p.byKey, j.key)
	}
}

// forget is forgetLocked for a job whose file was fetched, or which has failed: who asks again starts anew.
func (p *jobs) forget(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(j)
}

// finish notes that j has an object, which it owns from now on, and makes room. It says false where nobody wants it any more.
func (p *jobs) finish(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.dropped {
		return false
	}
	j.since = time.Now()
	p.ready = append(p.ready, j)
	p.size += j.object.Body.Size()
	for len(p.ready) > 1 && p.size > int64(j.set.Progress.Size) {
		p.dropLocked(p.ready[0])
	}
	j.expiry.Reset(j.set.Progress.Keep.Std())
	return true
}

// unfetched is how long a file that is ready is kept from those who need room, although nobody fetches it: pages do at once.
const unfetched = 30 * time.Second

// shrink gives up the oldest file that was fetched already, or was not for a while, because the spool needs room, and says
// whether there was one.
func (p *jobs) shrink() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range p.ready {
		if p.byKey[j.key] != j || time.Since(j.since) > unfetched {
			p.dropLocked(j)
			return true
		}
	}
	return false
}

// find returns the job of a token, nil where there is none or it is somebody else's.
func (p *jobs) find(token string, x *exchange) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.byToken[token]
	if j == nil || j.client != x.facts.Client || j.key.user != x.facts.User || j.site != x.site() {
		return nil
	}
	p.askedLocked(j)
	return j
}

// join returns the job that fetches what x asks for, nil where there is none.
func (p *jobs) join(x *exchange) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.byKey) == 0 {
		return nil
	}
	j := p.byKey[x.jobKey()]
	if j != nil {
		j.shown = true
		p.askedLocked(j)
	}
	return j
}

// askedLocked notes that somebody still waits for j, or uses it.
func (p *jobs) askedLocked(j *job) {
	if closed(j.done) {
		j.expiry.Reset(j.set.Progress.Keep.Std())
	} else {
		j.expiry.Reset(j.set.Progress.Idle.Std())
	}
}

// show notes that a page about j is being shown.
func (p *jobs) show(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j.shown = true
	p.askedLocked(j)
}

// settle drops j, which is at its end, unless a page about it is being shown.
func (p *jobs) settle(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !j.shown {
		p.dropLocked(j)
	}
}

// isShown says whether a page about j is being shown.
func (p *jobs) isShown(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return j.shown
}

// Downloads returns how many downloads progress pages are about: those that are being fetched or judged, and those whose file is
// ready.
func (s *Server) Downloads() (fetching, ready int) {
	all, ready := s.jobs.count()
	return all - ready, ready
}

// count returns how many jobs there are, and how many of them have their file ready.
func (p *jobs) count() (all, ready int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byToken), len(p.ready)
}

// close gives all jobs up, and takes no more.
func (p *jobs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, j := range p.byToken {
		p.dropLocked(j)
	}
}

// navigates says whether a request is made by a browser that shows what it gets as a page: Sec-Fetch-Mode and Sec-Fetch-Dest
// (Fetch Metadata), or, by http where browsers do not send them, what it accepts and what it says it is. Programs that save what they get
// accept text/html, too (Java's own client, wget2), but do not call themselves browsers.
func navigates(r *http.Request) bool {
	h := r.Header
	if r.Method != http.MethodGet || len(h["Range"]) > 0 || len(h["If-Range"]) > 0 || upgradeOf(h) != "" {
		return false
	}
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate" && h.Get("Sec-Fetch-Dest") == "document"
	}
	return strings.Contains(strings.ToLower(h.Get("Accept")), "text/html") &&
		(strings.HasPrefix(h.Get("User-Agent"), "Mozilla/") || h.Get("Upgrade-Insecure-Requests") == "1")
}
