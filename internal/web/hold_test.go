package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// lateScanner judges small objects at once, and large ones when the test lets it.
type lateScanner struct {
	scan.Scanner
	release chan struct{}
	waiting chan struct{} // has an element for each one that waits
}

func newLateScanner() *lateScanner {
	return &lateScanner{Scanner: scantest.FindsEICAR(), release: make(chan struct{}), waiting: make(chan struct{}, 100)}
}

func (s *lateScanner) Scan(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	// Of a window's noise chance makes something large that is compressed: that is not what is waited for.
	if o.Body.Size() > 64<<10 && !strings.HasPrefix(o.Name, "stream") {
		s.waiting <- struct{}{}
		select {
		case <-s.release:
		case <-ctx.Done():
			return scan.Verdict{}, ctx.Err()
		}
	}
	return s.Scanner.Scan(ctx, o)
}

// noise returns n bytes that are no text and no known kind of file.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// holdRig is a gateway that holds for a short time only.
func holdRig(t *testing.T, change ...func(*plan)) (*rig, *lateScanner) {
	t.Helper()
	s := newLateScanner()
	return newRig(t, append([]func(*plan){func(p *plan) {
		p.engine = s
		p.web.HoldTime = units.Duration(50 * time.Millisecond)
	}}, change...)...), s
}

// wares is an origin of the things that tests of holding fetch. The path says what: the kind, and whether the length is told.
func wares(body []byte) http.HandlerFunc {
	infected := append(bytes.Clone(body), scan.EICAR()...)
	early := append(bytes.Clone(body[:100]), append(scan.EICAR(), body...)...)
	script := append([]byte("#!/bin/sh\n"), bytes.Repeat([]byte("echo x\n"), 1<<18)...)
	return func(w http.ResponseWriter, r *http.Request) {
		b := body
		w.Header().Set("Content-Type", "application/octet-stream")
		switch name := strings.TrimPrefix(r.URL.Path, "/"); {
		case strings.HasPrefix(name, "late"):
			b = infected
		case strings.HasPrefix(name, "early"):
			b = early
		case strings.HasPrefix(name, "small"):
			b = infected[len(infected)-100_000:]
		case strings.HasPrefix(name, "script"):
			b = append(bytes.Clone(script), scan.EICAR()...)
		case strings.HasPrefix(name, "html"):
			w.Header().Set("Content-Type", "text/html")
			b = infected
		case strings.HasPrefix(name, "text"):
			w.Header().Set("Content-Type", "text/plain")
			b = bytes.Repeat([]byte("A line of text.\n"), 1<<17)
		}
		if strings.HasSuffix(r.URL.Path, ".len") {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		}
		_, _ = w.Write(b)
	}
}

// request begins a request, and returns the answer as soon as its head is there.
func request(t *testing.T, c *http.Client, u string, header ...string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return c.Do(req)
}

// eachWay runs f by HTTP/1.1 and by HTTP/2, and for answers with a length and without one.
func eachWay(t *testing.T, f func(t *testing.T, r *rig, s *lateScanner, c *http.Client, o *httptest.Server, suffix string), change ...func(*plan)) {
	body := noise(4 << 20)
	for _, way := range []string{"http", "http.len", "h1", "h1.len", "h2", "h2.len"} {
		t.Run(way, func(t *testing.T) {
			r, s := holdRig(t, change...)
			proto, suffix, found := strings.Cut(way, ".")
			if found {
				suffix = "." + suffix
			}
			switch proto {
			case "http":
				f(t, r, s, r.client(), r.origin(wares(body)), suffix)
			case "h1":
				f(t, r, s, r.client(noHTTP2), r.tlsOrigin(wares(body)), suffix)
			default:
				f(t, r, s, r.client(), r.tlsOrigin(wares(body)), suffix)
			}
		})
	}
}

func TestLargeCleanBodyBeginsBeforeItsVerdict(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, s *lateScanner, c *http.Client, o *httptest.Server, suffix string) {
		resp, err := request(t, c, o.URL+"/clean"+suffix)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		first := make([]byte, 200)
		if _, err := io.ReadFull(resp.Body, first); err != nil {
			t.Fatalf("the first bytes: %v", err)
		}
		<-s.waiting // there is no verdict yet
		close(s.release)
		rest, err := io.ReadAll(resp.Body)
		if got := slices.Concat(first, rest); err != nil || !bytes.Equal(got, noise(4<<20)) {
			t.Errorf("%d bytes that differ, or %v", len(got), err)
		}
		if want := int64(-1); suffix == "" && resp.ContentLength != want || suffix != "" && resp.ContentLength != 4<<20 {
			t.Errorf("Content-Length %d", resp.ContentLength)
		}
		r.audit.wait(t, "the trickle", func(x audit.Record) bool { return x.Event == audit.Exempt && x.Kind == "trickle" })
	})
}

