package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// filed is an origin of one file, which counts how often the file was sent.
type filed struct {
	t       *testing.T
	mu      sync.Mutex
	content []byte
	header  map[string]string
	gate    chan struct{} // where not nil, content waits for it
	whole   atomic.Int32
	asked   atomic.Int32 // whether it is the same
}

func newFiled(t *testing.T, content []byte, header ...string) *filed {
	f := &filed{t: t, content: content, header: map[string]string{"Etag": `"v1"`}}
	for i := 0; i+1 < len(header); i += 2 {
		f.header[header[i]] = header[i+1]
	}
	return f
}

func (f *filed) set(content []byte, tag string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content, f.header["Etag"] = content, tag
}

func (f *filed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if v := r.Header.Get("Range") + r.Header.Get("If-Range"); v != "" {
		f.t.Errorf("the origin was asked for %q", v)
	}
	f.mu.Lock()
	content := f.content
	for name, v := range f.header {
		if v != "" {
			w.Header().Set(name, v)
		}
	}
	f.mu.Unlock()
	if r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since") != "" {
		f.asked.Add(1)
	}
	cw := &countedWriter{ResponseWriter: w}
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-r.Context().Done():
			return
		}
	}
	http.ServeContent(cw, r, "", modifiedOf(w.Header()), bytes.NewReader(content))
	if cw.status == http.StatusOK {
		f.whole.Add(1)
	}
}

func modifiedOf(h http.Header) time.Time {
	t, _ := http.ParseTime(h.Get("Last-Modified"))
	return t
}

// countedWriter notes the status.
type countedWriter struct {
	http.ResponseWriter
	status int
}

func (w *countedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// from has a client's connections come from another address.
func from(addr string) func(*http.Transport) {
	return func(tr *http.Transport) {
		tr.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext
	}
}

// wantPart checks a range of content.
func wantPart(t *testing.T, resp *http.Response, body string, content []byte, first, last int) {
	t.Helper()
	if resp.StatusCode != http.StatusPartialContent || body != string(content[first:last+1]) {
		t.Errorf("%s, %d bytes (%.60q); want bytes %d to %d", resp.Status, len(body), body, first, last)
	}
}

const storedSize = 1 << 20

func TestFurtherRangesComeFromTheStore(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t)
	for name, start := range map[string]func(*filed) string{
		"http":  func(f *filed) string { return r.origin(f.ServeHTTP).URL },
		"https": func(f *filed) string { return r.tlsOrigin(f.ServeHTTP).URL },
	} {
		f := newFiled(t, content, "Content-Type", "video/x-test", "Set-Cookie", "a=b")
		u, c := start(f), r.client()
		for _, at := range []int{0, 500_000, 1000, storedSize - 100} {
			resp, body := get(t, c, u+"/f", "Range", fmt.Sprintf("bytes=%d-%d", at, at+99))
			wantPart(t, resp, body, content, at, at+99)
			if resp.Header.Get("Etag") != `"v1"` || resp.Header.Get("Content-Type") != "video/x-test" || len(resp.Header["Set-Cookie"]) != 1 {
				t.Errorf("%s: %v", name, resp.Header)
			}
		}
		resp, _ := get(t, c, u+"/f", "Range", fmt.Sprintf("bytes=%d-", storedSize))
		if resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || resp.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", storedSize) {
			t.Errorf("%s: beyond the end: %s %v", name, resp.Status, resp.Header)
		}
		if resp, body := get(t, c, u+"/f", "Range", "bytes=5-9", "If-Range", `"v0"`); resp.StatusCode != http.StatusOK || body != string(content) {
			t.Errorf("%s: another version's part: %s, %d bytes", name, resp.Status, len(body))
		}
		if f.whole.Load() != 1 || f.asked.Load() != 5 {
			t.Errorf("%s: the file came %d times, and was asked about %d times; want 1 and 5", name, f.whole.Load(), f.asked.Load())
		}
		f.set(seq(storedSize)[7:], `"v2"`)
		resp, body := get(t, c, u+"/f", "Range", "bytes=0-99")
		wantPart(t, resp, body, seq(storedSize)[7:], 0, 99)
		if resp.Header.Get("Etag") != `"v2"` || f.whole.Load() != 2 {
			t.Errorf("%s: after a change: %v, the file came %d times", name, resp.Header, f.whole.Load())
		}
	}
	if n, size := r.server.store.usage(); n != 2 || size != 2*(storedSize-7) {
		t.Errorf("the store has %d objects of %d bytes", n, size)
	}
}

