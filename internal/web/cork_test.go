package web

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

// counting is a connection that keeps what is written, and fails from a certain write on.
type counting struct {
	net.Conn
	got    bytes.Buffer
	writes int
	fail   int // the number of the first write that fails; 0: none
}

var errCounting = errors.New("no more")

func (c *counting) Write(p []byte) (int, error) {
	if c.writes++; c.fail > 0 && c.writes >= c.fail {
		return 0, errCounting
	}
	return c.got.Write(p)
}

func TestCorkCollectsInOrder(t *testing.T) {
	below := &counting{}
	c := &cork{Conn: below}
	var want []byte
	write := func(n int) {
		p := bytes.Repeat([]byte{byte('a' + len(want)%26)}, n)
		want = append(want, p...)
		if got, err := c.Write(p); got != n || err != nil {
			t.Fatalf("a write of %d bytes: %d, %v", n, got, err)
		}
	}
	write(10)
	c.hold()
	for range 30 {
		write(5_000)
	}
	write(200_000)
	write(7)
	if err := c.release(); err != nil {
		t.Fatal(err)
	}
	write(3)
	if !bytes.Equal(below.got.Bytes(), want) {
		t.Error("the bytes are not those that were written")
	}
	if below.writes > 8 {
		t.Errorf("%d writes reached the connection: nothing was collected", below.writes)
	}
}

func TestCorkTellsErrors(t *testing.T) {
	c := &cork{Conn: &counting{fail: 1}}
	c.hold()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Error("a write that is only collected failed:", err)
	}
	if err := c.release(); !errors.Is(err, errCounting) {
		t.Error("the end of collecting says", err)
	}
	c.hold()
	if _, err := c.Write(make([]byte, corkSize)); !errors.Is(err, errCounting) {
		t.Error("a write that is too large to collect says", err)
	}
	var none *cork
	none.hold()
	if err := none.release(); err != nil {
		t.Error(err)
	}
}
