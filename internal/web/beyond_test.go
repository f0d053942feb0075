package web

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/units"
)

// beyondRig is a gateway that takes 100,000 bytes of a body, and lets larger ones pass.
func beyondRig(t *testing.T, change ...func(*plan)) *rig {
	return newRig(t, append([]func(*plan){func(p *plan) { p.web.MaxBody, p.policy.TooLarge = 100_000, policy.Pass }}, change...)...)
}

// notedBeyond returns how many bodies were recorded to pass beyond the limit, and how many as too large but passed.
func notedBeyond(r *rig) (exempt, objects int) {
	for _, x := range r.audit.list() {
		if x.Event == audit.Exempt && x.Kind == "too-large" {
			exempt++
		}
		if x.Event == audit.Object && x.Verdict.Reason == scan.TooLarge && x.Decision.Rule == "policy.too_large" && x.Decision.Action == policy.Pass {
			objects++
		}
	}
	return exempt, objects
}

func TestTooLargePassesWhole(t *testing.T) {
	r := beyondRig(t)
	content := seq(3 << 20)
	var got string
	h := func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Method == http.MethodPut:
			b, err := io.ReadAll(req.Body)
			got = fmt.Sprint(len(b), bytes.Equal(b, content), err, req.ContentLength)
			return
		case req.URL.Path == "/chunked":
			_ = http.NewResponseController(w).Flush()
		case req.URL.Path == "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Etag", `"v1"`)
			_, _ = io.WriteString(w, gz(content))
			return
		default:
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		}
		_, _ = w.Write(content)
	}
	n := 0
	for name, u := range map[string]string{"http": r.origin(h).URL, "https": r.tlsOrigin(h).URL} {
		for _, path := range []string{"/known", "/chunked", "/gzip"} {
			resp, body := get(t, r.client(), u+path, "Accept-Encoding", "gzip")
			if n++; resp.StatusCode != http.StatusOK || body != string(content) || resp.Header.Get("Content-Encoding") != "" {
				t.Errorf("%s%s: %s, %d bytes", name, path, resp.Status, len(body))
			}
			if want := int64(len(content)); path == "/known" && resp.ContentLength != want {
				t.Errorf("%s: the length became %d", name, resp.ContentLength)
			}
		}
		resp, body := get(t, r.client(), u+"/gzip")
		if n++; body != gz(content) || resp.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: as it came: %s, %d bytes", name, resp.Status, len(body))
		}
		for _, length := range []int{len(content), -1} {
			body := io.Reader(bytes.NewReader(content))
			if length < 0 {
				body = onlyReader{body}
			}
			got = ""
			resp, _ := do(t, r.client(), http.MethodPut, u, body)
			if n++; resp.StatusCode != http.StatusOK || got != fmt.Sprint(len(content), true, nil, length) {
				t.Errorf("%s: upload of %d: %s, the origin got %s", name, length, resp.Status, got)
			}
		}
	}
	if exempt, objects := notedBeyond(r); exempt != n || objects != n {
		t.Errorf("%d exemptions and %d objects are recorded, want %d", exempt, objects, n)
	}
}

func TestVirusBeforeTheLimitDoesNotPassWithWhatIsBeyond(t *testing.T) {
	r := beyondRig(t)
	content := append(append([]byte{}, scan.EICAR()...), seq(1<<20)...)
	reached := false
	o := r.origin(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			reached = true
		}
		_, _ = w.Write(content)
	})
	resp, body := get(t, r.client(), o.URL)
	wantPage(t, resp, body, 403, notice.Infected)
	resp, body = do(t, r.client(), http.MethodPut, o.URL, bytes.NewReader(content))
	wantPage(t, resp, body, 403, notice.Infected)
	if reached {
		t.Error("a part of it reached the origin")
	}
}

func TestBlockedTypeDoesNotPassByBeingLarge(t *testing.T) {
	r := beyondRig(t, func(p *plan) {
		p.policy.Rules = []policy.Rule{{Name: "no-scripts", FileTypes: []string{"script"}, Action: policy.Block}}
	})
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "#!/bin/sh\n"+strings.Repeat("echo\n", 1<<18))
	})
	resp, body := get(t, r.client(), o.URL+"/x.sh")
	wantPage(t, resp, body, 403, notice.NotScanned)
}

func TestOnlyTheRulesHostMaySendBeyond(t *testing.T) {
	r := newRig(t, func(p *plan) {
		p.web.MaxBody = 100_000
		p.policy.Rules = []policy.Rule{{Name: "mirror", Hosts: []string{"localhost"}, Outcome: []string{"too_large"}, LargerThan: units.KiB, Action: policy.Pass}}
	})
	content := seq(1 << 20)
	o := r.origin(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	resp, body := get(t, r.client(), o.URL)
	wantPage(t, resp, body, 403, notice.NotScanned)
	resp, body = get(t, r.client(), strings.Replace(o.URL, "127.0.0.1", "localhost", 1))
	if resp.StatusCode != http.StatusOK || body != string(content) {
		t.Errorf("%s, %d bytes", resp.Status, len(body))
	}
}

func TestAnswerBeyondTheLimitThatBreaksOffIsAborted(t *testing.T) {
	r := beyondRig(t)
	u := r.canned("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + string(seq(500_000)))
	resp, err := r.client().Get("http://" + u)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= 1_000_000 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
