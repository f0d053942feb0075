package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestIdleHelper is the gateway of TestIdleConnectionsCostLittle, in a process of its own, so that only its memory is
// counted. Each line that it reads makes it say how much that is.
func TestIdleHelper(t *testing.T) {
	roots := os.Getenv("LAZARET_TEST_IDLE_ROOTS")
	if roots == "" {
		t.Skip("a part of TestIdleConnectionsCostLittle")
	}
	r := newRig(t, func(p *plan) { p.tls.ExtraRoots = []string{roots} })
	fmt.Printf("\n%s %s\n", r.addr, strings.ReplaceAll(string(r.ca.PEM()), "\n", "|"))
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		want, _ := strconv.Atoi(in.Text())
		eventually(t, "the idle connections are parked", func() bool { return r.parked() >= want })
		for range 3 { // what pools hold goes at the second time, and stacks shrink by half each time
			debug.FreeOSMemory()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Printf("%d %d %d\n", m.HeapAlloc, m.StackInuse, runtime.NumGoroutine())
	}
}

func TestIdleConnectionsCostLittle(t *testing.T) {
	n := 400
	if raceEnabled {
		n = 50 // its memory says nothing then
	}
	root := newRootAuthority(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestIdleHelper$", "-test.v")
	cmd.Env = append(os.Environ(), "LAZARET_TEST_IDLE_ROOTS="+root.file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var addr, ca string
	for lines.Scan() && ca == "" {
		if a, rest, ok := strings.Cut(lines.Text(), " "); ok && strings.HasPrefix(rest, "-----BEGIN") {
			addr, ca = a, strings.ReplaceAll(rest, "|", "\n")
			break
		}
	}
	used := func(parked int) (total, stacks, goroutines int) {
		t.Helper()
		fmt.Fprintln(in, parked)
		var heap int
		for lines.Scan() {
			if k, _ := fmt.Sscan(lines.Text(), &heap, &stacks, &goroutines); k == 3 {
				return heap + stacks, stacks, goroutines
			}
		}
		t.Fatal("the gateway has gone")
		return 0, 0, 0
	}
	block, _ := pem.Decode([]byte(ca))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for proto, most := range map[string]int{"http/1.1": 40 << 10, "h2": 64 << 10, "proxy": 40 << 10} {
		// HTTP/2 is not parked: browsers have one such connection where they have six of HTTP/1.1.
		park := map[bool]int{true: 1}[proto != "h2"]
		rig := &rig{t: t, addr: addr, root: root}
		h := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(seq(1 << 10)) }
		hostport, plain := rig.tlsOrigin(h).Listener.Addr().String(), rig.origin(h)
		var conns []net.Conn
		open := func() {
			if proto == "proxy" {
				c := rig.dial()
				if _, body := c.send("GET " + plain.URL + "/ HTTP/1.1\r\nHost: x\r\nUser-Agent: " + agent + "\r\n\r\n").response("GET"); len(body) != 1<<10 {
					t.Fatal(body)
				}
				conns = append(conns, c)
				return
			}
			conns = append(conns, idleConnection(t, addr, hostport, cert, proto))
		}
		for range 20 {
			open() // what is made once is not to count
		}
		before, stacks0, goroutines0 := used(20 * park)
		for range n {
			open()
		}
		after, stacks1, goroutines1 := used((n + 20) * park)
		each := (after - before) / n
		t.Logf("%s: %d bytes each, of which stacks %d; %.1f goroutines each", proto, each, (stacks1-stacks0)/n, float64(goroutines1-goroutines0)/float64(n))
		if more := goroutines1 - goroutines0; park == 0 && more < n {
			t.Errorf("%s: there are only %d more goroutines: the connections are not there", proto, more)
		} else if park == 1 && more > n/10 {
			t.Errorf("%s: there are %d more goroutines, although all are parked", proto, more)
		}
		if each > most && !raceEnabled {
			t.Errorf("%s: an idle connection costs %d bytes, more than %d", proto, each, most)
		}
		for _, c := range conns {
			c.Close()
		}
	}
}

const agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

// idleConnection opens an intercepted connection, makes one request, and leaves it alone.
func idleConnection(t *testing.T, proxy, hostport string, ca *x509.Certificate, proto string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(2 * patience))
	fmt.Fprintf(nc, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", hostport, hostport)
	if resp, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	tc := tls.Client(nc, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{proto}})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return tc, nil }, ForceAttemptHTTP2: true}
	cc, err := tr.NewClientConn(t.Context(), "https", hostport)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+hostport+"/", nil)
	req.Header.Set("User-Agent", agent)
	resp, err := cc.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 1<<10 || !strings.HasPrefix(resp.Proto, strings.ToUpper(proto[:1])) {
		t.Fatalf("%d bytes by %s, %v", n, resp.Proto, err)
	}
	resp.Body.Close()
	return tc
}
