package web

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"testing"
	"time"

	"lazaret/internal/notice"
	"lazaret/internal/scan"
)

// rangeOrigin serves ranges by itself, of a file and of a virus, and counts what it is asked for.
func rangeOrigin(t *testing.T, file []byte) http.HandlerFunc {
	modified := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header.Get("Range") + r.Header.Get("If-Range"); v != "" {
			t.Errorf("the origin was asked for %q", v)
		}
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Content-Type", "video/x-test")
		w.Header().Set("Content-MD5", "of the whole")
		content := file
		if r.URL.Path == "/virus" {
			content = append(scan.EICAR(), "\n"...)
		}
		http.ServeContent(w, r, "", modified, bytes.NewReader(content))
	}
}

func TestRangesAreCutFromTheWhole(t *testing.T) {
	file := seq(100 << 10)
	r := newRig(t)
	for name, u := range map[string]string{"http": r.origin(rangeOrigin(t, file)).URL, "https": r.tlsOrigin(rangeOrigin(t, file)).URL} {
		c := r.client()
		for _, x := range []struct {
			header []string
			status int
			first  int
			last   int // exclusive
		}{
			{[]string{"Range", "bytes=0-99"}, 206, 0, 100},
			{[]string{"Range", "bytes=1000-"}, 206, 1000, len(file)},
			{[]string{"Range", "bytes=-5"}, 206, len(file) - 5, len(file)},
			{[]string{"Range", "bytes=99999999-"}, 416, 0, 0},
			{[]string{"Range", "bytes=5-2"}, 416, 0, 0},
			{[]string{"Range", "lines=1-2"}, 416, 0, 0},
			{[]string{"Range", "bytes=0-1", "Range", "bytes=2-3"}, 200, 0, len(file)},
			{[]string{"Range", "bytes=10-19", "If-Range", `"v1"`}, 206, 10, 20},
			{[]string{"Range", "bytes=10-19", "If-Range", `"v0"`}, 200, 0, len(file)},
			{[]string{"Range", "bytes=10-19", "If-Range", `W/"v1"`}, 200, 0, len(file)},
			{[]string{"Range", "bytes=10-19", "If-Range", "Fri, 02 Jan 2026 03:04:05 GMT"}, 206, 10, 20},
			{[]string{"Range", "bytes=10-19", "If-Range", "Fri, 02 Jan 2026 03:04:06 GMT"}, 200, 0, len(file)},
			{nil, 200, 0, len(file)},
		} {
			resp, body := get(t, c, u+"/file", x.header...)
			if resp.StatusCode != x.status || x.status != 416 && body != string(file[x.first:x.last]) {
				t.Errorf("%s %v: %s, %d bytes; want %d, %d bytes", name, x.header, resp.Status, len(body), x.status, x.last-x.first)
			}
			if x.status != http.StatusPartialContent {
				continue
			}
			if got, want := resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", x.first, x.last-1, len(file)); got != want ||
				resp.Header.Get("Content-Type") != "video/x-test" || resp.Header.Get("Etag") != `"v1"` || resp.Header.Get("Content-Md5") != "" {
				t.Errorf("%s %v: %v, want %s", name, x.header, resp.Header, want)
			}
		}
	}
}

func TestSeveralRangesAtOnce(t *testing.T) {
	file := seq(10 << 10)
	r := newRig(t)
	resp, body := get(t, r.client(), r.origin(rangeOrigin(t, file)).URL+"/file", "Range", "bytes=0-9,100-109,-5")
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || resp.StatusCode != http.StatusPartialContent {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	mr := multipart.NewReader(bytes.NewReader([]byte(body)), params["boundary"])
	for _, want := range []string{string(file[0:10]), string(file[100:110]), string(file[len(file)-5:])} {
		p, err := mr.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(p); string(got) != want {
			t.Errorf("part %q, want %q", got, want)
		}
	}
}

func TestVirusCannotBeFetchedInPieces(t *testing.T) {
	r := newRig(t)
	o := r.origin(rangeOrigin(t, nil))
	for _, v := range []string{"bytes=0-33", "bytes=34-", "bytes=0-0", "bytes=-10", "bytes=0-9,20-29"} {
		resp, body := get(t, r.client(), o.URL+"/virus", "Range", v)
		wantPage(t, resp, body, 403, notice.Infected)
	}
}

func TestRangeOfEncodedAnswerIsOfTheDecoded(t *testing.T) {
	file := seq(5000)
	r := newRig(t)
	u := "http://" + r.canned("HTTP/1.1 200 OK\r\nEtag: \"v1\"\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\n\r\n"+gz(file)) + "/"
	resp, body := get(t, r.client(), u, "Range", "bytes=100-199", "Accept-Encoding", "gzip", "If-Range", `"v1.lazaret-identity"`)
	if resp.StatusCode != http.StatusPartialContent || body != string(file[100:200]) || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("%s %v %q", resp.Status, resp.Header, body)
	}
	// A client that has a part of the encoded form must not go on with the decoded one.
	resp, body = get(t, r.client(), u, "Range", "bytes=100-199", "Accept-Encoding", "gzip", "If-Range", `"v1"`)
	if resp.StatusCode != http.StatusOK || body != string(file) {
		t.Errorf("%s %v, %d bytes", resp.Status, resp.Header, len(body))
	}
}

func TestWholeRange(t *testing.T) {
	for v, want := range map[string]bool{
		"bytes 0-9/10": true, "Bytes 0-9/10": true, "bytes 0-9/*": false, "bytes 1-9/10": false, "bytes 0-8/10": false, "bytes */10": false,
		"": false, "bytes 0-9/10 ": false, "bytes 0-9/10x": false, "bytes 0--1/0": false, "bytes +0-9/10": false, "lines 0-9/10": false,
		"bytes 00-9/10": false,
	} {
		if got := wholeRange(&http.Response{Header: http.Header{"Content-Range": {v}}, ContentLength: -1}); got != want {
			t.Errorf("%q: %v", v, got)
		}
	}
}
