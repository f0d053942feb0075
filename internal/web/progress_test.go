package web

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/units"
)

// browser is what browsers say of themselves in a navigation.
var browser = []string{
	"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Encoding", "gzip",
}

// halves is an origin whose body comes in two halves, the second one when the test lets it.
type halves struct {
	body    []byte
	release chan struct{}
	header  http.Header
	count   chan struct{} // has an element for each request
}

func newHalves(body []byte, header ...string) *halves {
	h := &halves{body: body, release: make(chan struct{}), header: http.Header{}, count: make(chan struct{}, 100)}
	h.header.Set("Content-Type", "application/octet-stream")
	for i := 0; i+1 < len(header); i += 2 {
		h.header.Set(header[i], header[i+1])
	}
	return h
}

func (h *halves) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.count <- struct{}{}
	for name, values := range h.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(h.body)))
	_, _ = w.Write(h.body[:len(h.body)/2])
	_ = http.NewResponseController(w).Flush()
	select {
	case <-h.release:
	case <-r.Context().Done():
		return
	}
	_, _ = w.Write(h.body[len(h.body)/2:])
}

// quickRig is a gateway that shows progress pages soon.
func quickRig(t *testing.T, change ...func(*plan)) *rig {
	t.Helper()
	return newRig(t, append([]func(*plan){func(p *plan) { p.web.HoldTime = units.Duration(50 * time.Millisecond) }}, change...)...)
}

var refreshTo = regexp.MustCompile(`http-equiv="refresh" content="\d+;url=([^"]+)"`)

// wantProgress checks that an answer is a progress page, and returns where it leads.
func wantProgress(t *testing.T, resp *http.Response, body string) string {
	t.Helper()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Lazaret-Kind") != "progress" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("no progress page: %s %v %.300q", resp.Status, resp.Header, body)
	}
	m := refreshTo.FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("the page leads nowhere: %s", body)
	}
	return strings.ReplaceAll(m[1], "&amp;", "&")
}

// follow goes on as a browser without JavaScript does, until something else than a progress page comes that is to be refreshed.
func follow(t *testing.T, c *http.Client, base, next string) (*http.Response, string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, body := get(t, c, base+next, browser...)
		if resp.Header.Get("X-Lazaret-Kind") != "progress" {
			return resp, body
		}
		next = wantProgress(t, resp, body)
	}
	t.Fatal("the download does not come to an end")
	return nil, ""
}

func TestProgressPageTurnsIntoTheDownload(t *testing.T) {
	for _, proto := range []string{"http", "h1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			r := quickRig(t)
			h := newHalves(noise(4<<20), "Etag", `"x"`)
			var o *httptest.Server
			c := r.client()
			switch proto {
			case "http":
				o = r.origin(h.ServeHTTP)
			case "h1":
				o, c = r.tlsOrigin(h.ServeHTTP), r.client(noHTTP2)
			default:
				o = r.tlsOrigin(h.ServeHTTP)
			}
			resp, body := get(t, c, o.URL+"/big%20file.bin?x=1&y=2", browser...)
			status := wantProgress(t, resp, body)
			if bytes.Contains([]byte(body), h.body[:16]) {
				t.Error("something of the object is in the page")
			}
			eventually(t, "the state is told", func() bool {
				state := map[string]any{}
				_, text := get(t, c, o.URL+status, "Accept", "application/json")
				return json.Unmarshal([]byte(text), &state) == nil && state["phase"] == "fetching" && state["percent"] == 50.0
			})
			c.CloseIdleConnections() // the browser reconnects
			again, body := get(t, c, o.URL+"/big%20file.bin?x=1&y=2", browser...)
			if wantProgress(t, again, body) != status {
				t.Error("a second navigation has a download of its own")
			}
			close(h.release)
			resp, body = follow(t, c, o.URL, status)
			if resp.StatusCode != http.StatusOK || body != string(h.body) || resp.ContentLength != int64(len(h.body)) {
				t.Fatalf("%s, %d bytes", resp.Status, len(body))
			}
			if d := resp.Header.Get("Content-Disposition"); d != `inline; filename="big file.bin"` {
				t.Errorf("Content-Disposition: %s", d)
			}
			if n := len(h.count); n != 1 {
				t.Errorf("the origin was asked %d times", n)
			}
			r.audit.wait(t, "the page", func(x audit.Record) bool { return x.Event == audit.Exempt && x.Kind == "progress" })
			part, body := get(t, c, resp.Request.URL.String(), "Range", "bytes=10-19")
			if part.StatusCode != http.StatusPartialContent || body != string(h.body[10:20]) {
				t.Errorf("a part of the file: %s %q", part.Status, body)
			}
		})
	}
}

