package web

import (
	"io"
	"net/http"
	"slices"
	"testing"
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
