package pop3

import (
	"fmt"
	"strings"
	"testing"

	"lazaret/internal/spool"
)

// TestTOPThatEvadesTheEditor asks a server that always gives the whole message for it in ways that are not RETR: what rules
// about attachments keep back must not come that way.
func TestTOPThatEvadesTheEditor(t *testing.T) {
	for lines, edits := range map[string]int{
		"0": 0, "2147483648": 1, "4294967295": 1, "9999999999": 1, "99999999999999999999999": 1, "007": 1,
		"+99": 0, "-1": 0, "0x7f": 0, "99,": 0, "99 1": 0, "": 0,
	} {
		t.Run(lines, func(t *testing.T) {
			edited := 0
			r := newRig(t, eicar(), knobs{options: func(o *Options) {
				o.Editor = editFunc(func(*spool.Blob) (*spool.Blob, error) {
					edited++
					return nil, &Unwanted{What: "setup.exe", Detail: "a rule"}
				})
			}})
			c, s := r.session()
			served := make(chan error, 1)
			go func() { served <- wholeMessages(s) }()
			c.says("TOP 1 " + lines + "\r\nQUIT\r\n")
			got := c.ended()
			if strings.Contains(got, "Hello") || !strings.HasSuffix(got, "+OK bye\r\n") {
				t.Errorf("the client heard %q", got)
			}
			if edited != edits {
				t.Errorf("%d edits, not %d", edited, edits)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// wholeMessages serves a session by giving the whole message to whatever is asked, until QUIT.
func wholeMessages(s *end) error {
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "+OK\r\n" + head + "\r\nHello\r\n.\r\n"
		if strings.HasPrefix(line, "QUIT") {
			answer = "+OK bye\r\n"
		}
		if _, err := fmt.Fprint(s.conn, answer); err != nil || strings.HasPrefix(line, "QUIT") {
			return err
		}
	}
}

func TestCommandsThatServersUnderstandDifferently(t *testing.T) {
	r := newRig(t, eicar(), knobs{})
	c, s := r.session()
	for _, line := range []string{"DELE +1", "DELE 1 2", "DELE", "DELE 0", "DELE 0x1", "RETR -1", "RETR 1 TOP", "RETR 99999999999", "LIST +1", "UIDL 1e1", "TOP 1"} {
		c.says(line + "\r\n")
		c.line("-ERR ")
	}
	c.says("DELE 01\r\n")
	s.hears("DELE 01\r\n") // and nothing before
	s.says("+OK\r\n")
	c.hears("+OK\r\n")
}
