package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"lazaret/internal/notice"
)

func TestShutdownEndsJobs(t *testing.T) {
	r := quickRig(t)
	h := newHalves(noise(4 << 20))
	o := r.origin(h.ServeHTTP)
	resp, body := get(t, r.client(), o.URL+"/x", browser...)
	wantProgress(t, resp, body)
	if fetching, ready := r.server.Downloads(); fetching != 1 || ready != 0 {
		t.Errorf("%d downloads are being fetched, %d are ready", fetching, ready)
	}
	r.stop()
	if fetching, ready := r.server.Downloads(); fetching != 0 || ready != 0 || r.pool.Usage().Disk != 0 {
		t.Errorf("after the end %d downloads are being fetched, %d are ready; the spool holds %+v", fetching, ready, r.pool.Usage())
	}
}

func TestOriginThatBreaksOffIsSaidOnTheProgressPage(t *testing.T) {
	r := quickRig(t)
	broke := make(chan struct{})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("Content-Length", strconv.Itoa(8<<20))
		_, _ = w.Write(noise(4 << 20))
		_ = http.NewResponseController(w).Flush()
		<-broke
		panic(http.ErrAbortHandler)
	})
	resp, body := get(t, r.client(), o.URL+"/x", browser...)
	status := wantProgress(t, resp, body)
	close(broke)
	resp, body = follow(t, r.client(), o.URL, status)
	wantPage(t, resp, body, http.StatusBadGateway, notice.OriginProtocol)
}

// What an expired address leads to must be a path of the same site for any reader of URLs.
func FuzzFromOf(f *testing.F) {
	for _, s := range []string{"from=%2Fa", "from=//evil.example", "from=/%5Cevil", "from=/a%0d%0aSet-Cookie:x", "from=https:evil", "from=/a&from=//b", "from=/%09/evil"} {
		f.Add(s)
	}
	base, _ := url.Parse("https://site.example/x")
	f.Fuzz(func(t *testing.T, query string) {
		from, ok := fromOf(query)
		if !ok {
			return
		}
		to, err := base.Parse(from)
		if err != nil {
			return // a browser that finds no URL goes nowhere
		}
		if to.Scheme != "https" || to.Host != "site.example" || strings.ContainsAny(from, "\r\n\t\\") || strings.HasPrefix(from, "//") {
			t.Errorf("%q leads to %q", query, from)
		}
	})
}
