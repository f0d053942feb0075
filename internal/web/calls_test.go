package web

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/envelope"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// framed returns a message as it is sent.
func framed(flags byte, content string) string {
	return string(envelope.Head{Flags: flags, Length: uint32(len(content))}.Append(nil)) + content //nolint:gosec // it is short
}

// talk begins a call, and returns what writes its request's content.
func talk(t testing.TB, c *http.Client, u, typ string, header ...string) (*http.Response, *io.PipeWriter) {
	t.Helper()
	pr, pw := io.Pipe()
	ctx, cancel := patient()
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", typ)
	req.Header.Set("TE", "trailers")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pw.Close(); _ = resp.Body.Close() })
	return resp, pw
}

// echoMessages sends back what it gets as it comes, and says how that ended. Compressed messages must not come.
func echoMessages(got chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", req.Header.Get("Content-Type"))
		_ = http.NewResponseController(w).Flush()
		p, _ := envelope.Of(mediaType(req.Header))
		in := envelope.NewReader(req.Body, p)
		var all strings.Builder
		for {
			h, err := in.Next()
			if err != nil {
				fmt.Fprintf(&all, "%v", err)
				break
			}
			b, _ := io.ReadAll(in)
			fmt.Fprintf(&all, "%d:%.20s;", h.Flags, b)
			_, _ = w.Write(append(h.Append(nil), b...))
			_ = http.NewResponseController(w).Flush()
		}
		if req.Header.Get(p.Encoding) != "" {
			fmt.Fprintf(&all, " %s: %q", p.Encoding, req.Header[p.Encoding])
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		got <- all.String()
	}
}

func TestBothSidesOfACallTalk(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 1)
	o := r.tlsOrigin(echoMessages(got))
	for _, typ := range []string{"application/grpc", "application/grpc+json", "application/connect+proto"} {
		p, _ := envelope.Of(typ)
		resp, pw := talk(t, r.client(), o.URL+"/svc/Method", typ, p.Encoding, "gzip")
		for i := range 3 {
			text := fmt.Sprintf("message %d", i)
			for _, c := range []byte(framed(1, string(gzipOf(t, []byte(text))))) { // a DATA frame for each byte
				_, _ = pw.Write([]byte{c})
			}
			want := framed(0, text)
			back := make([]byte, len(want))
			if _, err := io.ReadFull(resp.Body, back); err != nil || string(back) != want {
				t.Fatalf("%s: %q, %v", typ, back, err)
			}
		}
		_ = pw.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%s: the end: %q, %v, trailers %v", typ, rest, err, resp.Trailer)
		}
		if s := <-got; s != "0:message 0;0:message 1;0:message 2;EOF" {
			t.Errorf("%s: the origin got %s", typ, s)
		}
		for _, d := range []policy.Direction{policy.Upload, policy.Download} {
			r.audit.wait(t, "the call", func(x audit.Record) bool {
				return exempted(p.Name)(x) && x.Facts.Direction == d && x.Kind == strings.ToLower(p.Name)
			})
		}
	}
}

