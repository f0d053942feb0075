package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// errNobodyAsks is why a job was ended whose page is not there any more.
var errNobodyAsks = errors.New("nobody has asked for the progress of the download for a while")

// job fetches and judges one download that a progress page is about.
type job struct {
	set    *settings
	token  string
	key    jobKey
	client netip.Addr
	site   string
	target string // the path and query that were asked for
	name   string
	url    string
	cancel context.CancelCauseFunc

	total   int64 // as it comes; -1: not known
	raw     atomic.Int64
	part    atomic.Pointer[gate.Partial]
	judging atomic.Bool

	done chan struct{} // closed at the end; what follows is set before, and not changed after
	// object and resp are what may be had; nil: notice says why not.
	object *scan.Object
	resp   *http.Response // its header is that of the file; its body has been read
	notice notice.Notice

	// These are under the lock of jobs.
	expiry  *time.Timer
	shown   bool // there is a page about it
	dropped bool
	since   time.Time // it is ready
}

// startJob begins a job where a browser navigates to something that may be large, and is no page itself; else it returns nil.
func (c *call) startJob(ctx context.Context, resp *http.Response, in gate.Intake, codings []string, decode bool) *job {
	length := int64(-1)
	if len(codings) == 0 {
		length = resp.ContentLength
	}
	saved := strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Disposition")), "attachment")
	main, _, _ := strings.Cut(c.facts.Type, "/")
	switch {
	case !c.set.Progress.Enabled || c.unbind == nil || !navigates(c.r) || resp.StatusCode != http.StatusOK:
		return nil
	case length >= 0 && length <= int64(c.set.HoldSize):
		return nil
	case !saved && (c.facts.Type == "" || mannerOf(c.facts.Type) == nothing):
		return nil // a page: it is shown when it has been judged
	case !saved && length < 0 && (main == "audio" || main == "video"):
		return nil // it may have no end
	case c.passesBeyond(c.facts, in) && (length < 0 || length > in.Limit):
		return nil // it could be larger than what can be kept
	}
	j := &job{
		set: c.set, key: c.jobKey(), client: c.facts.Client, site: c.site(), target: c.path, name: in.Name, url: c.facts.URL,
		cancel: c.cancel, total: resp.ContentLength, done: make(chan struct{}),
	}
	if !c.s.jobs.add(j) {
		return nil
	}
	c.unbind() // await watches the client from here on
	c.s.wg.Go(func() { j.run(ctx, c, resp, in, codings, decode) })
	return j
}

// run fetches the object and has it judged.
func (j *job) run(ctx context.Context, c *call, resp *http.Response, in gate.Intake, codings []string, decode bool) {
	defer close(j.done)
	defer j.cancel(nil)
	defer func() {
		if p := recover(); p != nil {
			j.notice = c.s.opt.Gate.Refuse(c.facts, notice.Internal, "", fmt.Sprintf("panic: %v", p))
			c.s.opt.Log.Error("a download made the proxy panic", "reference", j.notice.Reference, "panic", p, "stack", string(debug.Stack()))
			c.s.jobs.forget(j)
		}
	}()
	defer resp.Body.Close() //nolint:errcheck // what was left of it is of no interest
	in.Growing = func(p gate.Partial) { j.part.Store(&p) }
	o, n, ok := c.fetch(ctx, countingReader{resp.Body, &j.raw}, resp, in, codings, decode, func() { j.judging.Store(true) })
	if !ok {
		j.notice = n
		if c.s.jobs.forget(j); c.s.jobs.isShown(j) {
			c.s.stopped.remember(c.exchange, n)
		}
		return
	}
	j.object, j.resp = o, resp
	if !c.s.jobs.finish(j) {
		j.object = nil
		_ = o.Body.Close() // room is given back; nothing is lost with it
		j.notice = c.s.opt.Gate.Refuse(c.facts, notice.BadRequest, errNobodyAsks.Error(), "")
	}
}

// fetch takes the content of an answer, which is body, has it judged and kept, and returns the object, or why it is not to be had.
// It calls judging when the content has come.
func (c *call) fetch(ctx context.Context, body io.Reader, resp *http.Response, in gate.Intake, codings []string, decode bool, judging func()) (*scan.Object, notice.Notice, bool) {
	o, more, err := c.take(ctx, body, in)
	defer more.close()
	if err != nil {
		kind, fault := brokenOff(ctx, &err)
		return nil, c.s.opt.Gate.Refuse(c.facts, kind, fault, err.Error()), false
	}
	judging()
	if decode {
		decodedHeaders(resp, codings)
		codings = nil
	}
	n, ok := c.judgeBothWays(ctx, c.facts, o, in, codings)
	if !ok {
		if o.Body != nil {
			_ = o.Body.Close() // room is given back; nothing is lost with it
		}
		return nil, n, false
	}
	delete(resp.Header, "Content-Length")
	c.keepForRanges(resp, o, in, codings)
	return o, n, true
}

// countingReader counts what is read.
type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

// large says whether the job is about more than hold_size, as far as is known.
func (j *job) large() bool {
	if j.raw.Load() > int64(j.set.HoldSize) || j.total > int64(j.set.HoldSize) {
		return true
	}
	p := j.part.Load()
	return p != nil && (*p).Size() > int64(j.set.HoldSize)
}

// progress returns what a page shows of the job.
func (j *job) progress() notice.Progress {
	address := progressPrefix + j.token
	p := notice.Progress{
		Phase: notice.Fetching, Name: j.name, URL: j.url, Fetched: j.raw.Load(), Total: j.total, Status: address + "?from=" + escapeFrom(j.target),
	}
	switch {
	case closed(j.done):
		p.Phase, p.File = notice.Ready, address+"/"+escapeName(j.name)+"?from="+escapeFrom(j.target)
	case j.judging.Load():
		p.Phase = notice.Checking
	}
	return p
}

// await answers the request of the navigation that j was begun for: by the object, where it is judged in time, else by the
// progress page, and the job goes on without the request.
func (c *call) await(ctx context.Context, j *job) {
	patience := c.set.HoldTime.Std()
	timer := time.NewTimer(max(patience-time.Since(c.asked), patience/4))
	defer timer.Stop()
	for {
		select {
		case <-j.done:
			c.deliverJob(j)
			return
		case <-c.r.Context().Done():
			if c.s.jobs.isShown(j) {
				c.detach(ctx) // somebody else waits for it
			} else {
				c.s.jobs.drop(j)
			}
			c.abort()
		case <-timer.C:
		}
		if !j.large() {
			timer.Reset(trickleEvery)
			continue
		}
		c.s.jobs.show(j)
		c.detach(ctx)
		c.s.opt.Gate.Exempt(c.facts, "progress", "not judged within hold_time: the browser gets the progress page, and nothing of the object before its verdict")
		c.showProgress(j)
		return
	}
}

// deliverJob delivers the object of a job that has ended within hold_time.
func (c *call) deliverJob(j *job) {
	defer c.s.jobs.settle(j)
	if j.object == nil {
		if c.r.Context().Err() != nil {
			c.abort() // nobody is there to be told
		}
		c.page(j.notice)
		return
	}
	o, ok := c.s.jobs.use(j)
	if !ok {
		c.page(c.s.opt.Gate.Refuse(c.facts, notice.Overload, "the download was given up for lack of room", ""))
		return
	}
	defer o.Body.Close() //nolint:errcheck // room is given back; nothing is lost with it
	c.deliver(j.resp, j.resp.Header.Clone(), o)
}
