package admin

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestPageDuringARotation shows every certificate that is to be trusted, with its files and fingerprints, in one language.
func TestPageDuringARotation(t *testing.T) {
	src := sources(t)
	next, former := authority(t, "the next", time.Now().Add(time.Hour)), authority(t, "the former", time.Now().Add(time.Hour))
	src.OtherCAs = func() []OtherCA {
		return []OtherCA{{Certificate: next, Next: true}, {Certificate: former}}
	}
	s := server(t, Default(), src)
	all := []*x509.Certificate{src.CA(), next, former}
	_, page := get(s, http.MethodGet, "127.0.0.1:8128", outsider, "/")
	for n, c := range all {
		path := []string{"/ca", "/ca/" + handle(next), "/ca/" + handle(former)}[n]
		if !strings.Contains(page, fingerprint(c)) || !strings.Contains(page, colons(sha1Sum(c.Raw))) || !strings.Contains(page, certName(c)) {
			t.Errorf("%s is not on the page", certName(c))
		}
		for ending, form := range caForms {
			if !strings.Contains(page, `"`+path+"."+ending+`"`) {
				t.Errorf("there is no link to %s.%s", path, ending)
			}
			res, body := get(s, http.MethodGet, "127.0.0.1", outsider, path+"."+ending)
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != form.contentType || body != string(form.encode(c)) {
				t.Errorf("%s.%s: %d %s", path, ending, res.StatusCode, res.Header.Get("Content-Type"))
			}
		}
	}
	_, bundle := get(s, http.MethodGet, "127.0.0.1", outsider, "/ca-all.pem")
	for _, c := range all {
		block, rest := pem.Decode([]byte(bundle))
		if block == nil || string(block.Bytes) != string(c.Raw) {
			t.Fatalf("%s is not in its place in /ca-all.pem", certName(c))
		}
		bundle = string(rest)
	}
	for _, path := range []string{"/ca/0000000000000000.pem", "/ca/" + handle(next) + ".key", "/ca/" + handle(next), "/ca/..%2fca.key", "/ca/"} {
		if res, body := get(s, http.MethodGet, "127.0.0.1", outsider, path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %.80q", path, res.StatusCode, body)
		}
	}
	for _, system := range []string{
		"Windows", "macOS", "iPhone", "Android", "Debian", "Fedora", "Arch", "Firefox", "Chromium", "Java", "curl --cacert", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS",
		"REQUESTS_CA_BUNDLE", "Docker", "http://127.0.0.1:8128/ca.pem",
	} {
		if !strings.Contains(page, system) {
			t.Errorf("there is nothing about %s", system)
		}
	}
	// Without a rotation there is no word of one.
	if _, page := get(server(t, Default(), sources(t)), http.MethodGet, "127.0.0.1", outsider, "/"); strings.Contains(page, pageLanguages[0].texts.Rotation) {
		t.Error("a rotation is announced where there is none")
	}
}

func TestPageLanguages(t *testing.T) {
	s := server(t, Default(), sources(t))
	seen := map[string]bool{}
	for _, l := range pageLanguages {
		v := reflect.ValueOf(l.texts)
		for n := range v.NumField() {
			if v.Field(n).String() == "" {
				t.Errorf("%s has no text %s", l.tag, v.Type().Field(n).Name)
			}
		}
		if seen[l.texts.Why] {
			t.Errorf("%s has another language's text", l.tag)
		}
		seen[l.texts.Why] = true
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1/", http.NoBody)
		r.Header.Set("Accept-Language", l.tag+", en;q=0.5")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if body := w.Body.String(); !strings.Contains(body, l.texts.Why) || !strings.Contains(body, `lang="`+l.tag+`"`) || w.Header().Get("Vary") != "Accept-Language" {
			t.Errorf("%s is not given to who asks for it", l.tag)
		}
	}
	for _, other := range []string{"", "tlh", "*", strings.Repeat("de,", 1000), ";;;"} {
		if lang, _ := textsFor(other); lang != "en" {
			t.Errorf("%.20q gives %s", other, lang)
		}
	}
}
