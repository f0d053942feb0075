package web

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"lazaret/internal/intercept"
	"lazaret/internal/web/http1"
)

// What TestAnOriginThatLeavesAtOnceTakesTheClientWithIt meets now and then: the origin's end is told before the connection is served.
func TestAnOriginThatHasGoneBeforeTheVisit(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	mine, other := net.Pipe()
	other.Close()
	s := &Server{idle: newIdlers(), origins: newOpenOrigins(0), parkAfter: time.Minute}
	c := &client{conn: near, session: &intercept.Session{}}
	gone := http1.New(mine, nil, nil, 1<<10)
	c.pinned = &origin{server: s, via: onHTTP1{gone}, gone: func() { s.originGone(c) }}
	_ = gone.Close()
	c.pinned.gone() // as the watch of origin.start does
	s.rests(c)
	c.parkOrigins()
	_ = far.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	_, err := far.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client keeps its connection, although its origin has gone")
	}
}
