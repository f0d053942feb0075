package web

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"
)

// rawOrigin answers every request with the same bytes, whatever HTTP thinks of them, and closes. The head of the request
// is read first.
func rawOrigin(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // a socket's deadline does not fail
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, answer) // the peer may have enough of it
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// through returns a client that uses the gateway, without a redirect or a retry of its own.
func through(t *testing.T, g *harness.Gateway) *http.Client {
	t.Helper()
	proxy, err := url.Parse("http://" + g.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{
		Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: g.Roots(t)}, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func TestMalformedAnswersAreExplainedAndTheNextRequestWorks(t *testing.T) {
	g := harness.Start(t, harness.Settings{"web": "", "spool": "max_object = \"1 MiB\"\ntotal_disk = \"64 MiB\"\n"})
	client := through(t, g)
	good := harness.NewPlainOrigin(t, site(t))
	eicar := string(scan.EICAR())
	bomb := string(harness.Gzip(t, make([]byte, 256<<20)))
	for _, c := range []struct {
		name, answer string
		status       []int
	}{
		{"no HTTP at all", "SSH-2.0-OpenSSH_9.2\r\n", []int{502}},
		{"nothing", "", []int{502}},
		{"HTTP/0.9", "<html>" + eicar, []int{502}},
		{"bad status", "HTTP/1.1 abc OK\r\n\r\n", []int{502}},
		{"header without a colon", "HTTP/1.1 200 OK\r\nContent-Length 5\r\n\r\nhello", []int{502}},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 68\r\n\r\n" + eicar, []int{502}},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + eicar, []int{502}},
		{"shorter than its length", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello", []int{502}},
		{"broken chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", []int{502}},
		{"cut chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", []int{502}},
		{"unknown transfer coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", []int{502}},
		{"length and chunks, virus in chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n44\r\n" + eicar + "\r\n0\r\n\r\n", []int{403, 502}},
		{"longer than its length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + eicar, []int{200}},
		{"endless header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 20<<20), []int{502}},
		{"100,000 headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 100_000) + "\r\n", []int{502}},
		{"broken gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", []int{403}},
		{"unknown content coding", "HTTP/1.1 200 OK\r\nContent-Encoding: rot13\r\nContent-Length: 5\r\n\r\nhello", []int{403}},
		{"bomb", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(len(bomb)) + "\r\n\r\n" + bomb, []int{403}},
		{"too large", "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n" + strings.Repeat("a", 2<<20), []int{403}},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, err := client.Get(rawOrigin(t, c.answer) + "/")
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Errorf("the answer breaks off: %v", err)
			}
			ok := false
			for _, s := range c.status {
				ok = ok || resp.StatusCode == s
			}
			if !ok {
				t.Errorf("status %d, want %v; %.200s", resp.StatusCode, c.status, body)
			}
			if bytes.Contains(body, scan.EICAR()) {
				t.Error("the virus came through")
			}
			if ref := resp.Header.Get("X-Lazaret-Reference"); resp.StatusCode != http.StatusOK && (ref == "" || !g.Log.Logs(ref)) {
				t.Errorf("the reference %q is not in the log", ref)
			}
			again, err := client.Get(good.URL + "/clean.txt")
			if err != nil || again.StatusCode != http.StatusOK {
				t.Fatalf("the next request: %v, %v", again, err)
			}
			again.Body.Close()
		})
	}
}

func TestMalformedRequests(t *testing.T) {
	o := harness.NewPlainOrigin(t, site(t))
	g := harness.Start(t, nil)
	host := strings.TrimPrefix(o.URL, "http://")
	for _, c := range []struct {
		name, request string
		status        string
	}{
		{"garbage", "\x00\x01\x02\r\n\r\n", "400"},
		{"no version", "GET " + o.URL + "/clean.txt\r\n\r\n", "400"},
		{"unknown version", "GET " + o.URL + "/clean.txt HTTP/3.7\r\nHost: " + host + "\r\n\r\n", "50"},
		{"no host", "GET /clean.txt HTTP/1.1\r\n\r\n", "400"},
		{"two hosts", "GET " + o.URL + "/clean.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		{"origin form for another host", "GET /clean.txt HTTP/1.1\r\nHost: example.org\r\n\r\n", "400"},
		{"unknown scheme", "GET ftp://" + host + "/clean.txt HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "501"},
		{"bad length", "POST " + o.URL + "/upload HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: x\r\n\r\n", "400"},
		{"large header", "GET " + o.URL + "/clean.txt HTTP/1.1\r\nHost: " + host + "\r\nX: " + strings.Repeat("a", 4<<20) + "\r\n\r\n", "431"},
		{"connect without a port", "CONNECT localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"},
		{"good", "GET " + o.URL + "/clean.txt HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n", "200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.Proxy)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // a socket's deadline does not fail
			go func() { _, _ = io.WriteString(conn, c.request) }() // an answer may come before all of it is written
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+c.status) {
				t.Errorf("answer %q, %v; want %s", line, err, c.status)
			}
		})
	}
}

func TestOpenProxyHarmsNobody(t *testing.T) {
	o := harness.NewOrigin(t, site(t))
	strict := func(keys string) *harness.Gateway {
		g := harness.Start(t, nil, o.CA.File)
		b, err := os.ReadFile(g.Config)
		if err != nil {
			t.Fatal(err)
		}
		s := strings.Replace(string(b), "allow_private_destinations = true\nconnect_ports = [\"1-65535\"]\n", keys, 1)
		return harness.StartFile(t, g, s)
	}
	t.Run("private destinations", func(t *testing.T) {
		g := strict("connect_ports = [\"1-65535\"]\n")
		for _, u := range []string{
			o.URL, strings.Replace(o.URL, "127.0.0.1", "localhost", 1), strings.Replace(o.URL, "127.0.0.1", "[::1]", 1),
			strings.Replace(o.URL, "127.0.0.1", "127.1", 1), "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://192.168.0.1/",
			"http://[::ffff:127.0.0.1]:80/", "http://0.0.0.0/", "http://[fe80::1]/", "http://[fd00::1]/", "http://100.64.0.1/",
		} {
			if r := curl(t, g, u+"/clean.txt"); r.status == "200" {
				t.Errorf("%s was fetched", u)
			}
		}
		if seen := o.Seen(); len(seen) != 0 {
			t.Errorf("the origin saw %v", seen)
		}
	})
	t.Run("ports", func(t *testing.T) {
		g := strict("allow_private_destinations = true\n")
		if r := curl(t, g, o.URL+"/clean.txt"); r.status == "200" {
			t.Error("CONNECT to a port that is not listed")
		}
	})
	t.Run("clients", func(t *testing.T) {
		g := strict("allow_private_destinations = true\nconnect_ports = [\"1-65535\"]\nallow_clients = [\"10.1.2.0/24\"]\n")
		if r := curl(t, g, o.URL+"/clean.txt"); r.status == "200" {
			t.Error("a client that is not listed was served")
		}
	})
	t.Run("loop", func(t *testing.T) {
		g := strict("allow_private_destinations = true\nconnect_ports = [\"1-65535\"]\n")
		for _, addr := range []string{g.Proxy, g.Admin} {
			if r := curl(t, g, "-p", fmt.Sprintf("http://%s/", addr)); r.status == "200" {
				t.Errorf("the gateway connected to itself at %s", addr)
			}
		}
	})
}

func TestSlowOriginsAndClientsAreLimited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // accepts, and says nothing
	g := harness.Start(t, harness.Settings{"web": "reply_timeout = \"1s\"\nheader_timeout = \"1s\"\n"})
	if r := curl(t, g, "http://"+l.Addr().String()+"/"); r.status != "504" {
		t.Errorf("an origin that is silent: %s", r.status)
	}
	conn, err := net.Dial("tcp", g.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET http://"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second)) // a socket's deadline does not fail
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a client that sends half a head is not turned away: %v", err)
	}
}
