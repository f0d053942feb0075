package scan

import "testing"

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{"": "", "Eicar": "Eicar", "a\x1b[31m\n": "a?[31m?", "abcdefghij": "abcdefgh", "é\xff": "??"} {
		if got := Printable(s, 8); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}