func TestWhatIsKeptFromWhom(t *testing.T) {
	content := seq(storedSize)
	date := time.Now().UTC()
	for _, x := range []struct {
		name   string
		header []string // of the answer
		second []string // fields of the second request that the first has not
		other  bool     // the second comes from another address
		times  int32    // that the file comes
	}{
		{"the same client", nil, nil, false, 1},
		{"another client", nil, nil, true, 2},
		{"another client, public", []string{"Cache-Control", "max-age=5, Public"}, nil, true, 1},
		{"another client, public but with a cookie", []string{"Cache-Control", "public", "Set-Cookie", "a=b"}, nil, true, 2},
		{"another client, public and private", []string{"Cache-Control", "public, private"}, nil, true, 2},
		{"with a cookie", nil, []string{"Cookie", "a=b"}, false, 2},
		{"with a password", nil, []string{"Authorization", "Basic eDp5"}, false, 2},
		{"another language, no Vary", nil, []string{"Accept-Language", "fr"}, false, 1},
		{"another language, Vary", []string{"Vary", "accept-encoding, Accept-Language"}, []string{"Accept-Language", "fr"}, false, 2},
		{"Vary: *", []string{"Vary", "*"}, nil, false, 2},
		{"no-store", []string{"Cache-Control", "no-store"}, nil, false, 2},
		{"no-store of the client", nil, []string{"Cache-Control", "no-store"}, false, 2},
		{"weak validator", []string{"Etag", `W/"v1"`}, nil, false, 2},
		{"no validator", []string{"Etag", ""}, nil, false, 2},
		{"old date", []string{"Etag", "", "Last-Modified", date.Add(-time.Hour).Format(http.TimeFormat)}, nil, false, 1},
		{"new date", []string{"Etag", "", "Last-Modified", date.Format(http.TimeFormat)}, nil, false, 2},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t)
			f := newFiled(t, content, x.header...)
			u := r.origin(f.ServeHTTP).URL
			c := r.client()
			resp, body := get(t, c, u, "Range", "bytes=0-9")
			wantPart(t, resp, body, content, 0, 9)
			if x.other {
				c = r.client(from("127.0.0.2"))
			}
			resp, body = get(t, c, u, append([]string{"Range", "bytes=5-"}, x.second...)...)
			wantPart(t, resp, body, content, 5, storedSize-1)
			if got := f.whole.Load(); got != x.times {
				t.Errorf("the file came %d times, want %d", got, x.times)
			}
		})
	}
}

func TestParallelRangesFetchOnce(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t)
	f := newFiled(t, content)
	f.gate = make(chan struct{})
	u := r.origin(f.ServeHTTP).URL
	var wg sync.WaitGroup
	const parts = 16
	for i := range parts {
		wg.Go(func() {
			first, last := i*storedSize/parts, (i+1)*storedSize/parts-1
			resp, body := get(t, r.client(), u, "Range", fmt.Sprintf("bytes=%d-%d", first, last))
			wantPart(t, resp, body, content, first, last)
		})
	}
	eventually(t, "all of them are there", func() bool { return r.server.Stats().Connections == parts })
	close(f.gate)
	wg.Wait()
	if n := f.whole.Load(); n != 1 {
		t.Errorf("the file came %d times", n)
	}
}

func TestClientThatFetchesForOthersLeaves(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t)
	f := newFiled(t, content)
	f.gate = make(chan struct{})
	u := r.origin(f.ServeHTTP).URL
	first := r.dial().send("GET " + u + "/ HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n")
	flights := func() int {
		r.server.store.mu.Lock()
		defer r.server.store.mu.Unlock()
		return len(r.server.store.flights)
	}
	eventually(t, "the first asks the origin", func() bool { return flights() == 1 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, body := get(t, r.client(), u+"/", "Range", "bytes=10-19")
		wantPart(t, resp, body, content, 10, 19)
	}()
	eventually(t, "the second is there", func() bool { return r.server.Stats().Connections == 2 })
	first.Close()
	close(f.gate)
	<-done
	if flights() != 0 {
		t.Error("somebody would wait for ever")
	}
}

func TestNobodyWaitsForWhatCannotBeKept(t *testing.T) {
	r := newRig(t)
	f := newFiled(t, []byte("not there"), "Etag", "")
	f.gate = make(chan struct{})
	u := r.origin(f.ServeHTTP).URL
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			resp, body := get(t, r.client(), u, "Range", "bytes=0-2")
			wantPart(t, resp, body, []byte("not"), 0, 2)
		})
	}
	eventually(t, "all of them are there", func() bool { return r.server.Stats().Connections == 8 })
	close(f.gate)
	wg.Wait()
	if n, _ := r.server.store.usage(); n != 0 || f.whole.Load() != 8 {
		t.Errorf("%d are kept, the file came %d times", n, f.whole.Load())
	}
}

