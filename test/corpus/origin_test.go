package corpus

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"lazaret/test/harness"
)

// origins serve the samples, by number.
type origins struct {
	ca            *harness.CA
	plain, secure string // addresses
	h2            string // URL
}

// startOrigins serves all by a raw socket, by one with TLS, and what can be said in HTTP/2 by that.
func startOrigins(t *testing.T, all []sample) *origins {
	t.Helper()
	o := &origins{ca: harness.NewCA(t)}
	cert := o.ca.Leaf(t, nil, "localhost", "127.0.0.1")
	serve := func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if s := pick(all, r.URL.Path); s != nil {
			_, _ = io.WriteString(c, s.bytes()) // the gateway may have hung up
		}
	}
	plain := listen(t)
	secure := listen(t)
	o.plain, o.secure = plain.Addr().String(), secure.Addr().String()
	accept(t, plain, serve)
	accept(t, tls.NewListener(secure, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}), serve)

	h2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := pick(all, r.URL.Path)
		if s == nil {
			http.NotFound(w, r)
			return
		}
		for _, line := range s.head {
			name, value, _ := strings.Cut(line, ":")
			w.Header().Add(name, strings.TrimSpace(value))
		}
		_, _ = w.Write(s.body)
	}))
	h2.EnableHTTP2 = true
	h2.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	h2.StartTLS()
	t.Cleanup(h2.Close)
	o.h2 = h2.URL
	return o
}

func pick(all []sample, path string) *sample {
	i, err := strconv.Atoi(strings.TrimPrefix(path, "/"))
	if err != nil || i < 0 || i >= len(all) {
		return nil
	}
	return &all[i]
}

// bytes returns the answer in HTTP/1.1.
func (m made) bytes() string {
	if m.raw != "" || m.head == nil && m.body == nil {
		return m.raw
	}
	lines := append(slices.Clone(m.head), fmt.Sprintf("Content-Length: %d", len(m.body)))
	return "HTTP/1.1 200 OK\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + string(m.body)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// accept serves each connection of l once, and closes it.
func accept(t *testing.T, l net.Listener, serve func(net.Conn)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				serve(c)
				mu.Lock()
				delete(open, c)
				mu.Unlock()
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}
