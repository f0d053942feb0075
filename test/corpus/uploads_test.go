package corpus

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/test/harness"
)

// upload is a request around one content.
type upload struct {
	family, name string
	valid        bool
	infected     bool
	ask          func(target, host string) string // all its bytes
	wants        [][]byte                         // the contents that may arrive, one of them exactly
	half         bool                             // the client ends its side behind it
	wait         string                           // it sends what follows this when it was told 100
	status       int                              // what it is told; 0: whatever fits
	ends         bool                             // the connection has to end with the answer (RFC 9112, 6.3)
}

// invalidAsked are answers which a server may give so, while a client may not ask so.
var invalidAsked = []string{"none, to the end", "none, Connection: close", "endless event stream"}

// asked makes an upload of each answer that is text behind a status line.
func asked(c construct, content []byte, infected bool) (u upload, ok bool) {
	m := c.make(content)
	rest, ok := strings.CutPrefix(m.bytes(), "HTTP/1.1 200 OK\r\n")
	if !ok {
		return u, false
	}
	return upload{
		family: c.family, name: c.name, valid: c.valid && !slices.Contains(invalidAsked, c.name), infected: infected,
		ask: func(target, host string) string {
			return "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + rest
		},
		wants: [][]byte{m.want, m.body, m.sent},
	}, true
}

// uploads returns them all: what the answers are, where that can be asked, and what only requests can be.
func uploads() []upload {
	infected, clean := payload()
	var all []upload
	for _, c := range slices.Concat(lengths(), chunks(), codings(), oddCodings(), undeclared(), documents(), charsets(), types()) {
		for _, x := range []struct {
			content  []byte
			infected bool
		}{{infected, true}, {clean, false}} {
			if u, ok := asked(c, x.content, x.infected); ok {
				all = append(all, u)
			}
		}
	}
	for _, x := range []struct {
		content  []byte
		infected bool
	}{{infected, true}, {clean, false}} {
		for _, u := range slices.Concat(smuggled(x.content), framedOddly(x.content), headed(x.content), forms(x.content), methods(x.content), expectations(x.content)) {
			u.infected = x.infected
			all = append(all, u)
		}
	}
	return all
}

// asks is how the gateway is asked: as a proxy, and within CONNECT.
type asks struct {
	name   string
	host   string
	target func(path string) string
	dial   func(t *testing.T) (net.Conn, error)
}

func TestCorpusOfUploads(t *testing.T) {
	all := uploads()
	if len(all) < 400 {
		t.Fatalf("the corpus has only %d uploads", len(all))
	}
	ca := harness.NewCA(t)
	o := newInbox(t, ca.Leaf(t, nil, "localhost", "127.0.0.1"))
	g := harness.Start(t, quick, ca.File)
	roots := g.Roots(t)
	ways := []asks{
		{"the proxy", o.plain, func(p string) string { return "http://" + o.plain + p }, func(*testing.T) (net.Conn, error) { return net.Dial("tcp", g.Proxy) }},
		{"CONNECT", o.secure, func(p string) string { return p }, func(t *testing.T) (net.Conn, error) {
			c, err := net.Dial("tcp", g.Proxy)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", o.secure, o.secure)
			if resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodHead}); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("CONNECT: %v", err)
				return nil, errors.Join(errors.New("no tunnel"), err, c.Close())
			}
			return tls.Client(c, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}}), nil
		}},
	}
	r := newReport(t)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 12 {
		wg.Go(func() {
			for i := range work {
				u := &all[i]
				for k, way := range ways {
					if !*every && k != i/2%2 {
						continue
					}
					path := fmt.Sprintf("/%s%d", string(rune('a'+k)), i)
					a := u.send(t, &way, path)
					r.add(t, u.family, func(f *tally) { f.judgeUpload(t, u, way.name, a, o.got(path)) })
				}
			}
		})
	}
	for i := range all {
		r.add(t, all[i].family, func(f *tally) { f.cases++ })
		work <- i
	}
	close(work)
	wg.Wait()
	r.print(t, 1)
}

// answered is what a client was told.
type answered struct {
	status int // of the first answer that is final; 0: there was none
	page   bool
	hung   bool // nothing came, and the connection did not end
	ended  bool
}

// linger is how long a client looks whether there is more.
const linger = 150 * time.Millisecond

func (u *upload) send(t *testing.T, way *asks, path string) (a answered) {
	c, err := way.dial(t)
	if err != nil {
		t.Error(err)
		return a
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	first, then, waits := u.ask(way.target(path), way.host), "", false
	if u.wait != "" {
		if first, then, waits = strings.Cut(first, u.wait); waits {
			first += u.wait
		}
	}
	_, _ = io.WriteString(c, first) // what was refused need not be taken to its end
	if w, ok := c.(interface{ CloseWrite() error }); ok && u.half {
		_ = w.CloseWrite()
	}
	br := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodPost})
		if err != nil {
			a.hung = errors.Is(err, os.ErrDeadlineExceeded)
			return a
		}
		if resp.StatusCode == http.StatusContinue && waits {
			waits = false
			_, _ = io.WriteString(c, then)
		}
		if resp.StatusCode < 200 {
			continue
		}
		a.status, a.page = resp.StatusCode, resp.Header.Get("X-Lazaret-Kind") != ""
		if _, err := io.Copy(io.Discard, resp.Body); errors.Is(err, os.ErrDeadlineExceeded) {
			a.hung = true
			return a
		}
		break
	}
	_ = c.SetDeadline(time.Now().Add(linger))
	_, err = io.Copy(io.Discard, br) // answers to what was hidden in it
	a.ended = !errors.Is(err, os.ErrDeadlineExceeded)
	return a
}