func TestStoredObjectIsJudgedByTodaysSignatures(t *testing.T) {
	content := append(seq(storedSize), "tomorrow's virus"...)
	engine := scantest.Finds("test", "New", []byte("today's virus"))
	r := newRig(t, func(p *plan) { p.engine = engine })
	f := newFiled(t, content)
	u := r.origin(f.ServeHTTP).URL
	c := r.client()
	resp, body := get(t, c, u, "Range", "bytes=0-9")
	wantPart(t, resp, body, content, 0, 9)
	calls := engine.Calls()
	resp, body = get(t, c, u, "Range", "bytes=10-19")
	wantPart(t, resp, body, content, 10, 19)
	if calls == 0 || engine.Calls() != calls {
		t.Errorf("%d scans, then %d: what was judged is to be remembered", calls, engine.Calls())
	}
	newer := scantest.Finds("test", "New", []byte("tomorrow's virus")).SetVersion(scan.Version{Engine: "test 1", Signatures: "2"})
	r.gate.Use(scan.NewSet(scan.Member{Scanner: newer, Required: true}), r.plan.policy, false)
	resp, body = get(t, c, u, "Range", "bytes=20-29")
	wantPage(t, resp, body, 403, notice.Infected)
	if f.whole.Load() != 1 {
		t.Error("the file came again: the store was not tested")
	}
	// Policy decides anew, too.
	r.gate.Use(scan.NewSet(scan.Member{Scanner: scantest.Fails(io.ErrUnexpectedEOF), Required: true}), r.plan.policy, false)
	resp, body = get(t, c, u, "Range", "bytes=20-29")
	wantPage(t, resp, body, 503, notice.Unavailable)
}

func TestVirusCannotBeFetchedInPiecesFromTheStore(t *testing.T) {
	content := append(seq(storedSize), scan.EICAR()...)
	copy(content[300_000:], scan.EICAR())
	r := newRig(t)
	f := newFiled(t, content)
	for name, u := range map[string]string{"http": r.origin(f.ServeHTTP).URL, "https": r.tlsOrigin(f.ServeHTTP).URL} {
		var wg sync.WaitGroup
		const parts = 8
		for i := range parts {
			wg.Go(func() {
				first, last := i*len(content)/parts, (i+1)*len(content)/parts-1
				for _, header := range [][]string{
					{"Range", fmt.Sprintf("bytes=%d-%d", first, last)},
					{"Range", fmt.Sprintf("bytes=%d-", first)},
					{"Range", fmt.Sprintf("bytes=-%d", last-first+1)},
					{"Range", fmt.Sprintf("bytes=%d-%d,%d-%d", first, first+10, last-10, last)},
					{"Range", fmt.Sprintf("bytes=%d-%d", first, last), "If-Range", `"v1"`},
					{"Range", fmt.Sprintf("bytes=%d-%d", first, last), "If-Range", `"v0"`},
					{"Range", fmt.Sprintf("bytes=%d-%d", first, last), "If-None-Match", `"v0"`},
				} {
					resp, body := get(t, r.client(), u, header...)
					wantPage(t, resp, body, 403, notice.Infected)
				}
			})
		}
		wg.Wait()
		if n, _ := r.server.store.usage(); n != 0 {
			t.Errorf("%s: %d infected objects are kept", name, n)
		}
	}
}

func TestOriginThatConfirmsAnotherVersion(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t)
	var requests atomic.Int32
	u := r.origin(func(w http.ResponseWriter, req *http.Request) {
		requests.Add(1)
		w.Header().Set("Etag", `"v1"`)
		if req.Header.Get("If-None-Match") != "" {
			w.Header().Set("Etag", `"v2"`)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(content)
	}).URL
	for range 2 {
		resp, body := get(t, r.client(), u, "Range", "bytes=0-9")
		wantPart(t, resp, body, content, 0, 9)
	}
	if requests.Load() != 3 {
		t.Errorf("%d requests: it was not asked again", requests.Load())
	}
}