func TestProgressPageOfSomethingInfectedEndsWithTheBlockPage(t *testing.T) {
	r := quickRig(t)
	h := newHalves(append(noise(4<<20), eicarText()...), "Content-Disposition", `attachment; filename="x.bin"`)
	o := r.tlsOrigin(h.ServeHTTP)
	c := r.client()
	resp, body := get(t, c, o.URL+"/x", browser...)
	status := wantProgress(t, resp, body)
	close(h.release)
	resp, body = follow(t, c, o.URL, status)
	wantPage(t, resp, body, http.StatusForbidden, notice.Infected)
	file := strings.Replace(status, "?", "/x.bin?", 1)
	resp, body = get(t, c, o.URL+file, browser...)
	wantPage(t, resp, body, http.StatusForbidden, notice.Infected)
	resp, body = get(t, c, o.URL+"/x", browser...)
	wantPage(t, resp, body, http.StatusForbidden, notice.Infected)
	if n := len(h.count); n != 1 {
		t.Errorf("the origin was asked %d times", n)
	}
	if eicarIn(body) {
		t.Error("the virus is in the page")
	}
}

func TestFileIsNotThereBeforeItsVerdict(t *testing.T) {
	r := quickRig(t)
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	c := r.client()
	resp, body := get(t, c, o.URL+"/x", browser...)
	status := wantProgress(t, resp, body)
	resp, _ = get(t, c, o.URL+strings.Replace(status, "?", "/x?", 1))
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != status {
		t.Errorf("%s to %s", resp.Status, resp.Header.Get("Location"))
	}
	close(h.release)
	follow(t, c, o.URL, status)
}

func TestJobIsOneClientsOwn(t *testing.T) {
	r := quickRig(t, func(p *plan) { p.web.AllowClients = append(p.web.AllowClients, Default().AllowClients...) })
	h := newHalves(noise(4 << 20))
	o, other := r.origin(h.ServeHTTP), r.origin(h.ServeHTTP)
	c := r.client()
	resp, body := get(t, c, o.URL+"/x", append([]string{"Cookie", "user=1"}, browser...)...)
	status := wantProgress(t, resp, body)
	token, _, _ := strings.Cut(strings.TrimPrefix(status, progressPrefix), "?")
	if len(token) != 32 {
		t.Errorf("the token %q has not 128 bits", token)
	}
	// Another user behind the same address, by cookie.
	resp, body = get(t, c, o.URL+"/x", append([]string{"Cookie", "user=2"}, browser...)...)
	if wantProgress(t, resp, body) == status {
		t.Error("two users share a download")
	}
	// Another site must not find out by the address.
	resp, _ = get(t, c, other.URL+status)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/x" {
		t.Errorf("through another site: %s", resp.Status)
	}
	// Another client.
	x := &exchange{s: r.server, r: httptest.NewRequest(http.MethodGet, "/", http.NoBody)}
	x.scheme = "http"
	u, _ := url.Parse(o.URL)
	x.to, _ = parseAuthority(u.Host, 80)
	x.facts.Client = r.server.jobs.byToken[token].client
	if r.server.jobs.find(token, x) == nil {
		t.Fatal("the client itself does not find its download: nothing is tested")
	}
	x.facts.Client = x.facts.Client.Next()
	if r.server.jobs.find(token, x) != nil {
		t.Error("another client finds the download")
	}
	close(h.release)
	follow(t, c, o.URL, status)
}

func TestUnknownTokenLeadsBackToTheDownload(t *testing.T) {
	r := newRig(t)
	o := r.origin(func(http.ResponseWriter, *http.Request) { t.Error("the origin is asked") })
	c := r.client()
	for query, want := range map[string]string{
		"?from=%2Ffile%3Fx%3D1": "/file?x=1", "?from=%2F%2Fevil.example": "", "?from=https%3A%2F%2Fevil.example%2F": "", "": "",
		"?from=%2F%5Cevil.example": "", "?from=%2F.well-known%2Flazaret%2Fx": "", "?from=%2Fa%0d%0aX:+y": "", "?from=%": "",
	} {
		resp, _ := get(t, c, o.URL+progressPrefix+"0123456789abcdef0123456789abcdef/x"+query)
		if got := resp.Header.Get("Location"); got != want || (want == "") != (resp.StatusCode == http.StatusBadRequest) {
			t.Errorf("%q: %s to %q, want %q", query, resp.Status, got, want)
		}
	}
}

