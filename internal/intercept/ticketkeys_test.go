package intercept

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	secretOne = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	secretTwo = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

func TestTicketKeysAreRotatedAndForgotten(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	k, err := newTicketKeys("", slog.New(slog.DiscardHandler), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, err := k.next()
	if err != nil || len(first) != 1 {
		t.Fatalf("%d keys, %v", len(first), err)
	}
	if again, err := k.next(); err != nil || again != nil {
		t.Errorf("new keys without need: %v", err)
	}
	before := first
	for n := range 10 {
		now = now.Add(keyEvery)
		keys, err := k.next()
		if err != nil || len(keys) != min(n+2, keysKept) || keys[0] == before[0] || keys[1] != before[0] {
			t.Fatalf("rotation %d: %d keys, %v", n, len(keys), err)
		}
		before = keys
	}
	if slices.Contains(before, first[0]) {
		t.Error("the first key is still in use")
	}
}

func TestSharedTicketKeysFollowFromSecretAndTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(s string) {
		t.Helper()
		if err := replace(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secretOne)
	now := time.Unix(1_800_000_000, 0)
	gateway := func(skew time.Duration) *ticketKeys {
		t.Helper()
		k, err := newTicketKeys(path, slog.New(slog.DiscardHandler), func() time.Time { return now.Add(skew) })
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	keys := func(k *ticketKeys) [][32]byte {
		t.Helper()
		k.looked = time.Time{} // as if the last look was a while ago
		got, err := k.next()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	one, ahead := gateway(0), gateway(keyEvery)
	a, b := keys(one), keys(ahead)
	if a[0] == b[0] || !slices.Contains(a, b[0]) || !slices.Contains(b, a[0]) {
		t.Error("two gateways whose clocks differ cannot read each other's tickets")
	}
	if keys(one) != nil {
		t.Error("new keys without need")
	}
	now = now.Add(4 * keyEvery)
	if later := keys(one); slices.Contains(later, a[0]) {
		t.Error("the first key is still in use")
	} else {
		a = later
	}
	// A new secret comes into use, while tickets of the old one are still good.
	write(secretTwo + " # new\n\n" + secretOne + "\n")
	if c := keys(one); c == nil || c[0] == a[0] || !slices.Contains(c, a[0]) {
		t.Error("the new secret is not used, or the old one is forgotten")
	}
	write("broken")
	if keys(one) != nil || len(one.secrets) != 2 {
		t.Error("a broken file changed the keys")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if keys(one) != nil {
		t.Error("a missing file changed the keys")
	}
	write(secretTwo)
	if c := keys(one); slices.Contains(c, a[0]) {
		t.Error("a secret that is gone is still in use")
	}
}

func TestTicketKeyFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{secretOne, 0o600, ""},
		{secretOne, 0o400, ""},
		{secretOne, 0o640, "others than its owner"},
		{secretOne, 0o604, "others than its owner"},
		{"", 0o600, "no secret"},
		{"# " + secretOne, 0o600, "no secret"},
		{secretOne[2:], 0o600, "line 1 is not a secret"},
		{secretOne + "\n" + secretOne[:62] + "zz", 0o600, "line 2 is not a secret"},
		{strings.Repeat(secretOne+"\n", maxTicketSecrets+1), 0o600, "more than"},
		{strings.Repeat("#", maxTicketFile+1), 0o600, "less than"},
	} {
		path := filepath.Join(dir, "keys")
		if err := replace(path, []byte(tc.text), tc.mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := readTicketSecrets(path)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.20q %v: error %v, want %q", tc.text, tc.mode, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), secretOne[:16]) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	if _, _, err := readTicketSecrets(dir); err == nil {
		t.Error("a directory was read")
	}
	if os.Geteuid() == 0 {
		path := filepath.Join(dir, "foreign")
		if err := os.WriteFile(path, []byte(secretOne), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readTicketSecrets(path); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("another user's file: %v", err)
		}
	}
}

func TestGatewaysResumeEachOthersSessions(t *testing.T) {
	root := newRoot(t)
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(secretOne), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, http1 := range []bool{true, false} {
		org := newCountingOrigin(t, root.leaf([]string{"site.example"}, nil))
		one := gatewayOf(t, root, func(c *Config) { c.TicketKeys = path })
		log := Options{Logger: slog.New(slog.DiscardHandler)}
		gateway := func(edit func(*Config)) *Interceptor {
			t.Helper()
			cfg := one.cfg
			edit(&cfg)
			i, err := New(cfg, one.ca, one.dialer, log)
			if err != nil {
				t.Fatal(err)
			}
			return i
		}
		two := gateway(func(*Config) {})
		stranger := gateway(func(c *Config) { c.TicketKeys = "" })
		strict := gateway(func(c *Config) { c.MinVersion = "1.3" })
		first, second := openDoor(t, one, to("site.example", org.addr)), openDoor(t, two, to("site.example", org.addr))
		b := newBrowser(one, func(b *browser) { b.http1 = http1 })
		if b.visit(t, first, "site.example") {
			t.Fatal("a first visit resumed a session")
		}
		from := b.last
		if !b.visit(t, second, "site.example") {
			t.Error("the other gateway did not resume the session")
		}
		org.want(t, 2, 0) // its own session with the origin is a full one
		if !b.visit(t, second, "site.example") {
			t.Error("the other gateway did not resume its own session")
		}
		org.want(t, 2, 1)
		if !b.visit(t, first, "site.example") {
			t.Error("the first gateway did not take it back")
		}
		org.want(t, 3, 1)

		// Two uses of one ticket still have two sessions with the origin, and other clients or settings none at all.
		var wg sync.WaitGroup
		for range 2 {
			c := newBrowser(one, func(b *browser) { b.last, b.http1 = from, http1 })
			wg.Go(func() { c.visit(t, second, "site.example") })
		}
		wg.Wait()
		org.want(t, 5, 1)
		thief := newBrowser(one, func(b *browser) { b.last, b.from, b.http1 = from, "127.0.0.2", http1 })
		if thief.visit(t, second, "site.example") {
			t.Error("the ticket was good for another client")
		}
		for what, i := range map[string]*Interceptor{"without the file": stranger, "with other settings": strict} {
			c := newBrowser(one, func(b *browser) { b.last, b.http1 = from, http1 })
			if c.visit(t, openDoor(t, i, to("site.example", org.addr)), "site.example") {
				t.Errorf("the ticket was good at a gateway %s", what)
			}
		}
		org.want(t, 8, 1)
	}
}

func FuzzTicketSecrets(f *testing.F) {
	f.Add([]byte(secretOne + "\n# x\n" + secretTwo))
	f.Add([]byte("zz"))
	f.Fuzz(func(t *testing.T, b []byte) {
		secrets, err := parseTicketSecrets(b)
		if err != nil {
			return
		}
		if len(secrets) == 0 || len(secrets) > maxTicketSecrets {
			t.Errorf("%d secrets", len(secrets))
		}
		for _, s := range secrets {
			if len(s) < ticketSecret {
				t.Errorf("a secret of %d bytes", len(s))
			}
		}
	})
}
