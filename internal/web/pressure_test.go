package web

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/spool"
	"lazaret/internal/units"
	"lazaret/internal/unpack"

	"github.com/andybalholm/brotli"
)

// TestDownloadsWaitForRoom has 200 downloads at the same time want far more of the spool than there is: all of them arrive.
func TestDownloadsWaitForRoom(t *testing.T) {
	const size, total = 1 << 20, 6 << 20
	r := newRig(t, func(p *plan) {
		p.spool.Memory, p.spool.TotalMemory = 16*units.KiB, units.MiB
		p.spool.MaxObject, p.spool.TotalDisk = size, total
		p.egress.MaxDials = 400
		p.web.RangeCacheSize = total // what is kept must not stand in anybody's way
	})
	content := seq(size)
	h := func(w http.ResponseWriter, req *http.Request) {
		if n, _ := strconv.Atoi(req.URL.Path[1:]); n%2 == 0 {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		w.Header().Set("Etag", strconv.Quote(req.URL.Path))
		for rest := content; len(rest) > 0; rest = rest[min(len(rest), 64<<10):] {
			if _, err := w.Write(rest[:min(len(rest), 64<<10)]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}
	plain, secure := r.origin(h), r.tlsOrigin(h)
	var most atomic.Int64
	var waited atomic.Bool
	stop := make(chan struct{})
	var watch, wg sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				most.Store(max(most.Load(), r.pool.Usage().Disk))
				if r.pool.Waiting() > 0 {
					waited.Store(true)
				}
			}
		}
	})
	for i := range 200 {
		wg.Go(func() {
			u := plain.URL
			if i%4 == 0 {
				u = secure.URL
			}
			resp, err := r.client().Get(fmt.Sprintf("%s/%d", u, i))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			same := &comparing{want: content}
			if n, err := io.Copy(same, resp.Body); resp.StatusCode != http.StatusOK || n != size || err != nil || same.differs {
				t.Errorf("%d: %s %s, %d bytes, differ %v, %v", i, resp.Status, resp.Header.Get("X-Lazaret-Kind"), n, same.differs, err)
			}
		})
	}
	wg.Wait()
	close(stop)
	watch.Wait()
	for _, x := range r.audit.list() {
		if x.Event == audit.Refuse {
			t.Errorf("refused: %s", x.Detail)
		}
	}
	if !waited.Load() || most.Load() > total || most.Load() < total/2 {
		t.Errorf("anybody waited: %v; up to %d bytes of %d were on disk", waited.Load(), most.Load(), total)
	}
}

// comparing compares what is written with what is wanted.
type comparing struct {
	want    []byte
	differs bool
}

func (c *comparing) Write(p []byte) (int, error) {
	n := min(len(p), len(c.want))
	c.differs = c.differs || n < len(p) || !bytes.Equal(p, c.want[:n])
	c.want = c.want[n:]
	return len(p), nil
}

