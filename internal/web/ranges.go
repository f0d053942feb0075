package web

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/scan"
)

// rangeWanted says whether the client asked for a part of what was fetched whole.
func (c *call) rangeWanted(resp *http.Response, trailer http.Header) bool {
	return c.r.Method == http.MethodGet && resp.StatusCode == http.StatusOK && len(trailer) == 0 && len(c.r.Header["Range"]) == 1
}

// slice delivers the part that the client asked for (RFC 9110, 14), cut from the object that was judged. The header is in
// place.
func (c *call) slice(resp *http.Response, o *scan.Object) {
	h := c.w.Header()
	// They cover the whole message, not the part.
	for _, name := range []string{"Content-Md5", "Content-Digest", "Content-Length"} {
		delete(h, name)
	}
	// The conditions were the origin's affair: it has answered 200.
	r := (&http.Request{Method: http.MethodGet, URL: c.r.URL, Header: http.Header{"Range": c.r.Header["Range"]}}).WithContext(c.r.Context())
	if cond := c.r.Header["If-Range"]; len(cond) > 0 {
		r.Header["If-Range"] = cond
	}
	modified, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil {
		modified = time.Time{}
	}
	out, stop := pacedWriter(c.w, c.set.pacing)
	w := &sliceWriter{ResponseWriter: c.w, out: out}
	c.head = true
	content, end := c.taken(o.Body)
	http.ServeContent(w, r, "", modified, content)
	end()
	if err := stop(); err != nil || w.err != nil {
		c.abort()
	}
}

// sliceWriter sends what http.ServeContent writes at the pace that is watched.
type sliceWriter struct {
	http.ResponseWriter
	out io.Writer
	err error
}

func (w *sliceWriter) Write(p []byte) (int, error) {
	n, err := w.out.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// wholeRange says whether a 206 holds the whole object, "bytes 0-99/100" (RFC 9110, 14.4).
func wholeRange(resp *http.Response) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(resp.Header.Get("Content-Range")), "bytes 0-")
	last, size, found := strings.Cut(rest, "/")
	n, err := strconv.ParseUint(size, 10, 62)
	if !ok || !found || err != nil || n == 0 || last != strconv.FormatUint(n-1, 10) {
		return false
	}
	return (resp.ContentLength < 0 || resp.ContentLength == int64(n)) && !strings.HasPrefix(mediaType(resp.Header), "multipart/byteranges")
}