func TestLargeInfectedBodyIsAbortedAndTheRetryIsAPage(t *testing.T) {
	eachWay(t, func(t *testing.T, r *rig, s *lateScanner, c *http.Client, o *httptest.Server, suffix string) {
		resp, err := request(t, c, o.URL+"/late"+suffix)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: there is nothing to be aborted", resp.Status)
		}
		<-s.waiting
		close(s.release)
		got, err := io.ReadAll(resp.Body)
		if err == nil {
			t.Errorf("the transfer ended well, with %d bytes", len(got))
		}
		if len(got) > 4<<20/trickleShare || eicarIn(string(got)) {
			t.Errorf("%d bytes passed", len(got))
		}
		n := len(r.audit.list())
		again, body := get(t, c, o.URL+"/late"+suffix, "Accept", "text/html")
		wantPage(t, again, body, http.StatusForbidden, notice.Infected)
		if more := r.audit.list()[n:]; len(more) != 1 || more[0].Event != audit.Refuse {
			t.Errorf("the retry is recorded as %+v", more)
		}
	}, func(p *plan) { p.web.Trickle = 100 * units.MiB })
}

func TestAbortedTransferEndsWithReset(t *testing.T) {
	for _, suffix := range []string{"", ".len"} {
		r, s := holdRig(t)
		o := r.origin(wares(noise(4 << 20)))
		c := r.dial().send("GET " + o.URL + "/late" + suffix + " HTTP/1.1\r\nHost: " + strings.TrimPrefix(o.URL, "http://") + "\r\n\r\n")
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		<-s.waiting
		close(s.release)
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: the connection ended with %v, not with RST", suffix, err)
		}
	}
}

// What may begin before the verdict must not be something that a client acts upon as it comes, nor something small enough to be
// whole, nor something whose beginning alone is infected: those get a page.
func TestWhatIsNotTrickled(t *testing.T) {
	body := noise(4 << 20)
	for _, name := range []string{"early", "early.len", "small", "small.len", "script", "script.len", "html", "html.len"} {
		t.Run(name, func(t *testing.T) {
			r, s := holdRig(t)
			o := r.tlsOrigin(wares(body))
			go func() {
				<-s.waiting
				time.Sleep(300 * time.Millisecond) // six times hold_time
				close(s.release)
			}()
			resp, got := get(t, r.client(), o.URL+"/"+name)
			wantPage(t, resp, got, http.StatusForbidden, notice.Infected)
		})
	}
	t.Run("switched off", func(t *testing.T) {
		r, s := holdRig(t, func(p *plan) { p.web.Trickle = 0 })
		go func() {
			<-s.waiting
			time.Sleep(300 * time.Millisecond)
			close(s.release)
		}()
		resp, got := get(t, r.client(), r.origin(wares(body)).URL+"/late.len")
		wantPage(t, resp, got, http.StatusForbidden, notice.Infected)
	})
}

// What comes so slowly that none of it may pass yet, when hold_time is over, is looked at all the same.
func TestInfectedBeginningThatComesSlowlyGetsAPage(t *testing.T) {
	r, _ := holdRig(t)
	body := noise(4 << 20)
	copy(body[100:], scan.EICAR())
	o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body[:2*sniffed])
		_ = http.NewResponseController(w).Flush()
		time.Sleep(600 * time.Millisecond) // more than hold_time
		_, _ = w.Write(body[2*sniffed : 60<<10])
	})
	resp, err := request(t, r.client(), o.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Error("the answer began, and can only be aborted now")
	}
}

func TestOfTextTheHeadAlonePasses(t *testing.T) {
	r, s := holdRig(t)
	o := r.origin(wares(noise(4 << 20)))
	resp, err := request(t, r.client(), o.URL+"/text")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make(chan int, 1)
	go func() {
		n, _ := resp.Body.Read(make([]byte, 1))
		got <- n
	}()
	<-s.waiting
	select {
	case n := <-got:
		t.Errorf("%d bytes of text passed before the verdict", n)
	case <-time.After(2 * trickleEvery):
	}
	close(s.release)
	if n := <-got; n != 1 {
		t.Error("nothing came after the verdict")
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 2<<20-1 {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
}

// A scanner that does not answer must not let the beginning pass.
func TestNothingIsTrickledWhileNoScannerAnswers(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.engine = scantest.Fails(errors.New("no scanner"))
		p.web.HoldTime = units.Duration(50 * time.Millisecond)
	})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(noise(4 << 20))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(400 * time.Millisecond)
	})
	resp, body := get(t, r.client(), o.URL)
	if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusForbidden {
		t.Errorf("%s, %d bytes", resp.Status, len(body))
	}
}

func TestOriginThatBreaksOffAbortsATrickle(t *testing.T) {
	r, _ := holdRig(t)
	broke := make(chan struct{})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(8<<20))
		_, _ = w.Write(noise(4 << 20))
		_ = http.NewResponseController(w).Flush()
		<-broke
		panic(http.ErrAbortHandler)
	})
	resp, err := request(t, r.client(), o.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(broke)
	if got, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d bytes came to a good end", len(got))
	}
}