// TestWaitingForRoomIsNotTheSitesFault has a download wait for longer than a site may be silent.
func TestWaitingForRoomIsNotTheSitesFault(t *testing.T) {
	const size = 2 << 20
	r := newRig(t, func(p *plan) {
		p.spool.Memory, p.spool.TotalMemory = 16*units.KiB, units.MiB
		p.spool.MaxObject, p.spool.TotalDisk = size, size
		p.web.StallTimeout = short
	})
	held, err := r.pool.Of(make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	content := seq(size)
	u := r.origin(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			n, _ := io.Copy(io.Discard, req.Body)
			fmt.Fprint(w, n)
			return
		}
		_, _ = w.Write(content)
	}).URL
	var wg sync.WaitGroup
	wg.Go(func() {
		if resp, body := get(t, r.client(), u); resp.StatusCode != http.StatusOK || body != string(content) {
			t.Errorf("%s, %d bytes", resp.Status, len(body))
		}
	})
	wg.Go(func() {
		if resp, body := do(t, r.client(), http.MethodPut, u, bytes.NewReader(content)); resp.StatusCode != http.StatusOK || body != fmt.Sprint(size) {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
	eventually(t, "both wait", func() bool { return r.pool.Waiting() == 2 })
	time.Sleep(3 * short.Std())
	held.Close()
	wg.Wait()
}

// TestDownloadsBehindAPageWaitForRoom has a download whose request was answered by the progress page find no room: it waits, as
// others do.
func TestDownloadsBehindAPageWaitForRoom(t *testing.T) {
	const size = 4 << 20
	r := quickRig(t, func(p *plan) {
		p.spool.Memory, p.spool.TotalMemory = 16*units.KiB, units.MiB
		p.spool.MaxObject, p.spool.TotalDisk = size, size
	})
	held, err := r.pool.Of(make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	content := noise(size)
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(content)
	})
	resp, body := get(t, r.client(), o.URL+"/file.bin", browser...)
	next := wantProgress(t, resp, body)
	resp, body = get(t, r.client(), o.URL+next, browser...)
	next = wantProgress(t, resp, body)
	if r.pool.Waiting() != 1 {
		t.Error("nothing waits: nothing was tested")
	}
	held.Close()
	if resp, body = follow(t, r.client(), o.URL, next); resp.StatusCode != http.StatusOK || body != string(content) {
		t.Errorf("%s %s, %d bytes", resp.Status, resp.Header.Get("X-Lazaret-Kind"), len(body))
	}
}

// TestDownloadsForOthersWaitForRoom has a download that goes on without its client find no room.
func TestDownloadsForOthersWaitForRoom(t *testing.T) {
	const size = 4 << 20
	r := newRig(t, func(p *plan) {
		p.spool.Memory, p.spool.TotalMemory = 16*units.KiB, units.MiB
		p.spool.MaxObject, p.spool.TotalDisk = size, 2*size
		p.web.RangeCacheSize = size
	})
	var held []*spool.Blob
	for range 2 {
		b, err := r.pool.Of(make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, b)
	}
	h := &halting{content: seq(size), goOn: make(chan struct{})}
	close(h.goOn)
	u := r.origin(h.ServeHTTP).URL
	c := r.dial().send("GET " + u + "/ HTTP/1.1\r\nHost: x\r\nRange: bytes=100-\r\n\r\n")
	eventually(t, "it waits", func() bool { return r.pool.Waiting() == 1 })
	c.Close()
	eventually(t, "it goes on without its client", func() bool { return r.outlasting() == 1 })
	for _, b := range held {
		b.Close()
	}
	resp, body := get(t, r.client(), u, "Range", "bytes=100-")
	if resp.StatusCode != http.StatusPartialContent || body != string(h.content[100:]) || h.asked.Load() != 1 {
		t.Errorf("%s %s, %d bytes, the origin was asked %d times", resp.Status, resp.Header.Get("X-Lazaret-Kind"), len(body), h.asked.Load())
	}
}

// TestStalledSitesDoNotTakeTheDecodersMemory has a site send many bodies in a coding with large windows, and come to a standstill in
// each: decoders take no more memory than their share, and others are served meanwhile.
func TestStalledSitesDoNotTakeTheDecodersMemory(t *testing.T) {
	unpack.Memory().Resize(96 * units.MiB)
	t.Cleanup(func() { unpack.Memory().Resize(unpack.Default().TotalMemory) })
	r := newRig(t)
	content := noise(3 << 20)
	enc, page := brotliOf(t, 24, content), brotliOf(t, 22, content[:5000])
	var stalled atomic.Int32
	goOn := make(chan struct{})
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		if req.URL.Path == "/page" {
			_, _ = w.Write(page)
			return
		}
		_, _ = w.Write(enc[:2<<20])
		_ = http.NewResponseController(w).Flush()
		stalled.Add(1)
		<-goOn
		_, _ = w.Write(enc[2<<20:])
	})
	const many = 30
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			if resp, body := get(t, r.client(), o.URL, "Accept-Encoding", "br"); resp.StatusCode != http.StatusOK || body != string(content) {
				t.Errorf("%s %s, %d bytes", resp.Status, resp.Header.Get("X-Lazaret-Reason"), len(body))
			}
		})
	}
	eventually(t, "all have come to a standstill", func() bool { return stalled.Load() == many })
	if resp, body := get(t, r.client(), o.URL+"/page", "Accept-Encoding", "br"); resp.StatusCode != http.StatusOK || body != string(content[:5000]) {
		t.Errorf("meanwhile: %s %s, %d bytes", resp.Status, resp.Header.Get("X-Lazaret-Reason"), len(body))
	}
	if now, _ := unpack.Memory().Used(); now == 0 || now > 48<<20 {
		t.Errorf("decoders have %d bytes", now)
	}
	close(goOn)
	wg.Wait()
	if now, most := unpack.Memory().Used(); now != 0 || most > 96<<20 {
		t.Errorf("afterwards decoders have %d bytes; they had up to %d", now, most)
	}
}

