package web

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// boundOrigin authenticates connections, as NTLM and Negotiate do (RFC 4559, 5): a challenge and its answer have to come over
// the same connection, which then is its user's.
type boundOrigin struct {
	mu    sync.Mutex
	state map[string]string // by the connection's other end
}

func (o *boundOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	user := o.state[r.RemoteAddr]
	given := r.Header.Get("Authorization")
	switch {
	case strings.HasPrefix(given, "NTLM negotiate "):
		o.state[r.RemoteAddr] = "challenged " + strings.TrimPrefix(given, "NTLM negotiate ")
		w.Header().Set("WWW-Authenticate", "NTLM challenge")
		w.WriteHeader(http.StatusUnauthorized)
	case strings.HasPrefix(given, "NTLM authenticate ") && user == "challenged "+strings.TrimPrefix(given, "NTLM authenticate "):
		o.state[r.RemoteAddr] = strings.TrimPrefix(given, "NTLM authenticate ")
		fmt.Fprint(w, "welcome "+o.state[r.RemoteAddr])
	case user != "" && !strings.HasPrefix(user, "challenged ") && given == "":
		fmt.Fprint(w, "still "+user)
	default:
		w.Header().Set("WWW-Authenticate", "NTLM")
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// TestConnectionBoundAuthenticationWorksAndStaysWithItsClient has two browsers authenticate their connections to one origin.
func TestConnectionBoundAuthenticationWorksAndStaysWithItsClient(t *testing.T) {
	r := newRig(t)
	o := &boundOrigin{state: map[string]string{}}
	plain, secure := r.origin(o.ServeHTTP), r.tlsOrigin(o.ServeHTTP)
	hostport := secure.Listener.Addr().String()
	for kind, dial := range map[string]func() (c *rawConn, target string){
		"http":  func() (*rawConn, string) { return r.dial(), plain.URL + "/" },
		"https": func() (*rawConn, string) { return r.connect(hostport), "/" },
	} {
		t.Run(kind, func(t *testing.T) {
			ask := func(c *rawConn, target, authorization string) (int, string) {
				t.Helper()
				host := hostport
				if kind == "http" {
					host = plain.Listener.Addr().String()
				}
				head := "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n"
				if authorization != "" {
					head += "Authorization: " + authorization + "\r\n"
				}
				resp, body := c.send(head + "\r\n").response("GET")
				return resp.StatusCode, body
			}
			ann, target := dial()
			bob, _ := dial()
			for _, who := range []struct {
				c    *rawConn
				name string
			}{{ann, "ann"}, {bob, "bob"}} {
				if status, _ := ask(who.c, target, ""); status != http.StatusUnauthorized {
					t.Fatalf("%s is served before anybody has authenticated: %d", who.name, status)
				}
				if status, _ := ask(who.c, target, "NTLM negotiate "+who.name); status != http.StatusUnauthorized {
					t.Errorf("%s: the challenge came as %d", who.name, status)
				}
				if status, body := ask(who.c, target, "NTLM authenticate "+who.name); status != http.StatusOK || body != "welcome "+who.name {
					t.Errorf("%s: %d %q", who.name, status, body)
				}
			}
			for range 3 {
				for _, who := range []struct {
					c    *rawConn
					name string
				}{{ann, "ann"}, {bob, "bob"}} {
					if status, body := ask(who.c, target, ""); status != http.StatusOK || body != "still "+who.name {
						t.Errorf("%s: %d %q", who.name, status, body)
					}
				}
			}
			// A third one is nobody.
			eve, _ := dial()
			if status, body := ask(eve, target, ""); status != http.StatusUnauthorized {
				t.Errorf("a client that never authenticated: %d %q", status, body)
			}
		})
	}
}