// What gets no progress page: everything but navigations, pages, what is small, and what is there in time.
func TestWhatGetsNoProgressPage(t *testing.T) {
	big := noise(4 << 20)
	without := func(names ...string) []string {
		var h []string
		for i := 0; i < len(browser); i += 2 {
			if !strings.Contains(strings.Join(names, " "), browser[i]) {
				h = append(h, browser[i], browser[i+1])
			}
		}
		return h
	}
	for name, tc := range map[string]struct {
		method string
		header []string
		origin []string
		body   []byte
		change func(*plan)
	}{
		"a POST":             {method: http.MethodPost, header: browser},
		"a program":          {header: []string{"Accept", "*/*"}},
		"a picture's":        {header: append(without("Sec-Fetch-Dest", "Sec-Fetch-Mode"), "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image")},
		"a frame's":          {header: append(without("Sec-Fetch-Dest"), "Sec-Fetch-Dest", "iframe")},
		"a part's":           {header: append([]string{"Range", "bytes=0-"}, browser...)},
		"a page":             {header: browser, origin: []string{"Content-Type", "text/html"}},
		"something small":    {header: browser, body: big[:500_000]},
		"switched off":       {header: browser, change: func(p *plan) { p.web.Progress.Enabled = false }},
		"in good time":       {header: browser, change: func(p *plan) { p.web.HoldTime = units.Duration(time.Hour) }},
		"no room for a page": {header: browser, change: func(p *plan) { p.web.Progress.Client = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			r := quickRig(t)
			if tc.change != nil {
				set := *r.server.settings.Load()
				p := plan{web: set.Config}
				p.web.HoldTime = units.Duration(50 * time.Millisecond)
				tc.change(&p)
				set.Config = p.web
				r.server.settings.Store(&set)
			}
			if tc.body == nil {
				tc.body = big
			}
			h := newHalves(tc.body, tc.origin...)
			o := r.origin(h.ServeHTTP)
			time.AfterFunc(300*time.Millisecond, func() { close(h.release) })
			method := tc.method
			if method == "" {
				method = http.MethodGet
			}
			resp, body := do(t, r.client(), method, o.URL+"/x", nil, tc.header...)
			if resp.Header.Get("X-Lazaret-Kind") != "" || body != string(tc.body) {
				t.Errorf("%s %q, %d bytes", resp.Status, resp.Header.Get("X-Lazaret-Kind"), len(body))
			}
			if all, _ := r.server.jobs.count(); all != 0 {
				t.Errorf("%d jobs are left", all)
			}
		})
	}
}

func TestHTTPNavigationIsToldByWhatItAccepts(t *testing.T) {
	r := quickRig(t)
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	resp, body := get(t, r.client(), o.URL+"/x", "Accept", "text/html,*/*;q=0.8", "User-Agent", "Mozilla/5.0 (X11)")
	wantProgress(t, resp, body)
	close(h.release)
	for ua, accept := range map[string]string{
		"Java/21.0.2": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
		"Wget/2.1.0":  "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
		"Mozilla/5.0": "*/*",
	} {
		req := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		req.Header.Set("Accept", accept)
		req.Header.Set("User-Agent", ua)
		if navigates(req) {
			t.Errorf("%s is taken for somebody who looks at pages", ua)
		}
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Upgrade-Insecure-Requests", "1")
		if !navigates(req) {
			t.Errorf("%s is not taken for a browser", ua)
		}
	}
}

