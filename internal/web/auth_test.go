package web

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/notice"
	"lazaret/internal/scan"

	"golang.org/x/crypto/bcrypt"
)

// htpasswd writes a file of users and passwords: name, password, name, password.
func htpasswd(t testing.TB, pairs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "htpasswd")
	writeUsers(t, path, pairs...)
	return path
}

func writeUsers(t testing.TB, path string, pairs ...string) {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		h, err := bcrypt.GenerateFromPassword([]byte(pairs[i+1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:%s\n", pairs[i], h)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func basic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

func TestProxyAuthentication(t *testing.T) {
	r := newRig(t, func(p *plan) { p.web.AuthFile = htpasswd(t, "anna", "geheim:mit Doppelpunkt", "bob", "other") })
	plain, secure := r.origin(virusOrigin), r.tlsOrigin(virusOrigin)
	get1 := "GET " + plain.URL + "/clean HTTP/1.1\r\nHost: x\r\n"
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"nothing", get1 + "\r\n", 407},
		{"another scheme", get1 + "Proxy-Authorization: Bearer x\r\n\r\n", 407},
		{"not base64", get1 + "Proxy-Authorization: Basic ???\r\n\r\n", 407},
		{"no colon", get1 + "Proxy-Authorization: Basic YW5uYQ==\r\n\r\n", 407},
		{"given twice", get1 + basic("anna", "x") + basic("anna", "geheim:mit Doppelpunkt") + "\r\n", 407},
		{"unknown user", get1 + basic("carl", "x") + "\r\n", 407},
		{"for the origin", get1 + strings.Replace(basic("anna", "geheim:mit Doppelpunkt"), "Proxy-", "", 1) + "\r\n", 407},
		{"right", get1 + basic("anna", "geheim:mit Doppelpunkt") + "\r\n", 200},
		{"another's password", get1 + basic("bob", "geheim:mit Doppelpunkt") + "\r\n", 407},
		{"CONNECT without", "CONNECT " + secure.Listener.Addr().String() + " HTTP/1.1\r\nHost: x\r\n\r\n", 407},
		{"https without", "GET " + secure.URL + "/clean HTTP/1.1\r\nHost: x\r\n\r\n", 407},
		{"the gateway's own page", "GET http://lazaret.internal/ HTTP/1.1\r\nHost: x\r\n\r\n", 200},
	} {
		resp, body := r.dial().send(c.request).response("GET")
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s %q", c.name, resp.Status, body)
		}
		if c.status == http.StatusProxyAuthRequired {
			wantPage(t, resp, body, 407, notice.AuthRequired)
			if got := resp.Header.Get("Proxy-Authenticate"); !strings.HasPrefix(got, `Basic realm="`) {
				t.Errorf("%s: Proxy-Authenticate: %q", c.name, got)
			}
		}
	}
	// Inside a connection the user is the one who asked for it.
	c := r.client(func(tr *http.Transport) {
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr, User: url.UserPassword("bob", "other")})
	})
	if resp, _ := get(t, c, secure.URL+"/eicar.com"); resp.StatusCode != http.StatusForbidden {
		t.Error(resp.Status)
	}
	rec := r.audit.wait(t, "the virus", func(x audit.Record) bool { return x.Verdict.Outcome == scan.Infected })
	if rec.Facts.User != "bob" {
		t.Errorf("%+v", rec.Facts)
	}
	for _, x := range r.audit.list() {
		if s := fmt.Sprintf("%+v", x); strings.Contains(s, "geheim") || strings.Contains(s, "other\"") {
			t.Errorf("a password is in the records: %s", s)
		}
	}
}