// arrived is a request that has come to the origin.
type arrived struct {
	path string
	raw  []byte // all that came on its connection
	body []byte
	odd  error // why it could be read in another way
}

// inbox is the origin: it keeps every byte that comes.
type inbox struct {
	plain, secure string

	mu  sync.Mutex
	all map[string][]arrived // by the first word of the path
}

func newInbox(t *testing.T, cert tls.Certificate) *inbox {
	o := &inbox{all: map[string][]arrived{}}
	plain, secure := listen(t), listen(t)
	o.plain, o.secure = plain.Addr().String(), secure.Addr().String()
	accept(t, plain, o.take)
	accept(t, tls.NewListener(secure, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}), o.take)
	return o
}

func (o *inbox) take(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(patience))
	var raw bytes.Buffer
	br := bufio.NewReader(io.TeeReader(c, &raw))
	req, err := http.ReadRequest(br)
	if err != nil {
		if raw.Len() > 0 {
			o.keep(arrived{path: pathOf(raw.Bytes()), raw: raw.Bytes(), odd: err})
		}
		return
	}
	a := arrived{path: req.URL.Path}
	a.body, a.odd = io.ReadAll(req.Body)
	if br.Buffered() > 0 {
		a.odd = errors.Join(a.odd, fmt.Errorf("%d bytes behind the request", br.Buffered()))
	}
	a.raw = raw.Bytes()
	a.odd = errors.Join(a.odd, canonical(a.raw, req))
	o.keep(a)
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

// pathOf returns the path in the first line of what could not be read.
func pathOf(raw []byte) string {
	f := strings.Fields(string(raw[:min(len(raw), 200)]))
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

func (o *inbox) keep(a arrived) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key, _, _ := strings.Cut(strings.TrimPrefix(a.path, "/"), "/")
	o.all[key] = append(o.all[key], a)
}

func (o *inbox) got(path string) []arrived {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all[strings.TrimPrefix(path, "/")]
}

// canonical says why a request could be read in another way than Go does.
func canonical(raw []byte, req *http.Request) error {
	head, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	lengths, codings := 0, 0
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00") {
			return fmt.Errorf("%q has a control character", line)
		}
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			return fmt.Errorf("%q is folded", line)
		}
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "content-length":
			if lengths++; fmt.Sprint(req.ContentLength) != strings.TrimSpace(value) {
				return fmt.Errorf("%q", line)
			}
		case "transfer-encoding":
			if codings++; strings.TrimSpace(value) != "chunked" {
				return fmt.Errorf("%q", line)
			}
		case "expect", "upgrade", "te", "keep-alive", "proxy-connection", "proxy-authorization":
			return fmt.Errorf("%q is of the client's connection", line)
		}
	}
	if lengths+codings > 1 {
		return fmt.Errorf("%d lengths and %d transfer codings", lengths, codings)
	}
	return nil
}

// judgeUpload counts one upload, and reports what must not be.
func (f *tally) judgeUpload(t *testing.T, u *upload, way string, a answered, got []arrived) {
	f.fetches++
	kind := "harmless"
	if u.infected {
		kind = "infected"
	}
	name := fmt.Sprintf("%s/%s (%s) by %s", u.family, u.name, kind, way)
	if len(got) > 0 {
		f.delivered++
	} else {
		f.refused++
	}
	for _, g := range got {
		if g.odd != nil {
			f.evaded++
			t.Errorf("%s: what arrives can be read in two ways: %v\n%.800q", name, g.odd, g.raw)
		}
		out := outcome{body: g.body, raw: g.raw}
		if how := out.readable(); how != "" {
			f.evaded++
			t.Errorf("%s: EVADED, read by %s:\n%.800q", name, how, g.raw)
		}
	}
	if a.hung {
		t.Errorf("%s: no answer within %v", name, patience)
	}
	if u.status != 0 && a.status != u.status {
		t.Errorf("%s: status %d, want %d", name, a.status, u.status)
	}
	if u.ends && !a.ended {
		t.Errorf("%s: the connection goes on", name)
	}
	if u.infected || !u.valid {
		if u.infected && u.valid && !a.page {
			t.Errorf("%s: status %d and no page", name, a.status)
		}
		return
	}
	if len(got) != 1 || a.status != http.StatusOK {
		f.wrongly++
		t.Errorf("%s: WRONGLY REFUSED: status %d, %d requests arrived", name, a.status, len(got))
		return
	}
	same := func(w []byte) bool { return w != nil && bytes.Equal(w, got[0].body) }
	if !slices.ContainsFunc(u.wants, same) {
		f.changed++
		t.Errorf("%s: NOT BYTE-IDENTICAL:\n%.600q", name, got[0].raw)
	}
}

// TestInboxSeesWhatIsOdd: the origin of the test has to notice what it is there for.
func TestInboxSeesWhatIsOdd(t *testing.T) {
	o := newInbox(t, harness.NewCA(t).Leaf(t, nil, "127.0.0.1"))
	for path, text := range map[string]string{
		"/two":      "POST /two HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"/behind":   "POST /behind HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiGET /",
		"/folded":   "POST /folded HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
		"/infected": "POST /infected HTTP/1.1\r\nHost: x\r\nContent-Length: 68\r\n\r\n" + string(scan.EICAR()),
	} {
		c, err := net.Dial("tcp", o.plain)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
		got := o.got(path)
		if len(got) != 1 {
			t.Fatalf("%s: %d requests", path, len(got))
		}
		out := outcome{body: got[0].body, raw: got[0].raw}
		if got[0].odd == nil && out.readable() == "" {
			t.Errorf("%s: nothing is odd about %q", path, got[0].raw)
		}
	}
}
