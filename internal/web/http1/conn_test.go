package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// scripted returns a connection whose other side answers each request by what answer returns, after it has read its head and, where it
// says so, its content.
func scripted(t *testing.T, answer func(n int, r *http.Request) string) (*Conn, *net.TCPConn) {
	t.Helper()
	nc, other := pair(t)
	go func() {
		br := bufio.NewReader(other)
		for n := 1; ; n++ {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if _, err := io.WriteString(other, answer(n, r)); err != nil {
				return
			}
		}
	}()
	return New(nc, nc, watcher(t), 4<<10), other
}

func request(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://site.test"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		r.Body = http.NoBody
	}
	return r
}

// fetch asks and returns status and content.
func fetch(c *Conn, r *http.Request) (string, error) {
	resp, err := c.RoundTrip(r, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b), err
}

func TestOneConnectionTakesRequestsOfEveryKind(t *testing.T) {
	c, _ := scripted(t, func(_ int, r *http.Request) string {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Method == http.MethodHead:
			return "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
		case r.URL.Path == "/none":
			return "HTTP/1.1 204 No Content\r\n\r\n"
		case r.URL.Path == "/chunks":
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n3\r\nabc\r\n0\r\nX-End: yes\r\n\r\n"
		case r.URL.Path == "/empty":
			return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		}
		out := fmt.Sprintf("%s %s %q", r.Method, r.Host, body)
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(out), out)
	})
	long := strings.Repeat("x", 300<<10)
	for range 3 {
		for _, x := range []struct{ method, target, body, want string }{
			{"GET", "/", "", `200 GET site.test ""`},
			{"HEAD", "/", "", "200 "},
			{"GET", "/none", "", "204 "},
			{"GET", "/chunks", "", "200 abc"},
			{"GET", "/empty", "", "200 "},
			{"POST", "/", "a body", `200 POST site.test "a body"`},
			{"PUT", "/", long, fmt.Sprintf("200 PUT site.test %q", long)},
		} {
			if got, err := fetch(c, request(t, x.method, x.target, x.body)); err != nil || got != x.want {
				t.Fatalf("%s %s: %.80q, %v, want %.80q", x.method, x.target, got, err, x.want)
			}
			if c.Busy() || c.Look() != nil {
				t.Fatalf("after %s %s: busy %v, %v", x.method, x.target, c.Busy(), c.Err())
			}
		}
	}
	resp, err := c.RoundTrip(request(t, "GET", "/chunks", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(resp.Body)
	if resp.Trailer.Get("X-End") != "yes" {
		t.Errorf("trailers: %v", resp.Trailer)
	}
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

func TestInformationalAnswersComeBefore(t *testing.T) {
	c, _ := scripted(t, func(int, *http.Request) string {
		return "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	})
	var seen []string
	resp, err := c.RoundTrip(request(t, "GET", "/", ""), func(status int, h textproto.MIMEHeader) error {
		seen = append(seen, fmt.Sprint(status, h.Get("Link")))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if got := strings.Join(seen, ","); got != "103</a>,102" || string(b) != "ok" {
		t.Errorf("seen %q, content %q", got, b)
	}
	enough := errors.New("enough")
	_, err = c.RoundTrip(request(t, "GET", "/", ""), func(int, textproto.MIMEHeader) error { return enough })
	if !errors.Is(err, enough) || c.Err() == nil {
		t.Errorf("a refused one: %v, afterwards %v", err, c.Err())
	}
}

func TestWhatEndsTheConnection(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, x := range map[string]struct {
		answer string
		fails  bool // the request, too
	}{
		"it says so":              {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", false},
		"HTTP/1.0":                {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		"two answers to one":      {ok + ok, false},
		"a stray byte":            {ok + "x", false},
		"no HTTP":                 {"hello\r\n\r\n", true},
		"too large a head":        {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 5<<10) + "\r\n\r\n", true},
		"too many hints in a row": {strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 500)+"\r\n\r\n", 20), true},
		"a broken chunk":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := scripted(t, func(int, *http.Request) string { return x.answer })
			got, err := fetch(c, request(t, "GET", "/", ""))
			if (err != nil) != x.fails || err == nil && got != "200 ok" {
				t.Fatalf("%q, %v", got, err)
			}
			eventually(t, "the connection is given up", func() bool { return c.Look() != nil })
			if _, err := fetch(c, request(t, "GET", "/", "")); err == nil {
				t.Error("it took another request")
			}
			if c.Busy() {
				t.Error("it is busy for ever")
			}
		})
	}
}

func TestAnAnswerThatWasNotReadEndsTheConnection(t *testing.T) {
	c, _ := scripted(t, func(int, *http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok" })
	resp, err := c.RoundTrip(request(t, "GET", "/", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RoundTrip(request(t, "GET", "/", ""), nil); !errors.Is(err, errBusy) {
		t.Errorf("a second request meanwhile: %v", err)
	}
	if err := c.Look(); err != nil {
		t.Errorf("a look meanwhile: %v", err)
	}
	read := make(chan error)
	go func() {
		_, err := io.ReadAll(resp.Body)
		read <- err
	}()
	time.Sleep(10 * time.Millisecond) // it may wait for the rest by now; if not, closing comes first, which must do as well
	_ = resp.Body.Close()
	if err := <-read; err == nil {
		t.Error("what was cut off looks whole")
	}
	if c.Busy() || !errors.Is(c.Err(), errUnread) {
		t.Errorf("busy %v, %v", c.Busy(), c.Err())
	}
}

func TestACancelledRequestEndsWithItsCause(t *testing.T) {
	cause := errors.New("nobody asks any more")
	for name, answer := range map[string]string{"before the answer": "", "in its head": "HTTP/1.1 200 OK\r\nX", "in its content": "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok"} {
		t.Run(name, func(t *testing.T) {
			c, _ := scripted(t, func(int, *http.Request) string { return answer })
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
			if _, err := fetch(c, request(t, "GET", "/", "").WithContext(ctx)); !errors.Is(err, cause) {
				t.Errorf("%v", err)
			}
			if c.Busy() || c.Err() == nil {
				t.Errorf("busy %v, %v", c.Busy(), c.Err())
			}
		})
	}
}

func TestAnAnswerMayComeBeforeTheRequestIsSent(t *testing.T) {
	nc, other := pair(t)
	c := New(nc, nc, watcher(t), 4<<10)
	go func() {
		_, _ = bufio.NewReader(other).ReadString('\n')
		_, _ = io.WriteString(other, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
	}()
	endless, w := io.Pipe()
	defer w.Close()
	r := request(t, "POST", "/", "x")
	r.Body, r.ContentLength = endless, -1
	if got, err := fetch(c, r); err != nil || got != "413 no" {
		t.Errorf("%q, %v", got, err)
	}
	if !errors.Is(c.Err(), errUnsent) {
		t.Errorf("afterwards: %v", c.Err())
	}
}

func TestAnOriginThatTakesNoMoreMaySayWhy(t *testing.T) {
	nc, other := pair(t)
	refuses := &deaf{TCPConn: nc, after: 64 << 10}
	c := New(refuses, nc, watcher(t), 4<<10)
	go func() {
		_, _ = other.Read(make([]byte, 32<<10))
		_, _ = io.WriteString(other, "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
	}()
	if got, err := fetch(c, request(t, "POST", "/", strings.Repeat("x", 1<<20))); err != nil || got != "413 no" {
		t.Errorf("%q, %v", got, err)
	}
	if c.Err() == nil {
		t.Error("it is said to be usable")
	}
}

// deaf takes nothing after so many bytes.
type deaf struct {
	*net.TCPConn
	after int
}

func (d *deaf) Write(p []byte) (int, error) {
	if len(p) > d.after {
		return 0, errors.New("connection reset by peer")
	}
	d.after -= len(p)
	return d.TCPConn.Write(p)
}

func TestContentThatFailsEndsTheRequest(t *testing.T) {
	broken := errors.New("the content is refused")
	for name, body := range map[string]io.Reader{
		"error": io.MultiReader(strings.NewReader("beginning"), readerFunc(func([]byte) (int, error) { return 0, broken })),
		"panic": io.MultiReader(strings.NewReader("beginning"), readerFunc(func([]byte) (int, error) { panic(broken) })),
		"short": io.LimitReader(strings.NewReader("beginning"), 4),
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			nc, other := pair(t)
			read := make(chan struct{})
			go func() {
				defer close(read)
				_, _ = got.ReadFrom(other)
			}()
			c := New(nc, nc, watcher(t), 4<<10)
			r := request(t, "POST", "/", "x")
			r.Body, r.ContentLength = io.NopCloser(body), -1
			if name == "short" {
				r.ContentLength = 9
			}
			_, err := c.RoundTrip(r, nil)
			var failed *Error
			if !errors.As(err, &failed) || !failed.Wrote || failed.Answered {
				t.Fatalf("%#v", err)
			}
			if name == "error" && !errors.Is(err, broken) || name == "panic" && !strings.Contains(err.Error(), broken.Error()) {
				t.Errorf("%v", err)
			}
			<-read
			if strings.HasSuffix(got.String(), "0\r\n\r\n") {
				t.Errorf("what was cut off looks whole: %q", got.String())
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestHowFarARequestGot(t *testing.T) {
	c, other := scripted(t, func(int, *http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" })
	bad := request(t, "GET", "/", "")
	bad.Header.Set("X", "a\r\nb: c")
	var failed *Error
	if _, err := c.RoundTrip(bad, nil); !errors.As(err, &failed) || failed.Wrote || c.Err() != nil {
		t.Errorf("a request that cannot be sent: %#v, afterwards %v", err, c.Err())
	}
	if _, err := fetch(c, request(t, "GET", "/", "")); err != nil {
		t.Fatal(err)
	}
	_ = other.Close()
	if _, err := c.RoundTrip(request(t, "GET", "/", ""), nil); !errors.As(err, &failed) || !failed.Wrote || failed.Answered {
		t.Errorf("a request to nobody: %#v", err)
	}
	if _, err := c.RoundTrip(request(t, "GET", "/", ""), nil); !errors.As(err, &failed) || failed.Wrote {
		t.Errorf("a request on a dead connection: %#v", err)
	}
}

func TestSwitchedProtocols(t *testing.T) {
	c, other := scripted(t, func(int, *http.Request) string {
		return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nahead"
	})
	resp, err := c.RoundTrip(request(t, "GET", "/", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	both, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body is a %T", resp.Body)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(both, b); err != nil || string(b) != "ahead" {
		t.Errorf("%q, %v", b, err)
	}
	_, _ = io.WriteString(other, "after")
	if _, err := io.ReadFull(both, b); err != nil || string(b) != "after" {
		t.Errorf("%q, %v", b, err)
	}
	if c.Err() == nil || c.Busy() {
		t.Errorf("%v, busy %v", c.Err(), c.Busy())
	}
	_ = both.Close()
	bare, _ := scripted(t, func(int, *http.Request) string { return "HTTP/1.1 101 Switching Protocols\r\n\r\n" })
	if resp, err = bare.RoundTrip(request(t, "GET", "/", ""), nil); err != nil || resp.Body != http.NoBody || bare.Err() == nil {
		t.Errorf("a switch to nothing: %v, %v", err, bare.Err())
	}
}

func TestCloseIdleWaitsForTheAnswer(t *testing.T) {
	c, _ := scripted(t, func(int, *http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" })
	resp, err := c.RoundTrip(request(t, "GET", "/", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.CloseIdle()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "ok" {
		t.Errorf("%q, %v", b, err)
	}
	if c.Err() == nil {
		t.Error("it is still there")
	}
}
