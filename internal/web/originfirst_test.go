package web

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rawTLSOrigin is rawOrigin over TLS.
func (r *rig) rawTLSOrigin(serve func(c *tls.Conn, br *bufio.Reader)) string {
	cert := r.root.leaf(r.t)
	return r.rawOrigin(func(c net.Conn, _ *bufio.Reader) {
		tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
		serve(tc, bufio.NewReader(tc))
	})
}

// TestAnOriginThatSpeaksOrLeavesBeforeItIsAsked has the client's first request come when its connection to the origin is of no use.
func TestAnOriginThatSpeaksOrLeavesBeforeItIsAsked(t *testing.T) {
	for name, first := range map[string]string{
		"leaves": "", "speaks": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate",
		"speaks and stays": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var conns atomic.Int32
			spoke := make(chan struct{})
			addr := r.rawTLSOrigin(func(c *tls.Conn, br *bufio.Reader) {
				if conns.Add(1) == 1 {
					_ = c.Handshake()
					_, _ = io.WriteString(c, first)
					if name != "speaks and stays" {
						_ = c.Close()
					}
					close(spoke)
				}
				for {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
			c := r.connect(addr)
			<-spoke
			time.Sleep(50 * time.Millisecond) // for it to arrive
			if _, err := io.WriteString(c.Conn, "GET / HTTP/1.1\r\nHost: "+addr+"\r\n\r\n"); err != nil {
				return // the client's connection has ended with the origin's
			}
			resp, err := http.ReadResponse(c.br, nil)
			if err != nil {
				return // as above
			}
			if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
				t.Errorf("%s, %.60q, %v", resp.Status, b, err)
			}
		})
	}
}

// TestNoAnswerGoesToAnotherRequest has an origin do whatever origins do wrong between two requests.
func TestNoAnswerGoesToAnotherRequest(t *testing.T) {
	r := newRig(t)
	var posts sync.Map
	var extra, good atomic.Int32
	serve := func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			id := req.Header.Get("Id")
			if _, twice := posts.LoadOrStore(id, true); twice && req.Method == http.MethodPost {
				t.Errorf("%s came twice", id)
			}
			content := fmt.Sprintf("%s %d", id, len(body))
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(content), content)
			switch rand.N(8) {
			case 0:
				return
			case 1:
				_, _ = io.WriteString(c, answer)
				return
			case 2:
				extra.Add(1)
				_, _ = io.WriteString(c, answer)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
			case 3:
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+content)
				return
			case 4:
				_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+answer)
			default:
				_, _ = io.WriteString(c, answer)
			}
		}
	}
	plain := r.rawOrigin(serve)
	secure := r.rawTLSOrigin(func(c *tls.Conn, br *bufio.Reader) { serve(c, br) })
	var wg sync.WaitGroup
	for w := range 8 {
		for round := range 10 {
			conn, target, host := r.dial(), "http://"+plain, plain
			if w%2 == 0 {
				conn, target, host = r.connect(secure), "", secure
			}
			wg.Go(func() {
				defer conn.Close()
				for i := range 8 {
					id := fmt.Sprintf("%d-%d-%d", w, round, i)
					if !r.asked(t, conn, []string{"GET", "POST", "PUT"}[rand.N(3)], target, host, id) {
						return
					}
					good.Add(1)
					time.Sleep(rand.N(6 * time.Millisecond))
				}
			})
		}
	}
	wg.Wait()
	if good.Load() < 50 || extra.Load() < 10 {
		t.Errorf("%d answers, %d of those that nobody asked for: too few to say anything", good.Load(), extra.Load())
	}
}

// asked makes one request, and says whether it was answered by its own answer and the connection goes on.
func (r *rig) asked(t *testing.T, c *rawConn, method, target, host, id string) bool {
	body := ""
	if method != http.MethodGet {
		body = strings.Repeat("b", rand.N(100_000))
	}
	if _, err := fmt.Fprintf(c.Conn, "%s %s/ HTTP/1.1\r\nHost: %s\r\nId: %s\r\nContent-Length: %d\r\n\r\n%s", method, target, host, id, len(body), body); err != nil {
		return false
	}
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	for err == nil && resp.StatusCode == http.StatusEarlyHints {
		resp, err = http.ReadResponse(c.br, &http.Request{Method: method})
	}
	if err != nil {
		return false
	}
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	if want := fmt.Sprintf("%s %d", id, len(body)); err != nil || string(b) != want {
		t.Errorf("%s %s: %.60q, %v, want %q", method, id, b, err, want)
	}
	return !resp.Close
}
