package pop3

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
	"lazaret/internal/units"
)

// Whatever a client sends ahead, in whatever pieces, it hears what a client hears that waits for each reply; and the server hears
// The client's commands in their order.
func TestRandomRows(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { t.Parallel(); randomRow(t, seed) })
	}
}

func mailOf(n int) (text string, ok bool) {
	switch {
	case n > 30:
		return "", false
	case n%7 == 0: // infected
		return head + "\r\n" + string(scan.EICAR()) + "\r\n", true
	case n%11 == 0: // too large, and passed
		return head + fmt.Sprintf("X-Number: %d\r\n\r\n", n) + strings.Repeat("..too large\r\n", 30_000), true
	case n%5 == 0:
		return marked(n) + strings.Repeat("Hello, world\r\n", 12_000), true
	case n%13 == 0:
		return "", true
	case n == 4: // cannot be examined
		return head + "\r\nfails\r\n", true
	}
	return marked(n) + strings.Repeat("Hello\r\n", n*n) + ".odd\r\n..\r\n", true
}

func randomRow(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	var mu sync.Mutex
	sleeps := func(most int) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(3) > 0 {
			return 0
		}
		return time.Duration(rnd.IntN(most)) * time.Millisecond
	}
	finds := scantest.FindsEICAR()
	k := knobs{
		config: func(c *Config) {
			c.MaxMessage = 300_000
			c.KeepAlive = units.Duration(time.Hour)
			c.KeepAliveUnit = []string{byLine, byCharacter}[seed%2]
			if seed%3 == 0 {
				c.KeepAlive = units.Duration(3 * time.Millisecond)
			}
		},
		policy:  func(p *policy.Config) { p.TooLarge = policy.Pass },
		options: func(o *Options) { o.awake = time.Duration(1+seed%10) * time.Millisecond },
	}
	r := newRig(t, &scantest.Func{Judge: func(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
		time.Sleep(sleeps(15))
		b := make([]byte, o.Body.Size())
		if _, err := io.ReadFull(o.Body.NewReader(), b); err != nil {
			return scan.Verdict{}, err
		}
		if bytes.Contains(b, []byte("\nfails\r\n")) && !strings.HasPrefix(o.Name, "notice") {
			return scan.IncompleteVerdict(scan.Unavailable, "gone"), nil
		}
		return finds.Judge(ctx, o)
	}}, k)
	c, s := r.session()
	var cmds []string
	type want struct{ kind, text string } // exact, notice, err
	var wants []want
	var asked []string // what the server has to hear, without the gateway's NOOPs
	failed := false
	committedFailure := seed%3 == 0 // message 4 may end the session
	for len(cmds) < 60 {
		n := 1 + rnd.IntN(33)
		if committedFailure && n == 4 {
			continue
		}
		v := rnd.IntN(20)
		eol := []string{"\r\n", "\n"}[rnd.IntN(2)]
		switch {
		case v < 14:
			cmds = append(cmds, fmt.Sprintf("RETR %d%s", n, eol))
			asked = append(asked, fmt.Sprintf("RETR %d", n))
			m, ok := mailOf(n)
			switch {
			case !ok:
				wants = append(wants, want{"exact", fmt.Sprintf("-ERR none RETR %d\r\n", n)})
			case n%7 == 0:
				wants = append(wants, want{"notice", ""})
			case n == 4:
				failed = true
				wants = append(wants, want{"err", ""})
			default:
				wants = append(wants, want{"exact", fmt.Sprintf("+OK RETR %d\r\n", n) + m + ".\r\n"})
			}
			if n%7 != 0 && n%11 == 0 && ok {
				asked = append(asked, fmt.Sprintf("RETR %d", n))
			}
		case v == 14:
			cmds = append(cmds, fmt.Sprintf("RETR %d x%s", n, eol))
			wants = append(wants, want{"err", ""})
		case v == 15:
			if n == 4 && failed {
				continue
			}
			cmds = append(cmds, fmt.Sprintf("DELE %d%s", n, eol))
			asked = append(asked, fmt.Sprintf("DELE %d", n))
			wants = append(wants, want{"exact", fmt.Sprintf("+OK DELE %d\r\n", n)})
		case v == 16:
			cmds = append(cmds, "STAT"+eol)
			asked = append(asked, "STAT")
			wants = append(wants, want{"exact", "+OK STAT\r\n"})
		case v == 17:
			cmds = append(cmds, "LIST"+eol)
			asked = append(asked, "LIST")
			wants = append(wants, want{"exact", "+OK LIST\r\n1 2\r\n.\r\n"})
		case v == 18:
			cmds = append(cmds, "TOP 1 0"+eol)
			asked = append(asked, "TOP 1 0")
			wants = append(wants, want{"exact", "+OK TOP 1 0\r\n" + head + "\r\n.\r\n"})
		case v == 19:
			cmds = append(cmds, "RSET"+eol)
			asked = append(asked, "RSET")
			wants = append(wants, want{"exact", "+OK RSET\r\n"})
		}
	}
	cmds = append(cmds, "QUIT\r\n")
	asked = append(asked, "QUIT")
	wants = append(wants, want{"exact", "+OK QUIT\r\n"})
	var heard []string
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			line, err := s.r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimRight(line, "\r\n")
			out := "+OK " + line + "\r\n"
			var n int
			switch {
			case strings.HasPrefix(line, "RETR "):
				fmt.Sscan(line[5:], &n)
				m, ok := mailOf(n)
				if out += m + ".\r\n"; !ok {
					out = "-ERR none " + line + "\r\n"
				}
			case line == "LIST":
				out += "1 2\r\n.\r\n"
			case line == "TOP 1 0":
				out += head + "\r\n.\r\n"
			}
			if line != "NOOP" {
				heard = append(heard, line)
			}
			for out != "" {
				time.Sleep(sleeps(8))
				n := len(out)
				if n < 5000 || sleeps(100) == 0 {
					mu.Lock()
					n = 1 + rnd.IntN(n)
					mu.Unlock()
				}
				if _, err := io.WriteString(s.conn, out[:n]); err != nil {
					return
				}
				out = out[n:]
			}
			if line == "QUIT" {
				return
			}
		}
	}()
	go func() {
		all := strings.Join(cmds, "")
		for all != "" {
			mu.Lock()
			n := 1 + rnd.IntN(min(len(all), 300))
			mu.Unlock()
			if _, err := io.WriteString(c.conn, all[:n]); err != nil {
				return
			}
			all = all[n:]
			time.Sleep(sleeps(10))
		}
	}()
	got := bufio.NewReaderSize(c.r, 1<<20)
	for i, w := range wants {
		switch w.kind {
		case "exact":
			b := make([]byte, len(w.text))
			m, err := io.ReadFull(got, b)
			if string(b[:m]) != w.text {
				t.Fatalf("command %d (%q of %q): heard %.200q (%v), not %.200q", i, cmds[i], cmds[max(0, i-4):i+1], b[:m], err, w.text)
			}
		case "err":
			if l, err := got.ReadString('\n'); !strings.HasPrefix(l, "-ERR") {
				t.Fatalf("command %d (%q): heard %.200q (%v), no -ERR", i, cmds[i], l, err)
			}
		case "notice":
			m := (&end{t: t, who: "client", r: got}).message()
			if !strings.Contains(m, "Eicar-Test-Signature") || strings.Contains(m, string(scan.EICAR())) {
				t.Fatalf("command %d (%q): heard %.300q", i, cmds[i], m)
			}
		}
	}
	if rest, _ := io.ReadAll(got); len(rest) > 0 {
		t.Errorf("then %.200q", rest)
	}
	<-served
	if strings.Join(heard, ",") != strings.Join(asked, ",") {
		t.Errorf("the server heard\n%q, not\n%q", heard, asked)
	}
}