// TestCallThatBreaksItsProtocolIsRefused: neither side sees a proper end, or anything of what broke it.
func TestCallThatBreaksItsProtocolIsRefused(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 1)
	up := r.tlsOrigin(echoMessages(got))
	var body string
	down := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		if strings.Contains(req.URL.Path, "gzip") {
			w.Header().Set("Grpc-Encoding", "gzip")
		}
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	for name, c := range map[string]struct {
		body   string
		reason scan.Reason
	}{
		"reserved flags":               {framed(2, "x"), scan.Undecodable},
		"truncated":                    {framed(0, "some content")[:9], scan.Undecodable},
		"half a head":                  {"\x00\x00", scan.Undecodable},
		"4 GiB":                        {"\x00\xff\xff\xff\xffcontent", scan.TooLarge},
		"compressed without saying so": {framed(1, string(gzipOf(t, []byte("x")))), scan.Undecodable},
		"broken gzip":                  {framed(1, string(gzipOf(t, []byte("some content"))[:15])), scan.Undecodable},
		"behind gzip":                  {framed(1, string(gzipOf(t, []byte("some content")))+eicarText()), scan.Undecodable},
		"not gzip":                     {framed(1, "some content"), scan.Undecodable},
	} {
		path := "/gzip"
		if strings.HasPrefix(name, "compressed") {
			path = "/"
		}
		wantRecord := func(d policy.Direction, ref string) {
			t.Helper()
			r.audit.wait(t, name, func(x audit.Record) bool {
				return x.Event == audit.Object && x.Kind == "grpc" && x.Facts.Direction == d && x.Verdict.Reason == c.reason && strings.Contains(ref, x.Reference)
			})
		}
		body = framed(0, "good") + c.body
		resp, pw := talk(t, r.client(), down.URL+path, "application/grpc")
		_ = pw.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != framed(0, "good") || resp.Trailer.Get("Grpc-Status") == "0" || resp.Trailer.Get("Grpc-Status") == "" {
			t.Errorf("%s: %q, %v, %v", name, b, err, resp.Trailer)
		}
		wantRecord(policy.Download, resp.Trailer.Get("Grpc-Message"))

		var header []string
		if path == "/gzip" {
			header = []string{"Grpc-Encoding", "gzip"}
		}
		resp, pw = talk(t, r.client(), up.URL, "application/grpc", header...)
		_, _ = io.WriteString(pw, body)
		_ = pw.Close()
		_, _ = io.ReadAll(resp.Body)
		if s := resp.Trailer.Get("Grpc-Status"); s == "" || s == "0" {
			t.Errorf("%s, uploaded: the answer ends with %v", name, resp.Trailer)
		}
		wantRecord(policy.Upload, resp.Trailer.Get("Grpc-Message"))
		if s := strings.TrimPrefix(<-got, "0:good;"); !strings.HasPrefix(s, "stream error") { // whether the good one is in time is chance
			t.Errorf("%s: the origin got %s", name, s)
		}
	}
}

// TestVirusInManyFramesIsFound, each of which has one byte of it.
func TestVirusInManyFramesIsFound(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 1)
	o := r.tlsOrigin(echoMessages(got))
	for _, m := range []string{framed(0, eicarText()), framed(1, string(gzipOf(t, scan.EICAR())))} {
		resp, pw := talk(t, r.client(), o.URL, "application/grpc", "Grpc-Encoding", "gzip")
		for _, c := range []byte(m) {
			_, _ = pw.Write([]byte{c})
		}
		if b, _ := io.ReadAll(resp.Body); len(b) > 0 || resp.Trailer.Get("Grpc-Status") != "7" || !strings.Contains(resp.Trailer.Get("Grpc-Message"), "virus") {
			t.Errorf("%q, %v", b, resp.Trailer)
		}
		if s := <-got; !strings.HasPrefix(s, "stream error") {
			t.Errorf("the origin got %s", s)
		}
	}
}

// TestCallThatIsBrokenOffIsBrokenOff: what the origin does is not made a proper end.
func TestCallThatIsBrokenOffIsBrokenOff(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = io.WriteString(w, framed(0, "good"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, _ := talk(t, r.client(), o.URL, "application/grpc")
	if b, err := io.ReadAll(resp.Body); err == nil || string(b) != framed(0, "good") || len(resp.Trailer) > 0 {
		t.Errorf("%q, %v, %v", b, err, resp.Trailer)
	}
}

// TestMessageOfACallThatDoesNotEndIsCutOff, either way: bytes that trickle in hold nothing for ever.
func TestMessageOfACallThatDoesNotEndIsCutOff(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.GRPC.MessageTime = short })
	got := make(chan string, 1)
	up := r.tlsOrigin(echoMessages(got))
	down := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = io.WriteString(w, framed(0, "never whole")[:8])
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
	})
	for u, d := range map[string]policy.Direction{up.URL: policy.Upload, down.URL: policy.Download} {
		resp, pw := talk(t, r.client(), u, "application/grpc")
		if d == policy.Upload {
			_, _ = io.WriteString(pw, framed(0, "never whole")[:8])
		}
		if b, _ := io.ReadAll(resp.Body); len(b) > 0 || resp.Trailer.Get("Grpc-Status") != "7" {
			t.Errorf("%s: %q, %v", d, b, resp.Trailer)
		}
		r.audit.wait(t, "the message", func(x audit.Record) bool {
			return x.Event == audit.Refuse && x.Facts.Direction == d && strings.Contains(x.Detail, "message_time")
		})
	}
	if s := <-got; strings.Contains(s, "never") {
		t.Errorf("the origin got %s", s)
	}
}