func TestHeaderOf304DoesNotRedescribeTheContent(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t)
	u := r.origin(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Etag", `"v1"`)
		h.Set("Content-Type", "text/plain")
		h.Set("X-Which", "first")
		if req.Header.Get("If-None-Match") != "" {
			h.Set("Content-Type", "application/x-msdownload")
			h.Set("Content-Encoding", "gzip")
			h.Set("Content-Disposition", "attachment; filename=x.exe")
			h.Set("X-Which", "second")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(content)
	}).URL
	_, _ = get(t, r.client(), u, "Range", "bytes=0-9")
	resp, body := get(t, r.client(), u, "Range", "bytes=0-9")
	wantPart(t, resp, body, content, 0, 9)
	h := resp.Header
	if h.Get("Content-Type") != "text/plain" || h.Get("Content-Encoding")+h.Get("Content-Disposition") != "" || h.Get("X-Which") != "second" {
		t.Errorf("%v", h)
	}
}

func TestStoreGivesWay(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t, func(p *plan) {
		p.spool.MaxObject, p.spool.TotalDisk = 3<<20, 3<<20
		p.web.RangeCacheSize = 10 << 20
	})
	f := newFiled(t, content)
	u := r.origin(f.ServeHTTP).URL
	for i := range 10 { // each is kept, three have room
		resp, body := get(t, r.client(), fmt.Sprintf("%s/%d", u, i), "Range", "bytes=0-9")
		wantPart(t, resp, body, content, 0, 9)
	}
	if n, size := r.server.store.usage(); n == 0 || size > 3<<20 {
		t.Errorf("the store has %d objects of %d bytes", n, size)
	}
	set := Default()
	set.RangeCacheSize = storedSize
	if err := r.server.Use(set); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.server.store.usage(); n != 1 {
		t.Errorf("with a smaller limit it has %d objects", n)
	}
	set.RangeCacheTime = units.Duration(time.Millisecond)
	if err := r.server.Use(set); err != nil {
		t.Fatal(err)
	}
	_, _ = get(t, r.client(), u+"/again", "Range", "bytes=0-9")
	eventually(t, "its time is up", func() bool { n, _ := r.server.store.usage(); return n == 0 })
}

func TestDownloadThatBrokeOffIsResumed(t *testing.T) {
	content := seq(24 << 20)
	for _, x := range []struct {
		name string
		args []string
		done int // exit status where everything is there already
	}{
		{"curl", []string{"-sS", "-C", "-", "-o"}, 0},
		{"wget", []string{"-q", "-c", "-O"}, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			path := tool(t, x.name)
			r := newRig(t)
			f := newFiled(t, content)
			u := r.origin(f.ServeHTTP).URL + "/file"
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
			resp, err := r.client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			part := make([]byte, 1<<20)
			_, err = io.ReadFull(resp.Body, part)
			cancel()
			resp.Body.Close()
			file := filepath.Join(t.TempDir(), "file")
			if err != nil || os.WriteFile(file, part, 0o600) != nil {
				t.Fatal(err)
			}
			args := append(append([]string{}, x.args...), file)
			if x.name == "curl" {
				args = append(args, "--proxy", "http://"+r.addr, u)
			} else {
				args = append(args, "-e", "use_proxy=yes", "-e", "http_proxy=http://"+r.addr, u)
			}
			for _, again := range []bool{false, true} {
				if out, status := run(t, path, args...); status != 0 {
					t.Errorf("again %v: %d %s", again, status, out)
				}
				got, err := os.ReadFile(file)
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("again %v: %d bytes, %v", again, len(got), err)
				}
			}
			if f.whole.Load() != 1 || f.asked.Load() == 0 {
				t.Errorf("the file came %d times, and was asked about %d times", f.whole.Load(), f.asked.Load())
			}
		})
	}
}

func TestHeadOfAStoredObject(t *testing.T) {
	content := seq(storedSize)
	r := newRig(t)
	f := newFiled(t, content)
	u := r.origin(f.ServeHTTP).URL
	_, _ = get(t, r.client(), u, "Range", "bytes=0-9")
	resp, body := do(t, r.client(), http.MethodHead, u, nil)
	if resp.StatusCode != http.StatusOK || body != "" || resp.ContentLength != storedSize {
		t.Errorf("%s %d %q", resp.Status, resp.ContentLength, body)
	}
}

func TestEachUseOfTheStoreIsRecorded(t *testing.T) {
	r := newRig(t)
	f := newFiled(t, seq(storedSize))
	u := r.origin(f.ServeHTTP).URL
	for range 3 {
		_, _ = get(t, r.client(), u, "Range", "bytes=0-9")
	}
	var cached []bool
	for _, x := range r.audit.list() {
		if x.Event == audit.Object && strings.HasPrefix(x.Facts.URL, u) && x.Size == storedSize {
			cached = append(cached, x.Cached)
		}
	}
	if fmt.Sprint(cached) != "[false true true]" {
		t.Errorf("%v", cached)
	}
}