func TestMuchLessThanTheWholeMayBeTrickled(t *testing.T) {
	h := &hold{c: &call{exchange: &exchange{set: &settings{Config: Default()}}}}
	for _, c := range []struct{ size, want int64 }{
		{0, 0}, {256 << 10, 0}, {256<<10 + 1, 1}, {272 << 10, 16 << 10}, {1 << 20, 64 << 10}, {1 << 30, 64 << 20},
	} {
		if got := h.allowed(c.size); got != c.want {
			t.Errorf("of %d bytes %d may pass, want %d", c.size, got, c.want)
		}
	}
}

func TestStoppedTransfersAreForgotten(t *testing.T) {
	r := newRig(t)
	x := &exchange{s: r.server, r: httptest.NewRequest(http.MethodGet, "/", http.NoBody)}
	s := newStopped()
	infected := notice.Notice{Kind: notice.Infected, Decision: policy.Decision{Action: policy.Block}}
	for i := range stoppedMost + 10 {
		x.facts.URL = strconv.Itoa(i)
		s.remember(x, infected)
	}
	if _, ok := s.recall(x); !ok || len(s.known) != stoppedMost {
		t.Errorf("known: %v; %d in all", ok, len(s.known))
	}
	x.facts.URL = "0"
	if _, ok := s.recall(x); ok {
		t.Error("the oldest is still known")
	}
	x.facts.URL = "20"
	k := x.stoppedKey()
	e := s.known[k]
	e.until = time.Now().Add(-time.Second)
	s.known[k] = e
	if _, ok := s.recall(x); ok {
		t.Error("one whose time is up is still known")
	}
	x.facts.URL = "deferred"
	s.remember(x, notice.Notice{Kind: notice.Unavailable, Decision: policy.Decision{Action: policy.Defer}})
	if _, ok := s.recall(x); ok {
		t.Error("what may be over in a minute is remembered")
	}
}

func TestCurlAndWgetGetATrickle(t *testing.T) {
	body := noise(4 << 20)
	for _, c := range []struct {
		name string
		args func(r *rig, u, out string) []string
	}{
		{"curl", func(r *rig, u, out string) []string {
			return []string{"-sS", "--max-time", "60", "--proxy", "http://" + r.addr, "--cacert", r.caFile(), "-o", out, "-w", "%{time_starttransfer} %{time_total}", u}
		}},
		{"wget", func(r *rig, u, out string) []string {
			return []string{
				"-nv", "-T", "60", "-t", "1", "--ca-certificate", r.caFile(), "-O", out, "-e", "use_proxy=yes",
				"-e", "http_proxy=http://" + r.addr, "-e", "https_proxy=http://" + r.addr, u,
			}
		}},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(c.name+strconv.FormatBool(secure), func(t *testing.T) {
				path := tool(t, c.name)
				r, s := holdRig(t)
				o := r.origin(wares(body))
				if secure {
					o = r.tlsOrigin(wares(body))
				}
				u := strings.Replace(o.URL, "127.0.0.1", "localhost", 1)
				out := filepath.Join(t.TempDir(), "file")
				go func() {
					for range 2 {
						<-s.waiting
						// Until something has come, there is no verdict.
						for range 300 {
							if i, err := os.Stat(out); err == nil && i.Size() > 0 {
								break
							}
							time.Sleep(10 * time.Millisecond)
						}
						s.release <- struct{}{}
					}
				}()
				if log, status := run(t, path, c.args(r, u+"/clean.len", out)...); status != 0 {
					t.Fatalf("exit status %d: %s", status, log)
				}
				if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, body) {
					t.Fatalf("%d bytes that differ, or %v", len(got), err)
				}
				_ = os.Remove(out)
				log, status := run(t, path, c.args(r, u+"/late.len", out)...)
				got, _ := os.ReadFile(out) // missing when nothing came
				if status == 0 || eicarIn(string(got)) || len(got) > len(body)/trickleShare {
					t.Errorf("exit status %d, %d bytes: %s", status, len(got), log)
				}
				if len(got) == 0 {
					t.Error("nothing came before the verdict")
				}
			})
		}
	}
}

func TestTrickleGoesOnBeyondTheLimit(t *testing.T) {
	r, s := holdRig(t, func(p *plan) {
		p.web.MaxBody = 3 * units.MiB
		p.policy.TooLarge = policy.Pass
	})
	resp, err := request(t, r.client(), r.origin(wares(noise(4<<20))).URL+"/clean")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-s.waiting
	close(s.release)
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, noise(4<<20)) {
		t.Errorf("%d bytes that differ, or %v", len(got), err)
	}
	r.audit.wait(t, "the trickle", func(x audit.Record) bool { return x.Event == audit.Exempt && x.Kind == "trickle" })
}