func TestGRPCThatAnswersWithAFileIsHeld(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(virusOrigin)
	resp, body := do(t, r.client(), "POST", o.URL+"/eicar.com", strings.NewReader(framed(0, "x")), "Content-Type", "application/grpc")
	wantPage(t, resp, body, 403, notice.Infected)
}

// TestHeldMessagesAreJudged: requests by gRPC-Web, and calls by HTTP/1.1, are objects. What their messages are compressed by is undone.
func TestHeldMessagesAreJudged(t *testing.T) {
	r := newRig(t)
	reached := 0
	o := r.tlsOrigin(func(w http.ResponseWriter, req *http.Request) {
		reached++
		b, _ := io.ReadAll(req.Body)
		_, _ = w.Write(b)
	})
	virus := framed(1, string(gzipOf(t, scan.EICAR())))
	for typ, body := range map[string]string{
		"application/grpc-web":            eicarText(),
		"application/grpc-web+proto":      virus,
		"application/grpc-web-text":       base64.StdEncoding.EncodeToString([]byte(virus)),
		"application/grpc-web-text+proto": base64.StdEncoding.EncodeToString([]byte(framed(0, eicarText()))),
	} {
		resp, page := do(t, r.client(), "POST", o.URL+"/upload", strings.NewReader(body), "Content-Type", typ, "Grpc-Encoding", "gzip")
		wantPage(t, resp, page, 403, notice.Infected)
	}
	for _, typ := range []string{"application/grpc", "application/connect+json"} {
		resp, page := do(t, r.client(noHTTP2), "POST", o.URL+"/upload", strings.NewReader(virus), "Content-Type", typ)
		wantPage(t, resp, page, 403, notice.Infected)
	}
	if reached > 0 {
		t.Errorf("%d requests came to the origin", reached)
	}
	good := framed(1, string(gzipOf(t, []byte("harmless"))))
	if resp, body := do(t, r.client(), "POST", o.URL+"/upload", strings.NewReader(good), "Content-Type", "application/grpc-web"); resp.StatusCode != http.StatusOK || body != good {
		t.Errorf("%s, %q", resp.Status, body)
	}
}

// TestAnswersInMessagesToBrowsers are streams of gRPC-Web and Connect, by HTTP/1.1 too. Good messages come at once; a bad one ends
// the call as its protocol has it.
func TestAnswersInMessagesToBrowsers(t *testing.T) {
	r := newRig(t)
	for _, change := range [][]func(*http.Transport){{}, {noHTTP2}} {
		for typ, end := range map[string]string{
			"application/grpc-web+proto": "grpc-status: 7\r\ngrpc-message: blocked: a virus was found in a message, reference ",
			"application/grpc-web-text":  "grpc-status: 7\r\ngrpc-message: blocked: a virus was found in a message, reference ",
			"application/connect+json":   `{"error":{"code":"permission_denied","message":"blocked: a virus was found in a message, reference `,
		} {
			p, _ := envelope.Of(typ)
			next := make(chan bool)
			o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", typ)
				w.Header().Set(p.Encoding, "gzip")
				w.Header().Set(p.Accept, "mystery, gzip")
				for _, text := range []string{"first", eicarText()} {
					m := framed(1, string(gzipOf(t, []byte(text))))
					if p.Text {
						m = base64.StdEncoding.EncodeToString([]byte(m))
					}
					_, _ = io.WriteString(w, m)
					_ = http.NewResponseController(w).Flush()
					<-next
				}
			})
			resp, err := r.client(change...).Post(o.URL+"/svc/Method", typ, strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Header.Get(p.Encoding) != "" || resp.Header.Get(p.Accept) != "gzip" {
				t.Errorf("%s: %v", typ, resp.Header)
			}
			in := envelope.NewReader(resp.Body, p)
			if h, err := in.Next(); err != nil || h.Flags != 0 {
				t.Fatalf("%s: %+v, %v", typ, h, err)
			}
			if b, err := io.ReadAll(in); err != nil || string(b) != "first" {
				t.Errorf("%s: %q, %v", typ, b, err)
			}
			next <- true
			h, err := in.Next()
			if err != nil || h.Flags != p.End {
				t.Fatalf("%s: %+v, %v", typ, h, err)
			}
			if b, err := io.ReadAll(in); err != nil || !strings.HasPrefix(string(b), end) {
				t.Errorf("%s: %q, %v", typ, b, err)
			}
			close(next)
		}
	}
}

