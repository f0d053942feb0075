package daemon

import (
	"runtime"
	"testing"
	"time"
)

var sink []byte

// Memory is given back when the gateway comes to rest: once, and not while it is at work.
func TestMemoryIsGivenBackAtRest(t *testing.T) {
	tick, freed := make(chan time.Time), make(chan struct{}, 10)
	ended := make(chan struct{})
	go func() {
		restGC(tick, func() { runtime.GC(); freed <- struct{}{} })
		close(ended)
	}()
	work := func() {
		for range 8 {
			sink = make([]byte, restWorth/4)
		}
	}
	for range 4 { // a tick is taken when the one before it has been dealt with
		work()
		tick <- time.Now()
	}
	if n := len(freed); n != 0 {
		t.Errorf("freed %d times under load", n)
	}
	for range 5 {
		tick <- time.Now()
	}
	close(tick)
	<-ended
	if n := len(freed); n != 1 {
		t.Errorf("freed %d times at rest, want once", n)
	}
}
