package pop3

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"lazaret/internal/mail/header"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
	"lazaret/internal/scan/scantest"
)

// given notes what notices were made of.
type given struct {
	plainReplacer
	mu  sync.Mutex
	all []Original
}

func (g *given) Given(o Original, _ notice.Notice) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, o)
}

// What was found may stand in a field that a notice keeps or shows: the notice must not carry it on.
func TestNoticeDoesNotRepeatWhatWasFound(t *testing.T) {
	virus := string(scan.EICAR())
	for name, v := range map[string]struct {
		mail string
		kept bool
	}{
		"in the body":       {head + "\r\n" + virus + "\r\n", true},
		"in From":           {"From: " + virus + " <grace@example.org>\r\nTo: ada@example.net\r\n\r\nHello\r\n", false},
		"in References":     {"From: grace@example.org\r\nReferences: <x@y>\r\n " + virus + "\r\n\r\nHello\r\n", false},
		"in Subject":        {"From: grace@example.org\r\nSubject: " + virus + "\r\n\r\nHello\r\n", false},
		"in a hidden field": {"From: grace@example.org\r\nX-Hidden: " + virus + "\r\n\r\nHello\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			g := &given{}
			r := newRig(t, eicar(), knobs{options: func(o *Options) { o.Replacer = g }})
			c, s := r.session()
			c.says("RETR 1\r\n")
			s.hears("RETR 1\r\n")
			s.says("+OK\r\n" + v.mail + ".\r\n")
			got := c.message()
			if strings.Contains(got, virus) || !strings.Contains(got, "\r\nSubject: [Virus] found in a mail to you: Eicar-Test-Signature\r\n") {
				t.Errorf("the client got\n%s", got)
			}
			if strings.Contains(got, "grace@example.org") != v.kept {
				t.Errorf("fields of the original: %v is wrong\n%s", !v.kept, got)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if len(g.all) != 1 || strings.Contains(string(g.all[0].Kept), virus) || (len(g.all[0].Head) > 0) != v.kept {
				t.Errorf("copies for administrators are made of %q", g.all)
			}
		})
	}
}

// once returns a scanner that says what s does when start is closed, and of the notice what then does.
func once(start <-chan struct{}, s, then scan.Scanner) scan.Scanner {
	return &scantest.Func{Judge: func(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
		if strings.HasPrefix(o.Name, "notice") {
			return then.Scan(ctx, o)
		}
		select {
		case <-start:
			return s.Scan(ctx, o)
		case <-ctx.Done():
			return scan.Verdict{}, ctx.Err()
		}
	}}
}

func TestNoticeGoesOnWithWhatWasSent(t *testing.T) {
	virus := string(scan.EICAR())
	start := make(chan struct{})
	r := newRig(t, once(start, eicar(), eicar()), knobs{config: awake(byLine)})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\nFrom: grace@example.org\r\nReferences: <1@example.org>\r\n <2@exam")
	c.hears("+OK\r\nFrom: grace@example.org\r\nReferences: <1@example.org>\r\n")
	close(start)
	s.says("ple.org> " + virus + "\r\nSubject: x\r\n\r\nHello\r\n.\r\n")
	// Its folded line came too late to be held back, or did not.
	got := c.rest()
	if _, sent := strings.CutPrefix(got, " <2@example.org> "+virus+"\r\n"); !sent && strings.Contains(got, virus) {
		t.Errorf("the client got\n%s", got)
	}
	if !strings.Contains(got, "Subject: [Virus] found") || strings.Contains(got, "From: grace") || strings.Contains(got, "From: Mail gateway") {
		t.Errorf("the client got\n%s", got)
	}
}

// Nobody says that this notice is clean.
func TestNoticeThatCannotBeExaminedHasNothingOfTheOriginal(t *testing.T) {
	start := make(chan struct{})
	close(start)
	for name, v := range map[string]struct {
		mail, notice scan.Scanner
		kept         bool
	}{
		"infected, and the scanner fails":   {eicar(), scantest.Fails(errors.New("gone")), false},
		"infected, and the scanner panics":  {eicar(), scantest.Panics("oh"), false},
		"encrypted, and the scanner fails":  {scantest.Always(scan.IncompleteVerdict(scan.Encrypted, "")), scantest.Fails(errors.New("gone")), true},
		"encrypted, and the notice is foul": {scantest.Always(scan.IncompleteVerdict(scan.Encrypted, "")), scantest.Always(scan.InfectedVerdict("x", "X", "")), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, once(start, v.mail, v.notice), knobs{})
			c, s := r.session()
			c.says("RETR 1\r\n")
			s.hears("RETR 1\r\n")
			s.says("+OK\r\n" + infected() + ".\r\n")
			got := c.message()
			if strings.Contains(got, "grace@example.org") != v.kept || !strings.Contains(got, "\r\nReference: ") {
				t.Errorf("the client got\n%s", got)
			}
		})
	}
}

func TestBegunFieldsEndWhereTheyWereSent(t *testing.T) {
	whole := "From: a\r\nReferences: <1>\r\n <2>\r\n"
	for n := range len(whole) + 1 {
		got := string(begun([]byte(whole[:n])))
		if !strings.HasPrefix(got, whole[:n]) {
			t.Errorf("%d: %q does not begin with %q", n, got, whole[:n])
		}
		if n > 0 && !strings.HasSuffix(got, "\r\n") {
			t.Errorf("%d: %q has no end", n, got)
		}
		raw := 0
		for _, f := range header.Leading([]byte(got)) {
			raw += len(f.Raw)
		}
		if raw != len(got) {
			t.Errorf("%d: %q is no header", n, got)
		}
	}
}