func TestJobsAreBounded(t *testing.T) {
	r := quickRig(t, func(p *plan) { p.web.Progress.Client = 2 })
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	c := r.client()
	for _, path := range []string{"/a", "/b"} {
		resp, body := get(t, c, o.URL+path, browser...)
		wantProgress(t, resp, body)
	}
	resp, err := request(t, c, o.URL+"/c", browser...)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("X-Lazaret-Kind") != "" {
		t.Error("a third page is shown")
	}
	close(h.release)
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, h.body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestJobThatNobodyAsksForEnds(t *testing.T) {
	r := quickRig(t, func(p *plan) { p.web.Progress.Idle = units.Duration(200 * time.Millisecond) })
	gone := make(chan struct{})
	o := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(noise(4 << 20))
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
		close(gone)
	})
	resp, body := get(t, r.client(), o.URL+"/x", browser...)
	status := wantProgress(t, resp, body)
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the origin is still being read")
	}
	eventually(t, "nothing is held any more", func() bool { return r.pool.Usage().Disk == 0 })
	resp, _ = get(t, r.client(), o.URL+status)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/x" {
		t.Errorf("%s to %s", resp.Status, resp.Header.Get("Location"))
	}
}

func TestFileExpires(t *testing.T) {
	r := quickRig(t, func(p *plan) { p.web.Progress.Keep, p.web.RangeCacheSize = units.Duration(200*time.Millisecond), 0 })
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	resp, body := get(t, r.client(), o.URL+"/x", browser...)
	wantProgress(t, resp, body)
	if all, _ := r.server.jobs.count(); all != 1 {
		t.Fatal("there is no job: nothing is tested")
	}
	close(h.release)
	eventually(t, "the file is given up", func() bool {
		all, ready := r.server.jobs.count()
		return all == 0 && ready == 0 && r.pool.Usage().Disk == 0
	})
}

func TestReadyFilesAreBoundedInSize(t *testing.T) {
	r := quickRig(t, func(p *plan) { p.web.Progress.Size = 6 * units.MiB })
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	c := r.client()
	var pages []string
	for _, path := range []string{"/a", "/b"} {
		resp, body := get(t, c, o.URL+path, browser...)
		pages = append(pages, wantProgress(t, resp, body))
	}
	close(h.release)
	eventually(t, "one of two files is left", func() bool {
		all, ready := r.server.jobs.count()
		return all == 1 && ready == 1
	})
	if pages[0] == pages[1] {
		t.Error("two downloads share a page")
	}
}

func TestClientThatLeavesBeforeThePageEndsTheJob(t *testing.T) {
	r := newRig(t)
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	c := r.dial().send("GET " + o.URL + "/x HTTP/1.1\r\nHost: x\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n")
	eventually(t, "a job is begun", func() bool { all, _ := r.server.jobs.count(); return all == 1 })
	c.Close()
	eventually(t, "it is ended", func() bool { all, _ := r.server.jobs.count(); return all == 0 && r.pool.Usage().Disk == 0 })
}

func TestCookiesOfTheSiteStayWithTheirUser(t *testing.T) {
	r := quickRig(t)
	h := newHalves(noise(4<<20), "Set-Cookie", "got=it")
	o := r.origin(h.ServeHTTP)
	c := r.client()
	c.Jar, _ = cookiejar.New(nil)
	resp, body := get(t, c, o.URL+"/x", browser...)
	status := wantProgress(t, resp, body)
	close(h.release)
	resp, _ = follow(t, c, o.URL, status)
	if resp.Header.Get("Set-Cookie") != "got=it" {
		t.Errorf("the site's cookie is lost: %v", resp.Header)
	}
}

// The origin's connection goes with the download: what the browser asks for meanwhile, over the same connection, must not wait.
func TestBrowserGoesOnWhileItsDownloadIsFetched(t *testing.T) {
	r := quickRig(t)
	h := newHalves(noise(4 << 20))
	o := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/page" {
			_, _ = io.WriteString(w, "a page")
			return
		}
		h.ServeHTTP(w, req)
	})
	hostport := o.Listener.Addr().String()
	c := r.connect(hostport)
	c.send("GET /x HTTP/1.1\r\nHost: " + hostport + "\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nAccept: text/html\r\n\r\n")
	resp, body := c.response(http.MethodGet)
	status := wantProgress(t, resp, body)
	c.send("GET /page HTTP/1.1\r\nHost: " + hostport + "\r\n\r\n")
	if resp, body := c.response(http.MethodGet); resp.StatusCode != http.StatusOK || body != "a page" {
		t.Errorf("%s %q", resp.Status, body)
	}
	c.Close() // the download does not mind
	close(h.release)
	if resp, body := follow(t, r.client(), o.URL, status); resp.StatusCode != http.StatusOK || body != string(h.body) {
		t.Errorf("%s, %d bytes", resp.Status, len(body))
	}
}
