package pop3

import "testing"

func TestFailuresAreBounded(t *testing.T) {
	var f failures
	if ref, failed := f.of(1); failed {
		t.Errorf("%q failed before anything did", ref)
	}
	for n := range maxFailures {
		f.add(n+1, "A")
	}
	f.add(1, "B")
	if ref, failed := f.of(1); !failed || ref != "B" {
		t.Errorf("%q, %v", ref, failed)
	}
	f.remove(1)
	if _, failed := f.of(1); failed {
		t.Error("a message that was given counts as one that was not")
	}
	f.add(1, "B")
	// A server can number its messages as it likes.
	for n := range 100 {
		f.add(1_000_000+n, "C")
	}
	if len(f.refs) > maxFailures {
		t.Errorf("%d are remembered", len(f.refs))
	}
	for _, n := range []int{2, 1_000_000, 1_000_099} {
		if _, failed := f.of(n); !failed {
			t.Errorf("message %d may be deleted", n)
		}
	}
}