func brotliOf(t *testing.T, lgwin int, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: 2, LGWin: lgwin})
	_, _ = w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestSlowClientsGiveWay has a client hold all of the room and take next to nothing: others are served, and so is what it has besides.
func TestSlowClientsGiveWay(t *testing.T) {
	const size = 16 << 20 // more than what is in sockets' buffers
	r := newRig(t, func(p *plan) {
		p.spool.Memory, p.spool.TotalMemory = 16*units.KiB, units.MiB
		p.spool.MaxObject, p.spool.TotalDisk, p.spool.Wait = size, 56*units.MiB, 100*short
		p.web.StallTimeout = units.Duration(time.Hour)
	})
	r.server.pressure.after = 2 * short.Std()
	content := noise(size)
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(content)
	})
	var slow []*rawConn
	for range 3 {
		c := r.dial()
		if err := c.Conn.(*net.TCPConn).SetReadBuffer(256 << 10); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c.send("GET "+o.URL+"/ HTTP/1.1\r\nHost: x\r\n\r\n"))
	}
	eventually(t, "the slow one has all", func() bool {
		r.server.pressure.mu.Lock()
		defer r.server.pressure.mu.Unlock()
		return len(r.server.pressure.holds) == len(slow) && r.pool.Usage().Disk >= int64(len(slow))*size
	})
	other := r.client(func(tr *http.Transport) {
		tr.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext
	})
	if resp, body := get(t, other, o.URL); resp.StatusCode != http.StatusOK || body != string(content) {
		t.Errorf("another client: %s %s, %d bytes", resp.Status, resp.Header.Get("X-Lazaret-Kind"), len(body))
	}
	whole := 0
	for _, c := range slow {
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n == size && err == nil {
			whole++
		}
		resp.Body.Close()
	}
	if whole != len(slow)-1 {
		t.Errorf("%d of %d slow downloads came to their end", whole, len(slow))
	}
}

// TestWhoGivesWay goes through who is given up for whom.
func TestWhoGivesWay(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")
	p := newPressure(100 << 20)
	p.after = 0
	hold := func(client netip.Addr, mib, moved int64) *holding {
		h := p.hold(client, func() int64 { return mib << 20 }, func(error) {})
		h.moved.Store(moved)
		return h
	}
	fast, slow := hold(a, 40, 1<<30), hold(a, 40, 100)
	defer fast.end()
	choose := func() *holding {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.choose()
	}
	if choose() != nil {
		t.Error("somebody gives way to nobody")
	}
	own := p.wait(a)
	if choose() != nil {
		t.Error("somebody gives way to himself")
	}
	own()
	end := p.wait(b)
	if choose() != slow {
		t.Error("the slowest of the one that has most does not give way")
	}
	p.after = time.Hour
	if choose() != nil {
		t.Error("nobody has waited for long")
	}
	p.after = 0
	slow.end()
	if choose() != nil {
		t.Error("40 of 100 are not more than a share of two")
	}
	defer p.wait(c)()
	if choose() != fast {
		t.Error("40 of 100 are more than a share of three")
	}
	end()
	called := false
	h := p.hold(a, nil, func(error) { called = true })
	h.end()
	if h.giveUp(); called {
		t.Error("what had ended was cut")
	}
}
