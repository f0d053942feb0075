package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// halting is an origin that sends the first half of a large file, and the rest when it may go on.
type halting struct {
	content []byte
	goOn    chan struct{}
	asked   atomic.Int32
	ended   atomic.Int32 // exchanges that broke off
}

func (h *halting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", `"v1"`)
	if r.Header.Get("If-None-Match") != "" {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.asked.Add(1)
	w.Header().Set("Content-Length", strconv.Itoa(len(h.content)))
	_, _ = w.Write(h.content[:len(h.content)/2])
	_ = http.NewResponseController(w).Flush()
	select {
	case <-h.goOn:
		_, _ = w.Write(h.content[len(h.content)/2:])
	case <-r.Context().Done():
		h.ended.Add(1)
	}
}

// leave asks for a part, waits until the origin was asked for the object so many times, and goes away.
func (h *halting) leave(t *testing.T, r *rig, u string, asked int32) {
	t.Helper()
	c := r.dial().send("GET " + u + "/ HTTP/1.1\r\nHost: x\r\nRange: bytes=100-\r\n\r\n")
	eventually(t, "the origin is asked", func() bool { return h.asked.Load() == asked })
	// Room on disk is taken for the whole at once.
	eventually(t, "its answer is being taken in", func() bool {
		return r.pool.Usage().Disk >= int64(asked-h.ended.Load())*int64(len(h.content))
	})
	c.Close()
}

func (r *rig) outlasting() (n int) {
	s := r.server.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flights {
		if f.idle != nil {
			n++
		}
	}
	return n
}

// TestImpatientClientsGetThereInTheEnd has a client ask for a part of something that takes longer than it waits, and ask again.
func TestImpatientClientsGetThereInTheEnd(t *testing.T) {
	r := newRig(t)
	h := &halting{content: seq(3 << 20), goOn: make(chan struct{})}
	for _, u := range []string{r.origin(h.ServeHTTP).URL, r.tlsOrigin(h.ServeHTTP).URL} {
		h.asked.Store(0)
		h.goOn = make(chan struct{})
		c := r.client()
		for range 3 {
			c.Timeout = 2 * short.Std()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Range", "bytes=100-")
			if resp, err := c.Do(req); err == nil {
				resp.Body.Close()
				t.Fatalf("%s before the object was there", resp.Status)
			}
			eventually(t, "the download goes on without its client", func() bool { return r.outlasting() == 1 })
		}
		close(h.goOn)
		c.Timeout = 0
		resp, body := get(t, c, u, "Range", "bytes=100-")
		wantPart(t, resp, body, h.content, 100, len(h.content)-1)
		if h.asked.Load() != 1 || h.ended.Load() != 0 || r.outlasting() != 0 {
			t.Errorf("the origin was asked %d times, %d broke off, %d go on", h.asked.Load(), h.ended.Load(), r.outlasting())
		}
	}
}

func TestDownloadThatNobodyAsksForAgainEnds(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.RangeCacheTime = 2 * short })
	h := &halting{content: seq(3 << 20), goOn: make(chan struct{})}
	h.leave(t, r, r.origin(h.ServeHTTP).URL, 1)
	eventually(t, "the origin's exchange ends", func() bool { return h.ended.Load() == 1 })
	eventually(t, "all room is given back", func() bool { u := r.pool.Usage(); return u.Memory+u.Disk == 0 && r.outlasting() == 0 })
}

func TestDownloadsWithoutTheirClientsAreBounded(t *testing.T) {
	r := newRig(t)
	h := &halting{content: seq(3 << 20), goOn: make(chan struct{})}
	u := r.origin(h.ServeHTTP).URL
	for i := range ownOutlasting + 2 {
		h.leave(t, r, fmt.Sprintf("%s/%d", u, i), int32(i+1))
		eventually(t, "it goes on, or ends", func() bool { return r.outlasting()+int(h.ended.Load()) == i+1 })
	}
	if n := r.outlasting(); n != ownOutlasting {
		t.Errorf("%d go on for one client", n)
	}
	close(h.goOn)
	eventually(t, "all have ended", func() bool { return r.outlasting() == 0 })
}

func TestVirusForAClientThatHasGone(t *testing.T) {
	r := newRig(t)
	h := &halting{content: append(seq(3<<20), scan.EICAR()...), goOn: make(chan struct{})}
	u := r.origin(h.ServeHTTP).URL
	h.leave(t, r, u, 1)
	eventually(t, "it goes on", func() bool { return r.outlasting() == 1 })
	close(h.goOn)
	eventually(t, "it has ended", func() bool { return r.outlasting() == 0 })
	resp, body := get(t, r.client(), u+"/", "Range", "bytes=0-10")
	wantPage(t, resp, body, 403, notice.Infected)
	if n := h.asked.Load(); n != 1 {
		t.Errorf("the origin was asked %d times", n)
	}
}

// TestShutdownEndsDownloadsWithoutTheirClients would wait for ever, were they left out.
func TestShutdownEndsDownloadsWithoutTheirClients(t *testing.T) {
	r := newRig(t)
	h := &halting{content: seq(3 << 20), goOn: make(chan struct{})}
	h.leave(t, r, r.origin(h.ServeHTTP).URL, 1)
	eventually(t, "it goes on", func() bool { return r.outlasting() == 1 })
	r.server.store.close()
	eventually(t, "it has ended", func() bool { return h.ended.Load() == 1 })
}

// TestOriginThatSendsEverythingAgain does not know conditions. That it begins to send the same is enough to know.
func TestOriginThatSendsEverythingAgain(t *testing.T) {
	r := newRig(t)
	content, asked := seq(3<<20), atomic.Int32{}
	tag := atomic.Value{}
	tag.Store(`"v1"`)
	u := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", tag.Load().(string))
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		if asked.Add(1); tag.Load() != `"v1"` {
			_, _ = w.Write(content[1:])
			_, _ = w.Write(content[:1])
			return
		}
		for part := range slices.Chunk(content, 64<<10) {
			if _, err := w.Write(part); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}).URL
	for i := range 4 {
		resp, body := get(t, r.client(), u, "Range", "bytes=5-1000")
		wantPart(t, resp, body, content, 5, 1000)
		eventually(t, "the origin's exchange has ended, or was ended", func() bool { return int(asked.Load()) == i+1 })
	}
	if n, size := r.server.store.usage(); n != 1 || size != int64(len(content)) {
		t.Errorf("%d objects of %d bytes are kept", n, size)
	}
	tag.Store(`"v2"`)
	resp, body := get(t, r.client(), u, "Range", "bytes=5-1000")
	wantPart(t, resp, body, append(content[1:], content[0]), 5, 1000)
}
