package listen

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHandedSocketsAreParsed(t *testing.T) {
	open := func(int, string) *os.File { return nil }
	got, err := parseHanded("4 127.0.0.1:3128\n5 systemd:web\n6 systemd:web", open)
	if err != nil || len(got["127.0.0.1:3128"]) != 1 || len(got["systemd:web"]) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"x 127.0.0.1:1", "4", "-1 a", "1 a", "99999999 a", "4 a\n"} {
		if _, err := parseHanded(bad, open); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if got, err := parseHanded("", open); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

// TestStopLeavesTheSocketToOthers has two listeners on one socket: when the first is stopped, the second gets every connection.
func TestStopLeavesTheSocketToOthers(t *testing.T) {
	ls, err := Listen(t.Context(), "127.0.0.1:0", Default(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	first := ls[0]
	defer first.Close()
	files, env, err := Handover(ls, 7)
	if err != nil {
		t.Fatal(err)
	}
	if want := handoverEnv + "=7 127.0.0.1:0"; env != want || len(files) != 1 {
		t.Errorf("%q, %d files", env, len(files))
	}
	below, err := net.FileListener(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := files[0].Close(); err != nil {
		t.Fatal(err)
	}
	second, err := New(below, Default(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	var from []string
	for range 20 {
		c, err := net.DialTimeout("tcp", first.Addr().String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		got, err := second.Accept()
		if err != nil {
			t.Fatal(err)
		}
		from = append(from, got.RemoteAddr().String())
		if !slices.Contains(from, c.LocalAddr().String()) {
			t.Errorf("%s is not among %s", c.LocalAddr(), strings.Join(from, " "))
		}
		c.Close()
		got.Close()
	}
}
