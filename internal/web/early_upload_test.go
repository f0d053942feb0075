package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lazaret/internal/units"
)

// TestEarlyAnswerLeavesTheUploadToTheOrigin has an origin begin to answer while an upload beyond the limit is on its way, and take the
// rest then: all of it is its own.
func TestEarlyAnswerLeavesTheUploadToTheOrigin(t *testing.T) {
	for _, total := range []int{4032 << 10, 4160 << 10, 64 << 20} {
		r := beyondRig(t)
		seen, got := make(chan struct{}), make(chan string, 1)
		addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			time.Sleep(time.Second) // until the content stands still on its way here
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n")
			<-seen
			n, err := io.Copy(io.Discard, req.Body)
			got <- fmt.Sprint(n, " ", err)
			_, _ = io.WriteString(c, "0\r\n\r\n")
		})
		pr, pw := io.Pipe()
		go func() {
			b := make([]byte, 64<<10)
			for i := 0; i < total; i += len(b) {
				if _, err := pw.Write(b); err != nil {
					break
				}
			}
			pw.Close()
		}()
		req, _ := http.NewRequest(http.MethodPut, "http://"+addr+"/x", pr)
		resp, err := r.client(noHTTP2).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 9)
		n, err := io.ReadFull(resp.Body, b)
		t.Logf("%s %q %v", resp.Status, b[:n], err)
		close(seen)
		if g := <-got; g != fmt.Sprint(total, " <nil>") {
			t.Errorf("the origin got %s of %d", g, total)
		}
		resp.Body.Close()
		pr.Close()
	}
}

// TestAnUploadDoesNotBoundTheAnswer has an origin begin its answer before it has read the upload, and take longer for the rest of it than
// an answer may take to begin.
func TestAnUploadDoesNotBoundTheAnswer(t *testing.T) {
	const wait = time.Second
	r := newRig(t, func(p *plan) { p.web.ReplyTimeout = units.Duration(wait) })
	addr := r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n1")
		time.Sleep(50 * time.Millisecond) // the answer is there, and the upload stands still
		_, _ = io.Copy(io.Discard, req.Body)
		for i := range 7 {
			time.Sleep(wait / 3)
			_, _ = io.WriteString(c, fmt.Sprint(i+2))
		}
	})
	resp, err := r.client().Post("http://"+addr, "application/octet-stream", strings.NewReader(strings.Repeat("u", 30<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(b) != "12345678" || err != nil {
		t.Errorf("%s, %.100q, %v", resp.Status, b, err)
	}
}
