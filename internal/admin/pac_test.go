package admin

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// evaluate runs the file with node, in a context of its own that has nothing a browser has, and returns what
// FindProxyForURL says to each host.
func evaluate(t *testing.T, pac string, hosts []string) []string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	in, err := json.Marshal(map[string]any{"pac": pac, "hosts": hosts})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "-e", `
		const vm = require("vm"), {pac, hosts} = JSON.parse(require("fs").readFileSync(0));
		const ctx = vm.createContext(Object.create(null));
		vm.runInContext(pac, ctx, {timeout: 10000});
		const ask = vm.runInContext("FindProxyForURL", ctx, {timeout: 10000});
		console.log(JSON.stringify(hosts.map(h => ask("https://" + h + "/", h))));`)
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v in\n%s", err, pac)
	}
	var got []string
	if err := json.Unmarshal(out, &got); err != nil || len(got) != len(hosts) {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

func TestPACDecidesByHost(t *testing.T) {
	cfg := Default()
	cfg.Direct = []string{"intranet.example", ".corp.example", "*.below.example", "203.0.113.0/25", "2001:db8:1::/48", "198.51.100.7"}
	src := sources(t)
	src.Direct = func() []string { return []string{"bank.example", "not a host", "203.0.113.200", "fd00::/8"} }
	_, pac := get(server(t, cfg, src), http.MethodGet, "127.0.0.1:8128", insider, "/proxy.pac")
	want := map[string]bool{ // whether it goes through the proxy
		"www.example.org": true, "example.org": true, "EXAMPLE.org.": true, "8.8.8.8": true, "lazaret.internal": true,
		"172.15.0.1": true, "172.32.0.1": true, "192.169.0.1": true, "100.128.0.1": true, "11.0.0.1": true, "203.0.113.128": true,
		"2001:db8:2::1": true, "[2600::1]": true, "2600::": true, "::2": true, "fec0::1": true, "10.example": true, "10.0.0.1.example.org": true,
		"notcorp.example": true, "below.example": true, "xintranet.example": true, "a.intranet.example": true, "bank.example.org": true,
		"::ffff:8.8.8.8": true, "::ffff:808:808": true, "1:2:3": true, "a::b::c": true, "local.example": true, "constructor.example": true,
		"198.51.100.8": true, "300.1.1.1": true, "xn--bcher-kva.example": true,

		"printer": false, "localhost": false, "a.localhost": false, "nas.local": false, "router.home.arpa": false, "git.internal": false,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "::1": false, "[::1]": false, "fe80::1%eth0": false, "febf::1": false, "fd12:3456::1": false,
		"::ffff:10.0.0.1": false, "::ffff:a00:1": false, "0:0:0:0:0:0:0:1": false,
		"intranet.example": false, "INTRANET.example.": false, "corp.example": false, "a.b.corp.example": false, "x.below.example": false,
		"203.0.113.1": false, "203.0.113.127": false, "203.0.113.200": false, "2001:db8:1::1": false, "2001:db8:1:ffff::1": false,
		"198.51.100.7": false, "bank.example": false,
	}
	var hosts []string
	for h := range want {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	for i, got := range evaluate(t, pac, hosts) {
		w := "DIRECT"
		if want[hosts[i]] {
			w = "PROXY 127.0.0.1:3128"
		}
		if got != w {
			t.Errorf("%s: %q, want %q", hosts[i], got, w)
		}
	}
}

func TestPACNamesTheProxyAsTheClientReachesIt(t *testing.T) {
	cfg := Default()
	cfg.AllowHosts = []string{"gw.corp.example"}
	for name, c := range map[string]struct {
		listen, client, host, local string
		want                        string
		unreachable                 bool
	}{
		"loopback":                     {"127.0.0.1:3128", insider, "127.0.0.1:8128", "", "PROXY 127.0.0.1:3128", false},
		"loopback, under a name":       {"127.0.0.1:3128", insider, "localhost:8128", "", "PROXY 127.0.0.1:3128", false},
		"loopback, IPv6":               {"[::1]:3128", "[::1]:9", "[::1]:8128", "", "PROXY [::1]:3128", false},
		"localhost":                    {"localhost:3128", insider, "localhost", "", "PROXY 127.0.0.1:3128", false},
		"loopback, from elsewhere":     {"127.0.0.1:3128", outsider, "192.0.2.1:8128", "", "PROXY 192.0.2.1:3128", true},
		"all":                          {"0.0.0.0:3128", outsider, "192.0.2.1:8128", "", "PROXY 192.0.2.1:3128", false},
		"all, empty":                   {":3128", outsider, "gw.corp.example:8128", "", "PROXY gw.corp.example:3128", false},
		"all, IPv6":                    {"[::]:3128", outsider, "[2001:db8::1]:8128", "", "PROXY [2001:db8::1]:3128", false},
		"all, from here":               {"0.0.0.0:3128", insider, "127.0.0.1:8128", "", "PROXY 127.0.0.1:3128", false},
		"all, through the proxy":       {"0.0.0.0:3128", outsider, "lazaret.internal", "192.0.2.1:8128", "PROXY 192.0.2.1:3128", false},
		"all, without Host":            {"0.0.0.0:3128", outsider, "", "[::ffff:192.0.2.1]:8128", "PROXY 192.0.2.1:3128", false},
		"one address":                  {"192.0.2.1:3128", outsider, "gw.corp.example", "", "PROXY 192.0.2.1:3128", false},
		"several":                      {"127.0.0.1:3128 192.0.2.1:3128 198.51.100.1:3129", outsider, "198.51.100.1:8128", "", "PROXY 198.51.100.1:3129; PROXY 192.0.2.1:3128", false},
		"several, from here":           {"127.0.0.1:3128 192.0.2.1:3128", insider, "127.0.0.1:8128", "", "PROXY 192.0.2.1:3128; PROXY 127.0.0.1:3128", false},
		"the same twice":               {"0.0.0.0:3128 [::]:3128", outsider, "192.0.2.1", "", "PROXY 192.0.2.1:3128", false},
		"very many":                    {"192.0.2.1:1 192.0.2.2:1 192.0.2.3:1 192.0.2.4:1 192.0.2.5:1", outsider, "192.0.2.9", "", "PROXY 192.0.2.1:1; PROXY 192.0.2.2:1; PROXY 192.0.2.3:1; PROXY 192.0.2.4:1", false},
		"mixed with nonsense":          {"nonsense 192.0.2.1:x 192.0.2.1:0 a;b:1 192.0.2.1:3128", outsider, "192.0.2.9", "", "PROXY 192.0.2.1:3128", false},
		"a name":                       {"gw.corp.example:3128", outsider, "192.0.2.9", "", "PROXY gw.corp.example:3128", false},
		"case and dot in the question": {"0.0.0.0:3128", outsider, "GW.corp.example.:8128", "", "PROXY gw.corp.example:3128", false},
	} {
		src := sources(t)
		src.ProxyAddrs = func() []string { return strings.Fields(c.listen) }
		s := server(t, cfg, src)
		r := httptest.NewRequest(http.MethodGet, "/proxy.pac", nil)
		r.Host, r.RemoteAddr = c.host, c.client
		if c.local != "" {
			a, err := net.ResolveTCPAddr("tcp", c.local)
			if err != nil {
				t.Fatal(err)
			}
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, a))
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "\nvar proxies = \""+c.want+"\";\n") {
			t.Errorf("%s: status %d, want %s in\n%.400s", name, w.Code, c.want, w.Body)
		}
		if strings.Contains(w.Body.String(), "Attention") != c.unreachable {
			t.Errorf("%s: the warning is there: %v", name, !c.unreachable)
		}
	}
}

