package web

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
	"lazaret/test/ports"
)

func gz(b []byte) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func zl(b []byte) string {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.String()
}

func lengthOf(s string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(s)) }

// TestMalformedAnswers has an origin answer in ways that HTTP does not allow. Each is refused with a page, or read in one
// way; the virus never gets through.
func TestMalformedAnswers(t *testing.T) {
	r := newRig(t)
	virus := string(scan.EICAR())
	for _, c := range []struct {
		name, answer string
		status       int
		kind         notice.Kind
		body         string // of what is delivered
	}{
		{"nothing", "", 502, notice.OriginProtocol, ""},
		{"HTTP/0.9", virus, 502, notice.OriginProtocol, ""},
		{"garbage", "hello there\r\n\r\n" + virus, 502, notice.OriginProtocol, ""},
		{"no status", "HTTP/1.1\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"status of two digits", "HTTP/1.1 20 OK\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"status 000", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"status 999", "HTTP/1.1 999 No\r\nContent-Length: 2\r\n\r\nhi", 999, "", "hi"},
		{"negative status", "HTTP/1.1 -99 OK\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"head cut off", "HTTP/1.1 200 OK\r\nContent-Le", 502, notice.OriginProtocol, ""},
		{"header without colon", "HTTP/1.1 200 OK\r\nrubbish\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"header with a space", "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 2\r\n\r\nhi", 200, "", "hi"},
		{"space before the colon", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"header that is folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi", 200, "", "hi"},
		{"first header is folded", "HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"control character in a header", "HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 70\r\n\r\nhi" + virus, 502, notice.OriginProtocol, ""},
		{"two lengths in one", "HTTP/1.1 200 OK\r\nContent-Length: 2, 70\r\n\r\nhi" + virus, 502, notice.OriginProtocol, ""},
		{"the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 200, "", "hi"},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + virus, 502, notice.OriginProtocol, ""},
		{"length in hexadecimal", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"length with a sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"shorter than it says", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"longer than it says", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" + virus, 200, "", "hi"},
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n44\r\n" + virus + "\r\n0\r\n\r\n", 403, notice.Infected, ""},
		{"chunks and length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 500\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, "", "hi"},
		{"unknown transfer coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"misspelt transfer coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"two transfer codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"chunk size of nonsense", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"chunk size beyond measure", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi", 502, notice.OriginProtocol, ""},
		{"chunks cut off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n44\r\n" + virus + "\r\n", 502, notice.OriginProtocol, ""},
		{"chunks without an end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", 502, notice.OriginProtocol, ""},
		{"chunk extensions", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0;c\r\n\r\n", 200, "", "hi"},
		{"two locations", "HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", 502, notice.OriginProtocol, ""},
		{"two dispositions", "HTTP/1.1 200 OK\r\nContent-Disposition: inline\r\nContent-Disposition: attachment\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"a part that nobody asked for", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/70\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"parts that nobody asked for", "HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"a part that is the whole", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\n\r\nhi", 200, "", "hi"},
		{"a part that says it is the whole", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 3\r\n\r\nhi!", 502, notice.OriginProtocol, ""},
		{"a switch that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + virus, 502, notice.OriginProtocol, ""},
		{"asks for the proxy's password", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 400), 502, notice.OriginProtocol, ""},
		{"hints without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 50), 502, notice.OriginProtocol, ""},
		{"old version", "HTTP/1.0 200 OK\r\n\r\nhi", 200, "", "hi"},
		{"version 1.9", "HTTP/1.9 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "", "hi"},
		{"no length, no chunks", "HTTP/1.1 200 OK\r\n\r\nhi", 200, "", "hi"},
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", 200, "", "hi"},
		{"content where there is none", "HTTP/1.1 204 No Content\r\nContent-Length: 68\r\n\r\n" + virus, 204, "", ""},
		{"content of 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 68\r\n\r\n" + virus, 304, "", ""},
		{"content of 205", "HTTP/1.1 205 Reset Content\r\nContent-Length: 68\r\n\r\n" + virus, 205, "", ""},
		{"broken gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi", 403, notice.NotScanned, ""},
		{"gzip cut off", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gz(seq(5000))[:200], 403, notice.NotScanned, ""},
		{"unknown coding", "HTTP/1.1 200 OK\r\nContent-Encoding: rot13\r\nContent-Length: 2\r\n\r\nhi", 403, notice.NotScanned, ""},
		{"malformed list of codings", "HTTP/1.1 200 OK\r\nContent-Encoding: \"gzip\"\r\nContent-Length: 2\r\n\r\nhi", 502, notice.OriginProtocol, ""},
		{"gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + lengthOf(gz([]byte("hi"))) + "\r\n" + gz([]byte("hi")), 200, "", "hi"},
		{"x-gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: X-GZip\r\n\r\n" + gz([]byte("hi")), 200, "", "hi"},
		{"identity", "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi", 200, "", "hi"},
		{"gzip in gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\n\r\n" + gz([]byte(gz([]byte("hi")))), 200, "", "hi"},
		{"deflate in gzip, two lines", "HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Encoding: gzip\r\n\r\n" + gz([]byte(zl([]byte("hi")))), 200, "", "hi"},
		{"virus in gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gz(scan.EICAR()), 403, notice.Infected, ""},
		{"virus in deflate in gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: deflate, gzip\r\n\r\n" + gz([]byte(zl(scan.EICAR()))), 403, notice.Infected, ""},
		{"coding hidden by Connection", "HTTP/1.1 200 OK\r\nConnection: Content-Encoding\r\nContent-Encoding: gzip\r\n\r\n" + gz([]byte("hi")), 200, "", gz([]byte("hi"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(r.audit.list())
			cn := r.dial().send("GET http://" + r.canned(c.answer) + "/x HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, deflate, rot13\r\n\r\n")
			var resp *http.Response
			var err error
			for resp == nil || resp.StatusCode == http.StatusEarlyHints {
				if resp, err = http.ReadResponse(cn.br, nil); err != nil {
					t.Fatal(err)
				}
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			body := string(b)
			if resp.StatusCode != c.status || resp.Header.Get("X-Lazaret-Kind") != string(c.kind) || c.kind == "" && body != c.body {
				t.Errorf("%s %v %q", resp.Status, resp.Header, body)
			}
			if eicarIn(body) {
				t.Error("the virus got through")
			}
			if n := len(r.audit.list()) - before; n == 0 && (c.kind != "" || body != "") {
				t.Error("there is no record")
			}
		})
	}
}

func TestDecodedAnswersSayNothingOfTheirCoding(t *testing.T) {
	r := newRig(t)
	plain := seq(2000)
	answer := "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nEtag: \"v1\"\r\nContent-MD5: x\r\nDigest: x\r\nContent-Digest: x\r\nRepr-Digest: x\r\n" +
		"Vary: Accept-Encoding\r\nCache-Control: no-transform\r\n" + lengthOf(gz(plain)) + "\r\n" + gz(plain)
	resp, body := get(t, r.client(), "http://"+r.canned(answer)+"/x", "Accept-Encoding", "gzip")
	if body != string(plain) || resp.ContentLength != int64(len(plain)) {
		t.Fatalf("%s, %d bytes, length %d", resp.Status, len(body), resp.ContentLength)
	}
	for _, name := range []string{"Content-Encoding", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		if v := resp.Header.Get(name); v != "" {
			t.Errorf("%s: %s", name, v)
		}
	}
	if resp.Header.Get("Etag") != `"v1.lazaret-identity"` || resp.Header.Get("Vary") != "Accept-Encoding" || resp.Header.Get("Cache-Control") != "no-transform" {
		t.Errorf("%v", resp.Header)
	}
}

func TestUnaskedCodingIsDeliveredAsItCame(t *testing.T) {
	r := newRig(t)
	packed := gz(seq(2000))
	header := "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nEtag: \"v1\"\r\nContent-Digest: x\r\n"
	resp, body := get(t, r.client(), "http://"+r.canned(header+lengthOf(packed)+"\r\n"+packed)+"/x.tar.gz")
	if body != packed || resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("Etag") != `"v1"` || resp.Header.Get("Content-Digest") != "x" {
		t.Errorf("%s %v, %d bytes of %d", resp.Status, resp.Header, len(body), len(packed))
	}
	packed = gz(scan.EICAR())
	resp, body = get(t, r.client(), "http://"+r.canned(header+lengthOf(packed)+"\r\n"+packed)+"/x.com.gz")
	wantPage(t, resp, body, 403, notice.Infected)
	packed = gz(seq(2000))[:300]
	resp, body = get(t, r.client(), "http://"+r.canned(header+lengthOf(packed)+"\r\n"+packed)+"/x.com.gz")
	wantPage(t, resp, body, 403, notice.NotScanned)
}

func TestConditionsOfDecodedAnswers(t *testing.T) {
	r := newRig(t)
	seen := make(chan string, 1)
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		seen <- req.Header.Get("If-None-Match") + req.Header.Get("If-Match")
		w.Header().Set("Etag", `"v1"`)
		w.WriteHeader(http.StatusNotModified)
	})
	resp, _ := get(t, r.client(), o.URL, "If-None-Match", `"v1.lazaret-identity"`)
	if got := <-seen; got != `"v1"` || resp.StatusCode != http.StatusNotModified || resp.Header.Get("Etag") != `"v1.lazaret-identity"` {
		t.Errorf("the origin got %s, the client %s %v", got, resp.Status, resp.Header)
	}
	resp, _ = get(t, r.client(), o.URL, "If-None-Match", `"v1"`)
	if got := <-seen; got != `"v1"` || resp.Header.Get("Etag") != `"v1"` {
		t.Errorf("the origin got %s, the client %s %v", got, resp.Status, resp.Header)
	}
	do(t, r.client(), "PUT", o.URL, nil, "If-Match", `"v1.lazaret-identity"`)
	if got := <-seen; got != `"v1"` {
		t.Errorf("the origin got If-Match %s", got)
	}
}

func TestHeadOfEncodedAnswer(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		header string
		length int64
	}{
		{"Content-Length: 123\r\n", 123},
		{"Content-Length: 123\r\nContent-Encoding: gzip\r\n", -1},
		{"Content-Length: 123\r\nContent-Length: 123\r\n", 123},
	} {
		resp, _ := do(t, r.client(), "HEAD", "http://"+r.canned("HTTP/1.1 200 OK\r\n"+c.header+"\r\n")+"/", nil, "Accept-Encoding", "gzip")
		if resp.StatusCode != http.StatusOK || resp.ContentLength != c.length {
			t.Errorf("%q: %s, length %d", c.header, resp.Status, resp.ContentLength)
		}
	}
}

func TestUploadsOfEveryForm(t *testing.T) {
	r := newRig(t)
	reached := make(chan string, 1)
	o := r.origin(func(_ http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		reached <- req.Header.Get("Content-Encoding") + ":" + string(b)
	})
	form := func(content string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n" + content + "\r\n--b--\r\n"
	}
	virus := string(scan.EICAR())
	for _, c := range []struct {
		name, body string
		header     []string
		kind       notice.Kind // empty: it reaches the origin
	}{
		{"gzip", gz([]byte("letter")), []string{"Content-Encoding", "gzip"}, ""},
		{"virus in gzip", gz([]byte(virus)), []string{"Content-Encoding", "gzip"}, notice.Infected},
		{"broken gzip", "hello", []string{"Content-Encoding", "gzip"}, notice.NotScanned},
		{"form", form("letter"), []string{"Content-Type", "multipart/form-data; boundary=b"}, ""},
		{"virus in a form", form(virus), []string{"Content-Type", "multipart/form-data; boundary=b"}, notice.Infected},
		{"S3's chunks", awsChunks("letter"), []string{"Content-Encoding", "aws-chunked"}, ""},
		{"S3's chunks, gzip inside", awsChunks(gz([]byte("letter"))), []string{"Content-Encoding", "gzip, aws-chunked"}, ""},
		{"virus in S3's chunks", awsChunks(virus[:30], virus[30:]), []string{"Content-Encoding", "aws-chunked"}, notice.Infected},
		{"virus in gzip in S3's chunks", awsChunks(gz([]byte(virus))), []string{"Content-Encoding", "aws-chunked,gzip"}, notice.Infected},
		{"broken S3 chunks", "zz\r\nx", []string{"Content-Encoding", "aws-chunked"}, notice.NotScanned},
		{"two types", "x", []string{"Content-Type", "text/plain", "Content-Type", "text/html"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, chunked := range []bool{false, true} {
				var body io.Reader = strings.NewReader(c.body)
				if chunked {
					body = io.MultiReader(body)
				}
				resp, page := do(t, r.client(), "POST", o.URL, body, c.header...)
				if c.kind != "" {
					wantPage(t, resp, page, 403, c.kind)
				}
				select {
				case got := <-reached:
					if _, content, _ := strings.Cut(got, ":"); c.kind != "" || content != c.body {
						t.Errorf("the origin got %q", got)
					}
				default:
					if c.kind == "" {
						t.Errorf("%s %q", resp.Status, page)
					}
				}
			}
		})
	}
}

// awsChunks frames pieces as a client of S3 does.
func awsChunks(pieces ...string) string {
	var b strings.Builder
	for _, p := range append(pieces, "") {
		fmt.Fprintf(&b, "%x;chunk-signature=%064d\r\n%s\r\n", len(p), 7, p)
	}
	return b.String()
}

func TestUploadThatBreaksOff(t *testing.T) {
	r := newRig(t)
	reached := make(chan bool, 1)
	o := r.origin(func(http.ResponseWriter, *http.Request) { reached <- true })
	c := r.dial().send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	resp, body := c.response("POST")
	wantPage(t, resp, body, 400, notice.BadRequest)
	c = r.dial().send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
	c.Close()
	r.audit.wait(t, "the upload that was cut off", func(x audit.Record) bool { return x.Event == audit.Refuse && strings.Contains(x.Detail, "EOF") })
	select {
	case <-reached:
		t.Error("a part of an upload reached the origin")
	default:
	}
}

func TestTooLarge(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.MaxBody = 1000 })
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/chunked" {
			_ = http.NewResponseController(w).Flush()
		} else {
			w.Header().Set("Content-Length", "2000")
		}
		_, _ = w.Write(seq(2000))
	})
	for _, path := range []string{"/known", "/chunked"} {
		resp, body := get(t, r.client(), o.URL+path)
		wantPage(t, resp, body, 403, notice.NotScanned)
		if resp.Header.Get("X-Lazaret-Reason") != string(scan.TooLarge) {
			t.Errorf("%s: %v", path, resp.Header)
		}
		resp, body = do(t, r.client(), "POST", o.URL+path, bytes.NewReader(seq(2000)))
		wantPage(t, resp, body, 403, notice.NotScanned)
	}
	// A client that waits for 100 hears at once that it need not send.
	c := r.dial().send("PUT " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n")
	resp, body := c.response("PUT")
	wantPage(t, resp, body, 403, notice.NotScanned)
}

func TestOriginThatIsNotThere(t *testing.T) {
	r := newRig(t)
	gone, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	resp, body := get(t, r.client(), "http://"+gone+"/")
	wantPage(t, resp, body, 502, notice.OriginRefused)
	resp, body = get(t, r.client(), "https://"+gone+"/")
	wantPage(t, resp, body, 502, notice.OriginRefused)
	resp, body = r.dial().send("GET https://" + gone + "/ HTTP/1.1\r\nHost: x\r\n\r\n").response("GET")
	wantPage(t, resp, body, 502, notice.OriginRefused)
}

func TestScannerDownIsDeferred(t *testing.T) {
	r := newRig(t)
	o := r.origin(virusOrigin)
	r.gate.Close()
	resp, body := get(t, r.client(), o.URL+"/clean")
	wantPage(t, resp, body, 503, notice.Unavailable)
}

func TestOriginThatStalls(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.ReplyTimeout, p.web.StallTimeout = short, short })
	stall := func(before string) string {
		return r.rawOrigin(func(c net.Conn, br *bufio.Reader) {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			_, _ = io.WriteString(c, before)
			_, _ = br.ReadByte() // until the gateway gives up
		})
	}
	for name, before := range map[string]string{
		"no answer":    "",
		"half a head":  "HTTP/1.1 200 OK\r\nContent-",
		"half a body":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"half a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
	} {
		resp, body := get(t, r.client(), "http://"+stall(before)+"/")
		if wantPage(t, resp, body, 504, notice.OriginTimeout); t.Failed() {
			t.Log(name)
		}
	}
}

func TestOriginThatDrips(t *testing.T) {
	d := newWatchdog(pacing{stall: time.Hour, rate: 1000}, func(error) {})
	d.since = time.Now().Add(-2 * rateWindow)
	d.feed(50)
	if err := d.stop(); err == nil || !strings.Contains(err.Error(), errTooSlow.Error()) {
		t.Errorf("50 bytes in two minutes: %v", err)
	}
	d = newWatchdog(pacing{stall: time.Hour, rate: 1000}, func(error) {})
	d.since = time.Now().Add(-2 * rateWindow)
	d.feed(1 << 20)
	if err := d.stop(); err != nil {
		t.Errorf("a mebibyte in two minutes: %v", err)
	}
}
