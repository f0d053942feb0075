package daemon

import (
	"strings"
	"testing"
)

// Administrators hear of a fault that lasts, and of its end, each once.
func TestFaultsAreToldOnce(t *testing.T) {
	var w faultWatch
	var said []string
	for _, c := range "-x-xx-xxxxx-xxx--" {
		word := "."
		switch s := w.look(c == 'x'); {
		case strings.Contains(s, "cannot"):
			word = "!"
		case s != "":
			word = "ok"
		}
		said = append(said, word)
	}
	if got := strings.Join(said, " "); got != ". . . . . . . . ! . . ok . . ! ok ." {
		t.Error(got)
	}
}
