package web

import (
	"strings"
	"testing"
)

func TestAuthority(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // host:port; empty: an error
	}{
		{"example.com", "example.com:80"},
		{"Example.COM:8080", "example.com:8080"},
		{"example.com.", "example.com:80"},
		{"example.com:", "example.com:80"},
		{"my_host.example", "my_host.example:80"},
		{"bücher.example", "xn--bcher-kva.example:80"},
		{"127.0.0.1:81", "127.0.0.1:81"},
		{"[::1]", "[::1]:80"},
		{"[2001:DB8::1]:443", "[2001:db8::1]:443"},
		{"[::ffff:127.0.0.1]:443", "127.0.0.1:443"},
		{"", ""},
		{".", ""},
		{":80", ""},
		{"a..b", ""},
		{"user@example.com", ""},
		{"example.com:0", ""},
		{"example.com:65536", ""},
		{"example.com:http", ""},
		{"example.com:80:80", ""},
		{"::1", ""},
		{"[::1", ""},
		{"[::1]x", ""},
		{"[fe80::1%eth0]", ""},
		{"[127.0.0.1]", ""},
		{"example.com/path", ""},
		{"example.com#", ""},
		{"ex ample.com", ""},
		{"ex\tample.com", ""},
		{"example.com\\@evil.example", ""},
		{"2130706433", ""},
		{"0x7f.1", ""},
		{"127.1", ""},
		{"0177.0.0.1", ""},
		{"1.2.3.4.5", ""},
		{"1.2.3.256", ""},
		{"example.0x10", ""},
		{"host.0x", ""},
		{"%31%32%37.0.0.1", ""},
		{strings.Repeat("a", 64) + ".example", ""},
		{strings.Repeat("a.", 150) + "example", ""},
		{"exa\x00mple.com", ""},
	} {
		got, err := parseAuthority(c.in, 80)
		if err != nil && c.want != "" || err == nil && got.String() != c.want {
			t.Errorf("parseAuthority(%q) = %v, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestAuthorityShort(t *testing.T) {
	for _, c := range []struct{ in, scheme, want string }{
		{"example.com", "https", "example.com"},
		{"example.com:8443", "https", "example.com:8443"},
		{"[::1]", "https", "[::1]"},
		{"[::1]:444", "https", "[::1]:444"},
	} {
		a, err := parseAuthority(c.in, 443)
		if err != nil || a.short(c.scheme) != c.want {
			t.Errorf("%q: %q, %v; want %q", c.in, a.short(c.scheme), err, c.want)
		}
	}
}

func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"example.com", "a:1", "[::1]:2", "bücher.example", "0x7f.1", "[::ffff:1.2.3.4]", "EXAMPLE.com.", "a_b.c:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAuthority(s, 443)
		if err != nil {
			return
		}
		if a.host == "" || a.port == 0 || strings.ContainsAny(a.host, "@/\\ []%") || a.host != strings.ToLower(a.host) {
			t.Fatalf("%q became %+v", s, a)
		}
		// What was understood is understood the same way again: no second reader sees another host.
		again, err := parseAuthority(a.String(), 1)
		if err != nil || again != a {
			t.Fatalf("%q became %v, and that %v (%v)", s, a, again, err)
		}
	})
}
