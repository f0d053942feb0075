package web

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// virusOrigin has a clean page and a virus.
func virusOrigin(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/clean":
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "harmless, by "+r.Proto)
	case "/eicar.com":
		_, _ = w.Write(scan.EICAR())
	case "/upload":
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write([]byte("took " + string(b)))
	default:
		http.NotFound(w, r)
	}
}

func TestPlainDownloads(t *testing.T) {
	r := newRig(t)
	o := r.origin(virusOrigin)
	c := r.client()
	for range 3 {
		if resp, body := get(t, c, o.URL+"/clean"); resp.StatusCode != http.StatusOK || body != "harmless, by HTTP/1.1" {
			t.Errorf("clean: %s %q", resp.Status, body)
		}
	}
	resp, body := get(t, c, o.URL+"/eicar.com")
	wantPage(t, resp, body, 403, notice.Infected)
	if eicarIn(body) {
		t.Error("the page has the virus in it")
	}
	rec := r.audit.wait(t, "the virus", func(x audit.Record) bool { return x.Verdict.Outcome == scan.Infected })
	if rec.Facts.Protocol != "http" || rec.Facts.URL != o.URL+"/eicar.com" || rec.Facts.Method != http.MethodGet || rec.Facts.Status != http.StatusOK ||
		rec.Facts.Direction != policy.Download || !rec.Facts.Client.IsLoopback() || rec.Reference != resp.Header.Get("X-Lazaret-Reference") {
		t.Errorf("the record is %+v", rec)
	}
}

func TestInspectedDownloads(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			r := newRig(t)
			o := r.tlsOrigin(virusOrigin)
			c := r.client()
			if proto == "HTTP/1.1" {
				c = r.client(noHTTP2)
			}
			for range 3 {
				resp, body := get(t, c, o.URL+"/clean")
				if resp.StatusCode != http.StatusOK || body != "harmless, by "+proto || resp.Proto != proto {
					t.Errorf("clean: %s %s %q", resp.Proto, resp.Status, body)
				}
			}
			resp, body := get(t, c, o.URL+"/eicar.com")
			wantPage(t, resp, body, 403, notice.Infected)
			rec := r.audit.wait(t, "the virus", func(x audit.Record) bool { return x.Verdict.Outcome == scan.Infected })
			if rec.Facts.Protocol != "https" || rec.Facts.URL != o.URL+"/eicar.com" {
				t.Errorf("the record is %+v", rec)
			}
		})
	}
}

func TestUploads(t *testing.T) {
	r := newRig(t)
	for name, o := range map[string]string{"http": r.origin(virusOrigin).URL, "https": r.tlsOrigin(virusOrigin).URL} {
		t.Run(name, func(t *testing.T) {
			c := r.client()
			if resp, body := do(t, c, "POST", o+"/upload", strings.NewReader("a letter")); body != "took a letter" {
				t.Errorf("clean: %s %q", resp.Status, body)
			}
			resp, body := do(t, c, "PUT", o+"/upload", strings.NewReader(string(scan.EICAR())))
			wantPage(t, resp, body, 403, notice.Infected)
			if strings.Contains(body, "took") {
				t.Error("the upload reached the origin")
			}
			r.audit.wait(t, "the upload", func(x audit.Record) bool {
				return x.Verdict.Outcome == scan.Infected && x.Facts.Direction == policy.Upload && x.Facts.Protocol == name
			})
		})
	}
}