// TestConnectUploadThatIsRefusedIsAnswered in Connect's words, where there was no answer yet.
func TestConnectUploadThatIsRefusedIsAnswered(t *testing.T) {
	r := newRig(t)
	o := r.tlsOrigin(func(_ http.ResponseWriter, req *http.Request) {
		if b, err := io.ReadAll(req.Body); err == nil || len(b) > 0 {
			t.Errorf("the origin got %q, %v", b, err)
		}
	})
	resp, body := do(t, r.client(), "POST", o.URL, strings.NewReader(framed(0, eicarText())), "Content-Type", "application/connect+proto")
	in := envelope.NewReader(strings.NewReader(body), envelope.Protocol{End: 2})
	h, err := in.Next()
	if err != nil || h.Flags != 2 || !strings.Contains(body, `{"error":{"code":"permission_denied"`) || resp.Header.Get("X-Lazaret-Kind") != "infected" {
		t.Errorf("%v %q, %v", resp.Header, body, err)
	}
}

// TestContentCodingOfACallIsUndone, although nobody uses one with gRPC.
func TestContentCodingOfACallIsUndone(t *testing.T) {
	r := newRig(t)
	got := make(chan string, 1)
	o := r.tlsOrigin(echoMessages(got))
	resp, body := do(t, r.client(), "POST", o.URL, bytes.NewReader(gzipOf(t, []byte(framed(0, "hi")))), "Content-Type", "application/grpc", "Content-Encoding", "gzip")
	if s := <-got; s != "0:hi;EOF" || body != framed(0, "hi") {
		t.Errorf("%s; %v %q", s, resp.Header, body)
	}
	resp, body = do(t, r.client(), "POST", o.URL, strings.NewReader("x"), "Content-Type", "application/grpc", "Content-Encoding", "rot13")
	wantPage(t, resp, body, 400, notice.BadRequest)
}

// TestMessagesWaitForWhoReadsThem: what nobody takes is not taken in without end.
func TestMessagesWaitForWhoReadsThem(t *testing.T) {
	r := newRig(t)
	const size, n = 1 << 20, 32
	sent := make(chan int, n)
	o := r.tlsOrigin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		m := framed(0, strings.Repeat("x", size))
		for i := range n {
			if _, err := io.WriteString(w, m); err != nil {
				return
			}
			sent <- i
		}
		close(sent)
	})
	resp, pw := talk(t, r.client(func(tr *http.Transport) { tr.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10} }), o.URL, "application/grpc")
	_ = pw.Close()
	time.Sleep(time.Second / 2) // nothing is waited for: this only gives the origin time to send too much
	if held := r.pool.Usage(); held.Memory+held.Disk > 8*(size+(4<<20)) {
		t.Errorf("%+v is held", held)
	}
	if len(sent) == n {
		t.Error("all was taken in, although nobody read")
	}
	all, err := io.Copy(io.Discard, resp.Body)
	if err != nil || all != n*(size+envelope.HeadSize) {
		t.Errorf("%d bytes, %v", all, err)
	}
}
