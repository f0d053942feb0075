package load

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/bench/internal/origin"
	"lazaret/internal/scan"
)

// site runs the origin in this process and returns its port and a direct route to it.
func site(t *testing.T) (port string, r Route) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	ctx, cancel := context.WithCancel(context.Background())
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- origin.Serve(ctx, ca, pw) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the origin: %v", err)
		}
	})
	b := make([]byte, 16)
	n, err := pr.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	r.Roots = x509.NewCertPool()
	if !r.Roots.AppendCertsFromPEM(cert) {
		t.Fatal("no certificate")
	}
	return strings.TrimSpace(string(b[:n])), r
}

func TestRunAgainstTheOrigin(t *testing.T) {
	port, route := site(t)
	base := "https://127.0.0.1:" + port
	for _, path := range []string{origin.Repeat(1024), origin.Unique(60 << 10)} {
		for _, fresh := range []bool{false, true} {
			clients := []*Client{New(route), New(route)}
			size := int64(1024)
			if strings.Contains(path, "unique") {
				size = 60 << 10
			}
			res := Run(t.Context(), clients, Job{URL: base + path, Size: size, Fresh: fresh, Timeout: 10 * time.Second}, 100*time.Millisecond)
			if res.Requests == 0 || res.Errors != 0 || res.Requests != len(res.Latencies) {
				t.Errorf("%s: %d requests, %d latencies, %d errors (%v)", path, res.Requests, len(res.Latencies), res.Errors, res.FirstErr)
			}
			if p50, p99 := res.Quantile(0.5), res.Quantile(0.99); p50 <= 0 || p99 < p50 {
				t.Errorf("%s: quantiles %v, %v", path, p50, p99)
			}
			for _, c := range clients {
				c.Close()
			}
		}
	}
}

func TestRepeatedAndUniqueBodies(t *testing.T) {
	port, route := site(t)
	c := New(route)
	defer c.Close()
	get := func(path string) []byte {
		var b bytes.Buffer
		if _, err := c.Fetch(t.Context(), "https://127.3.2.1:"+port+path, &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if a, b := get(origin.Repeat(2000)), get(origin.Repeat(2000)); len(a) != 2000 || !bytes.Equal(a, b) {
		t.Error("repeated bodies differ")
	}
	if a, b := get(origin.Unique(2000)), get(origin.Unique(2000)); len(a) != 2000 || bytes.Equal(a, b) {
		t.Error("unique bodies do not differ")
	}
	if b := get(origin.EICAR(0)); !bytes.Equal(b, scan.EICAR()) {
		t.Error("no EICAR")
	}
	if b := get(origin.EICAR(5000)); !bytes.HasSuffix(b, scan.EICAR()) || len(b) != 5000+len(scan.EICAR()) {
		t.Error("no EICAR behind a body")
	}
}

func TestWrongAnswersAreErrors(t *testing.T) {
	port, route := site(t)
	c := New(route)
	defer c.Close()
	base := "https://127.0.0.1:" + port
	if _, err := c.Get(t.Context(), base+origin.Repeat(1024), 1025); err == nil {
		t.Error("a body of another size was taken")
	}
	if _, err := c.Get(t.Context(), base+origin.EICAR(1000), 1000+int64(len(scan.EICAR()))); err == nil {
		t.Error("a body with another sum was taken")
	}
	var status *StatusError
	if _, err := c.Get(t.Context(), base+"/nothing", 9); !errors.As(err, &status) || status.Status != 404 {
		t.Errorf("a missing page: %v", err)
	}
	// Another CA than the route's: what answers is not who must.
	if _, err := New(Route{Roots: x509.NewCertPool()}).Get(t.Context(), base+origin.Repeat(1024), 1024); err == nil {
		t.Error("a certificate of another CA was taken")
	}
}

func TestPacedBodiesTakeTheirTime(t *testing.T) {
	port, route := site(t)
	c := New(route)
	defer c.Close()
	const size = 200 << 10
	times, err := c.Get(t.Context(), "https://127.0.0.1:"+port+origin.Paced(origin.Unique(size), 1<<20), size)
	// 200 KiB at 1 MiB/s are 195 ms, of which the last piece's wait goes unseen.
	if err != nil || times.Total < 150*time.Millisecond || times.First > times.Total {
		t.Errorf("%+v, %v", times, err)
	}
}

func TestHold(t *testing.T) {
	port, route := site(t)
	conn, err := Hold(t.Context(), route, "127.9.8.7", port, origin.Repeat(1024))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// It is open: a second request is answered.
	if err := exchange(conn, "GET "+origin.Repeat(100)+" HTTP/1.1\r\nHost: x\r\n\r\n", "GET"); err != nil {
		t.Errorf("the connection is of no use: %v", err)
	}
	if _, err := Hold(t.Context(), route, "127.9.8.7", port, "/nothing"); err == nil {
		t.Error("404 was taken")
	}
}

func TestQuantile(t *testing.T) {
	var r Result
	if r.Quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	for i := 100; i > 0; i-- {
		r.Latencies = append(r.Latencies, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.95: 95, 0.99: 99, 1: 100} {
		if got := r.Quantile(q); got != want {
			t.Errorf("quantile %v: %v instead of %v", q, got, want)
		}
	}
}
