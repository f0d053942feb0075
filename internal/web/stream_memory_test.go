package web

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/unpack"
)

// TestStalledEventStreamsStopNobody has streams whose decoders hold as much memory as such may, and others that begin as something
// encoded would, and then come to a standstill: an ordinary event stream goes on beside them.
func TestStalledEventStreamsStopNobody(t *testing.T) {
	r := newRig(t)
	end := make(chan struct{})
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		stalled := true
		switch req.URL.Path {
		case "/large":
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte{0x0f})
		case "/small":
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte{0x00})
		case "/text": // br with a window of 8 MiB would begin so
			_, _ = io.WriteString(w, "\r:\u00e9 ")
		default:
			_, _ = io.WriteString(w, "data: hello\n\n")
			stalled = false
		}
		_ = http.NewResponseController(w).Flush()
		if stalled {
			<-end
		}
	})
	c := r.client()
	var open []io.Closer
	for _, path := range slices.Concat(slices.Repeat([]string{"/text"}, 20), slices.Repeat([]string{"/large"}, 6), slices.Repeat([]string{"/small"}, 4)) {
		resp, err := c.Get(o.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp.Body)
	}
	if resp, body := get(t, c, o.URL+"/good"); resp.StatusCode != http.StatusOK || body != "data: hello\n\n" {
		t.Errorf("an ordinary event stream: %s %q", resp.Status, body)
	}
	close(end)
	for _, b := range open {
		_ = b.Close()
	}
}

// TestStreamsHaveAShareOfTheDecodersMemory has streams with the largest windows there are use their share up. What comes then is told
// why it is refused, calls as well; all else that is decoded goes on, and so does a stream when another has ended.
func TestStreamsHaveAShareOfTheDecodersMemory(t *testing.T) {
	r := newRig(t)
	end := make(chan struct{})
	page := noise(1 << 20)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/event-stream")
		switch req.URL.Path {
		case "/large":
			h.Set("Content-Encoding", "br")
			_, _ = w.Write([]byte{0x0f})
			_ = http.NewResponseController(w).Flush()
			select {
			case <-end:
			case <-req.Context().Done():
			}
		case "/small":
			h.Set("Content-Encoding", "gzip")
			_, _ = w.Write(gzipOf(t, []byte("data: hello\n\n")))
			_ = http.NewResponseController(w).Flush()
		case "/call":
			h.Set("Content-Type", "application/grpc-web+proto")
			h.Set("Content-Encoding", "br")
			_, _ = w.Write(brotliOf(t, 16, []byte(framed(0, "hi"))))
			_ = http.NewResponseController(w).Flush()
		default:
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Content-Encoding", "br")
			_, _ = w.Write(brotliOf(t, 24, page))
		}
	})
	used := func() int64 { now, _ := unpack.Memory().Used(); return now }
	c := r.client()
	open := func() io.Closer {
		before := used()
		resp, err := c.Get(o.URL + "/large")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %v", resp, err)
		}
		eventually(t, "its decoder has memory", func() bool { return used() > before })
		return resp.Body
	}
	streams := []io.Closer{open(), open(), open()} // of 19 MiB each, of 64
	resp, body := get(t, c, o.URL+"/large")
	if wantPage(t, resp, body, 503, notice.Overload); !strings.Contains(body, noStreamMemory) {
		t.Errorf("it does not say why: %s", body)
	}
	resp, body = do(t, c, http.MethodPost, o.URL+"/call", strings.NewReader(framed(0, "hi")), "Content-Type", "application/grpc-web+proto")
	wantPage(t, resp, body, 503, notice.Overload)
	if resp, body := get(t, c, o.URL+"/small"); resp.StatusCode != http.StatusOK || body != "data: hello\n\n" {
		t.Errorf("a stream in gzip: %s %q", resp.Status, body)
	}
	if resp, body := get(t, c, o.URL+"/page", "Accept-Encoding", "br"); resp.StatusCode != http.StatusOK || body != string(page) {
		t.Errorf("a body: %s, %d bytes", resp.Status, len(body))
	}
	before := used()
	_ = streams[0].Close()
	eventually(t, "its memory is given back", func() bool { return used() < before })
	streams[0] = open()
	close(end)
	for _, s := range streams {
		_ = s.Close()
	}
	eventually(t, "nothing is held any more", func() bool { return used() == 0 })
}

// TestStreamsThatComeTooLateToTheirShareAreRecorded has streams begin before any of them needs memory.
func TestStreamsThatComeTooLateToTheirShareAreRecorded(t *testing.T) {
	r := newRig(t)
	goOn, end := make(chan struct{}), make(chan struct{})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "br")
		_ = http.NewResponseController(w).Flush()
		<-goOn
		_, _ = w.Write([]byte{0x0f})
		_ = http.NewResponseController(w).Flush()
		<-end
	})
	var open []io.Closer
	for range 5 {
		resp, err := r.client().Get(o.URL)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%+v, %v", resp, err)
		}
		open = append(open, resp.Body)
	}
	close(goOn)
	eventually(t, "two of them are refused", func() bool {
		n := 0
		for _, rec := range r.audit.list() {
			if rec.Event == audit.Refuse && rec.Kind == string(notice.Overload) {
				n++
			}
		}
		return n == 2
	})
	close(end)
	for _, b := range open {
		_ = b.Close()
	}
}
