package web

import (
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// use returns the object of a job that is ready, which the caller closes, and whether it is still there.
func (p *jobs) use(j *job) (*scan.Object, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.dropped || j.object == nil {
		return nil, false
	}
	return &scan.Object{Body: j.object.Body.Retain(), Name: j.object.Name, Type: j.object.Type}, true
}

// ofProgress serves what progress pages are about, and says whether the request was one for that: a page's addresses, or a
// navigation to what is being fetched already.
func (x *exchange) ofProgress() bool {
	if rest, ok := strings.CutPrefix(x.path, progressPrefix); ok {
		x.progressAddress(rest)
		return true
	}
	if !x.set.Progress.Enabled || !navigates(x.r) {
		return false
	}
	j := x.s.jobs.join(x)
	if j == nil {
		return false
	}
	x.showProgress(j)
	return true
}

// progressAddress serves an address below progressPrefix: TOKEN for the state, TOKEN/NAME for the file.
func (x *exchange) progressAddress(rest string) {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.refuse(notice.NotSupported, "only GET and HEAD are possible there", "")
		return
	}
	rest, query, _ := strings.Cut(rest, "?")
	token, _, file := strings.Cut(rest, "/")
	j := x.s.jobs.find(token, x)
	if j == nil {
		// It has expired, or the gateway was started anew: the download begins anew.
		if from, ok := fromOf(query); ok {
			x.seeOther(from)
			return
		}
		x.refuse(notice.BadRequest, "this download is not there any more: begin it anew", "an unknown token, or another client's")
		return
	}
	switch {
	case !file:
		x.showProgress(j)
	case !closed(j.done):
		x.seeOther(j.progress().Status)
	case j.object == nil:
		x.page(j.notice)
	default:
		x.file(j)
	}
}

// fromOf returns the path that an expired address was made for. It must be one of the same site.
func fromOf(query string) (string, bool) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return "", false
	}
	from := v.Get("from")
	if !strings.HasPrefix(from, "/") || strings.HasPrefix(from, progressPrefix) || strings.ContainsFunc(from, func(r rune) bool { return r <= ' ' || r == '\\' || r >= 0x7f }) {
		return "", false
	}
	return from, !strings.HasPrefix(from, "//")
}

func escapeFrom(target string) string { return url.QueryEscape(target) }

// escapeName returns a file's name as the last element of a path.
func escapeName(name string) string {
	if name == "" || name == "." || name == ".." {
		name = "download"
	}
	return url.PathEscape(name)
}

// seeOther leads to another address of the same site.
func (x *exchange) seeOther(target string) {
	h := x.w.Header()
	h.Set("Location", target)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", "0")
	x.sendHead(http.StatusSeeOther)
}

// showProgress answers with the page about j, or with what has become of it.
func (x *exchange) showProgress(j *job) {
	if closed(j.done) && j.object == nil {
		x.page(j.notice)
		return
	}
	x.respond(x.s.opt.Pages.Progress(x.r.Header.Get("Accept"), x.r.Header.Get("Accept-Language"), j.progress()))
}

// file delivers the file of a job that is ready.
func (x *exchange) file(j *job) {
	o, ok := x.s.jobs.use(j)
	if !ok {
		x.seeOther(j.target)
		return
	}
	defer o.Body.Close() //nolint:errcheck // room is given back; nothing is lost with it
	x.s.jobs.forget(j)
	h := j.resp.Header.Clone()
	delete(h, "Trailer")
	h.Set("Cache-Control", "private, no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address is a secret
	if h.Get("Content-Disposition") == "" {
		h.Set("Content-Disposition", disposition(j.name))
	}
	c := &call{exchange: x}
	if x.r.Method == http.MethodHead {
		h["Content-Length"] = []string{strconv.FormatInt(o.Body.Size(), 10)}
		c.deliverHead(j.resp, h)
		return
	}
	c.prepareHead(j.resp, h)
	c.slice(j.resp, o)
	x.s.jobs.find(j.token, x) // its time begins anew
}

// disposition returns a Content-Disposition that leaves it to the browser whether the file is shown or saved, as without one, and
// names it as the address would that was asked for (RFC 6266).
func disposition(name string) string {
	if name == "" {
		return "inline"
	}
	if d := mime.FormatMediaType("inline", map[string]string{"filename": name}); d != "" {
		return d
	}
	return "inline"
}