func TestPACWithoutAProxyIsNoPAC(t *testing.T) {
	for _, f := range []func() []string{nil, func() []string { return nil }, func() []string { return []string{"x"} }} {
		src := sources(t)
		src.ProxyAddrs = f
		res, body := get(server(t, Default(), src), http.MethodGet, "127.0.0.1", insider, "/proxy.pac")
		if res.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "DIRECT") {
			t.Errorf("status %d: %s", res.StatusCode, body)
		}
	}
}

func TestNothingIsInjectedIntoThePAC(t *testing.T) {
	src := sources(t)
	src.ProxyAddrs = func() []string { return []string{"0.0.0.0:3128"} }
	src.Direct = func() []string { return []string{`";alert(1)//`, "</script>", "a\nb", `*.x"y`, "ok.example"} }
	s := server(t, Default(), src)
	_, clean := get(s, http.MethodGet, "192.0.2.1:8128", outsider, "/proxy.pac")
	if !strings.Contains(clean, `["ok.example"]`) {
		t.Fatalf("the good entry alone should be there:\n%.600s", clean)
	}
	for _, host := range []string{
		`x";alert(1)//`, "192.0.2.1;PROXY evil:1", "192.0.2.1\"", "localhost;", "a b", "\n", "192.0.2.1:8128;DIRECT", "[fe80::1%25;PROXY evil:1]:80",
	} {
		res, body := get(s, http.MethodGet, host, outsider, "/proxy.pac")
		if strings.Contains(body, "evil") && res.StatusCode == http.StatusOK || strings.Contains(body, "alert") && res.StatusCode == http.StatusOK {
			t.Errorf("Host %q: status %d\n%.400s", host, res.StatusCode, body)
		}
	}
}

func FuzzParseDirect(f *testing.F) {
	for _, s := range []string{"a.example", ".a", "*.a", "10.0.0.0/8", "::1", "::ffff:1.2.3.4", "fe80::1%x", "*", ".", "*.*.a", "a..b", "-a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseDirect(s)
		if !ok {
			return
		}
		if d.name != "" {
			if !hostName(strings.TrimPrefix(strings.TrimPrefix(d.name, "*"), ".")) {
				t.Fatalf("%q: %q", s, d.name)
			}
			return
		}
		if w := words(d.net); w[0] < 0 || w[0] > 128 || (len(w) != 3 && len(w) != 9) {
			t.Fatalf("%q: %v", s, w)
		}
	})
}

func FuzzHostHeader(f *testing.F) {
	for _, s := range []string{"127.0.0.1:8128", "[::1]:1", "[fe80::1%eth0]", "localhost.", "LAZARET.internal:80", "x;y", ":", "[", "]:1", "::1"} {
		f.Add(s)
	}
	src := sources(f)
	src.ProxyAddrs = func() []string { return []string{"0.0.0.0:3128"} }
	s := server(f, Default(), src)
	f.Fuzz(func(t *testing.T, host string) {
		r := httptest.NewRequest(http.MethodGet, "/proxy.pac", nil)
		r.Host, r.RemoteAddr = host, outsider
		got, ok := s.asked(r)
		if !ok {
			return
		}
		if strings.ContainsAny(got, " ;\"'\\<>\r\n\t%@/[]") {
			t.Fatalf("%q is asked as %q", host, got)
		}
		proxies, _ := s.proxies(r)
		if len(proxies) != 1 || strings.ContainsAny(proxies[0], " ;\"'\\<>\r\n\t%@/") {
			t.Fatalf("%q: %q", host, proxies)
		}
	})
}
