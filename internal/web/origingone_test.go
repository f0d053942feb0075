package web

import (
	"net"
	"testing"
	"time"
)

// An origin that closes just after its answer must not take the answer's end with it: between the end of an exchange and net/http's
// next request that end is still being sent.
func TestAnOriginThatClosesAfterItsAnswerDoesNotCutTheAnswerOff(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c, s := &client{conn: near}, &Server{}
	closed := func(within time.Duration) bool {
		_ = far.SetReadDeadline(time.Now().Add(within)) // a pipe has deadlines
		_, err := far.Read(make([]byte, 1))
		ne, ok := err.(net.Error) //nolint:errorlint // net.Pipe returns it as it is
		return !ok || !ne.Timeout()
	}
	s.originGone(c)
	if closed(50 * time.Millisecond) {
		t.Fatal("closed while an answer's end was being sent")
	}
	c.reading.Store(true)
	s.originGone(c)
	if !closed(10 * time.Second) {
		t.Error("an idle connection whose origin has gone was left open")
	}
}