func TestPasswordGuessingIsSlowedDown(t *testing.T) {
	u, err := openUsers(htpasswd(t, "anna", "geheim"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	guesser, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i := range freeFailures {
		if right, wait := u.check(t.Context(), guesser, "anna", fmt.Sprint(i)); right || wait != 0 {
			t.Fatalf("guess %d: %v %v", i, right, wait)
		}
	}
	if right, wait := u.check(t.Context(), guesser, "anna", "geheim"); right || wait <= 0 {
		t.Errorf("after %d wrong ones: %v, wait %v", freeFailures, right, wait)
	}
	if right, wait := u.check(t.Context(), other, "anna", "geheim"); !right || wait != 0 {
		t.Errorf("somebody else: %v, wait %v", right, wait)
	}
	u.failing[guesser].until = time.Now().Add(-time.Second)
	if right, _ := u.check(t.Context(), guesser, "anna", "geheim"); !right {
		t.Error("after the wait the right password is refused")
	}
	if right, wait := u.check(t.Context(), guesser, "anna", "wrong"); right || wait != 0 {
		t.Errorf("a right password did not wipe out the wrong ones: wait %v", wait)
	}
}

func TestGuessersCannotFillTheMemory(t *testing.T) {
	u, err := openUsers(htpasswd(t, "anna", "geheim"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var id [32]byte
	for i := range 3 * maxFailing {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		u.settle(a, id, false)
		id[0], id[1], id[2] = byte(i), byte(i>>8), byte(i>>16)
		u.settle(a, id, true)
		u.settle(a, id, false)
	}
	if len(u.failing) > maxFailing || len(u.remembered) > maxRemembered || len(u.failing) == 0 || len(u.remembered) == 0 {
		t.Errorf("%d failing, %d remembered", len(u.failing), len(u.remembered))
	}
}

func TestLongPasswordIsNotCutOff(t *testing.T) {
	long := strings.Repeat("p", 72)
	u, err := openUsers(htpasswd(t, "anna", long), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client := netip.MustParseAddr("192.0.2.1")
	if right, _ := u.check(t.Context(), client, "anna", long+"x"); right {
		t.Error("what comes after 72 bytes does not count")
	}
	if right, _ := u.check(t.Context(), client, "anna", long); !right {
		t.Error("72 bytes are too many")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if right, _ := u.check(ended, client, "anna", "unheard of"); right {
		t.Error("right without looking")
	}
}

func TestUsersAreReadAgain(t *testing.T) {
	path := htpasswd(t, "anna", "one")
	u, err := openUsers(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client := netip.MustParseAddr("192.0.2.1")
	if right, _ := u.check(t.Context(), client, "anna", "one"); !right {
		t.Fatal("the first password is wrong")
	}
	writeUsers(t, path, "anna", "two", "bob", "three")
	u.looked = time.Time{}
	if right, _ := u.check(t.Context(), client, "anna", "one"); right {
		t.Error("the former password still counts")
	}
	if right, _ := u.check(t.Context(), client, "bob", "three"); !right {
		t.Error("the new user is not known")
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.looked = time.Time{}
	if right, _ := u.check(t.Context(), client, "bob", "three"); !right {
		t.Error("a broken file locked everybody out")
	}
}

func TestHtpasswdErrors(t *testing.T) {
	good, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{"", "no user"},
		{"# nobody\n\n", "no user"},
		{"anna", "line 1: not of the form"},
		{":" + string(good), "line 1: not of the form"},
		{"# x\nanna:$apr1$abc$def", "line 2: the hash of user \"anna\" is not bcrypt"},
		{"anna:{SHA}x", "line 1: the hash"},
		{"anna:plain", "line 1: the hash"},
		{"anna:" + strings.Replace(string(good), "$04$", "$31$", 1), "line 1: the hash"},
		{"anna:" + string(good) + "\nanna:" + string(good), "line 2: user \"anna\" occurs twice"},
	} {
		if _, err := parseHtpasswd(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	users, err := parseHtpasswd("# c\r\nanna:" + string(good) + "\r\nbob:" + strings.Replace(string(good), "$2a$", "$2y$", 1) + ":extra\n")
	if err != nil || len(users) != 2 || bcrypt.CompareHashAndPassword(users["bob"], []byte("x")) != nil {
		t.Errorf("%v, %v", users, err)
	}
	cfg := Default()
	cfg.AuthFile = filepath.Join(t.TempDir(), "missing")
	if _, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.HasPrefix(err.Error(), "auth_file: ") {
		t.Errorf("missing file: %v", err)
	}
}

func FuzzHtpasswd(f *testing.F) {
	good, _ := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	f.Add("anna:" + string(good))
	f.Add("anna:" + string(good) + ":x\n#c\nbob:$2y$05$")
	f.Add("a:b\nc")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := parseHtpasswd(text)
		if err != nil {
			return
		}
		for name, h := range users {
			if cost, err := bcrypt.Cost(h); name == "" || err != nil || cost > 16 {
				t.Fatalf("user %q with hash %q", name, h)
			}
		}
	})
}
