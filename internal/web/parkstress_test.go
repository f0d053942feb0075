package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The end of an origin that comes between the watch of origin.start and the visit is mirrored as any other.
func TestAnOriginThatLeavesAtOnceTakesTheClientWithIt(t *testing.T) {
	r := parkingRig(t)
	var kept atomic.Int32
	var wg sync.WaitGroup
	for i := range 60 {
		addr := r.rawTLSOrigin(func(c *tls.Conn, _ *bufio.Reader) {
			_ = c.Handshake()
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			_ = c.Close()
		})
		c := r.connect(addr)
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err := c.br.ReadByte()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				kept.Add(1)
			}
			c.Close()
		})
	}
	if wg.Wait(); kept.Load() > 0 {
		t.Errorf("%d of 60 clients kept their connection without an origin", kept.Load())
	}
}

// TestParkingUnderStress parks, wakes, ends and gives up connections from all sides at once, and then shuts down.
func TestParkingUnderStress(t *testing.T) {
	r := newRig(t)
	r.server.parkAfter = 3 * time.Millisecond
	var seq atomic.Int64
	var written sync.Map // by unasked answer, when it had been written
	serve := func(c net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			id := req.Header.Get("Id")
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
			switch rand.N(12) {
			case 0:
				time.Sleep(rand.N(8 * time.Millisecond))
				return
			case 1:
				time.Sleep(rand.N(8 * time.Millisecond))
				key := fmt.Sprintf("wrong%015d", seq.Add(1))
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"+key)
				written.Store(key, time.Now())
			}
		}
	}
	plain := r.rawOrigin(serve)
	secure := r.rawTLSOrigin(func(c *tls.Conn, br *bufio.Reader) { serve(c, br) })
	var good, lost atomic.Int32
	stop := make(chan struct{})
	var wg sync.WaitGroup
	work := func(w int) {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			nc, err := net.Dial("tcp", r.addr)
			if err != nil {
				return
			}
			func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(15 * time.Second))
				c := &rawConn{Conn: nc, t: t, br: bufio.NewReader(nc)}
				target, host := "http://"+plain, plain
				if w%2 == 0 {
					target, host = "", secure
					if _, err := io.WriteString(nc, "CONNECT "+host+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
						return
					}
					if resp, err := http.ReadResponse(c.br, &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
						return
					}
					tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
					if tc.Handshake() != nil {
						return
					}
					c = &rawConn{Conn: tc, t: t, br: bufio.NewReader(tc)}
				}
				for k := range 8 {
					time.Sleep(rand.N(8 * time.Millisecond))
					id := fmt.Sprintf("%d-%d-%d", w, i, k)
					req := fmt.Sprintf("GET %s/ HTTP/1.1\r\nHost: %s\r\nId: %s\r\n\r\n", target, host, id)
					cut := rand.N(len(req))
					begun := time.Now()
					if _, err := io.WriteString(c.Conn, req[:cut]); err != nil {
						return
					}
					if rand.N(3) == 0 {
						time.Sleep(rand.N(6 * time.Millisecond))
					}
					if _, err := io.WriteString(c.Conn, req[cut:]); err != nil {
						return
					}
					resp, err := http.ReadResponse(c.br, nil)
					if err != nil {
						if errors.Is(err, os.ErrDeadlineExceeded) {
							lost.Add(1)
						}
						return
					}
					b, err := io.ReadAll(resp.Body)
					if err == nil && resp.StatusCode == http.StatusOK && string(b) != id {
						time.Sleep(10 * time.Millisecond)
						if at, ok := written.Load(string(b)); !ok || at.(time.Time).Before(begun) { // else nobody could have known
							t.Errorf("%q instead of %q: written %v before the request was begun", b, id, begun.Sub(at.(time.Time)))
						}
						return
					}
					if err != nil || resp.Close {
						return
					}
					good.Add(1)
				}
			}()
		}
	}
	for w := range 12 {
		wg.Go(func() { work(w) })
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(30 * time.Millisecond):
				if rand.N(4) == 0 {
					r.server.GiveUpIdle()
				}
			}
		}
	})
	time.Sleep(5 * time.Second)
	r.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begun := time.Now()
	err := r.server.Shutdown(ctx)
	t.Logf("%d good, shutdown took %v", good.Load(), time.Since(begun))
	if err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	close(stop)
	wg.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d requests were never answered", lost.Load())
	}
	eventually(t, "nothing is left", func() bool {
		return r.parked() == 0 && r.server.limits.count() == 0 && r.server.origins.count() == 0 && r.server.idle.count() == 0 && r.server.watcher.Count() == 0
	})
}
