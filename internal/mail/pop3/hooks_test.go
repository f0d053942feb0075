package pop3

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/spool"
)

type editFunc func(b *spool.Blob) (*spool.Blob, error)

func (f editFunc) Edit(_ context.Context, l Letter) (*spool.Blob, error) {
	return f(l.Body)
}

func TestEditor(t *testing.T) {
	original, marked := head+"\r\nHello\r\n", head+"X-Spam: yes\r\n\r\nHello\r\n"
	var pool *spool.Pool
	var edit editFunc
	r := newRig(t, eicar(), knobs{options: func(o *Options) {
		o.Editor = editFunc(func(b *spool.Blob) (*spool.Blob, error) { return edit(b) })
	}})
	pool = r.pool
	c, s := r.session()
	for _, v := range []struct {
		edit editFunc
		want string
	}{
		{func(*spool.Blob) (*spool.Blob, error) { return pool.Of([]byte(marked)) }, marked},
		{func(b *spool.Blob) (*spool.Blob, error) { return b, nil }, original},
	} {
		edit = v.edit
		c.says("RETR 1\r\n")
		s.hears("RETR 1\r\n")
		s.says("+OK\r\n" + original + ".\r\n")
		c.hears("+OK\r\n" + v.want + ".\r\n")
	}
	// A TOP shows the same, and the RETR that follows.
	edit = func(*spool.Blob) (*spool.Blob, error) { return pool.Of([]byte(marked)) }
	c.says("TOP 1 5\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + original + ".\r\n")
	c.hears("+OK\r\n" + marked + ".\r\n")
	c.says("RETR 1\r\n")
	c.hears("+OK\r\n" + marked + ".\r\n")
	// What an editor does not want is replaced; where it fails, the message is not given.
	edit = func(*spool.Blob) (*spool.Blob, error) { return nil, &Unwanted{What: "setup.exe", Detail: "a rule"} }
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + original + ".\r\n")
	if got := c.message(); strings.Contains(got, "Hello") || !strings.Contains(got, "Subject: [Not delivered]") {
		t.Errorf("an unwanted mail came through:\n%s", got)
	}
	edit = func(*spool.Blob) (*spool.Blob, error) { return nil, errors.New("no room") }
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + original + ".\r\n")
	c.line("-ERR [SYS/TEMP]")
	c.says("NOOP\r\n")
	s.hears("NOOP\r\n")
	s.says("+OK\r\n")
	c.hears("+OK\r\n")
	edit = func(*spool.Blob) (*spool.Blob, error) {
		t.Error("an infected mail was edited")
		return nil, errors.New("x")
	}
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + infected() + ".\r\n")
	c.message()
}

// A gateway can be ended whatever its sessions do.
func TestShutdownDoesNotWaitForEver(t *testing.T) {
	goesOn, working := make(chan struct{}), make(chan struct{})
	r := newRig(t, eicar(), knobs{options: func(o *Options) {
		o.Editor = editFunc(func(b *spool.Blob) (*spool.Blob, error) {
			close(working)
			<-goesOn
			return b, nil
		})
	}})
	r.s.grace = time.Millisecond
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
	<-working
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err := r.s.Shutdown(ended)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 sessions were cut off, and have not ended") {
		t.Errorf("the shutdown: %v", err)
	}
	close(goesOn)
}

func TestEditedWhereItHadBeenSent(t *testing.T) {
	scanner, verdict := slow()
	var r *rig
	r = newRig(t, scanner, knobs{config: awake(byLine), options: func(o *Options) {
		o.Editor = editFunc(func(*spool.Blob) (*spool.Blob, error) { return r.pool.Of([]byte("Subject: other\r\n\r\nHello\r\n")) })
	}})
	c, s := r.session()
	c.says("RETR 1\r\n")
	s.hears("RETR 1\r\n")
	s.says("+OK\r\n" + head + "\r\nHello\r\n.\r\n")
	c.hears("+OK\r\nReceived:")
	verdict <- scan.CleanVerdict()
	if got := c.ended(); len(got) > len(head) {
		t.Errorf("the client heard %q", got)
	}
}

func TestMinimumRate(t *testing.T) {
	p, now := pace{rate: 100}, time.Unix(0, 0)
	feed := func(n int, after time.Duration) error {
		now = now.Add(after)
		return p.feed(n, now)
	}
	for _, v := range []struct {
		n     int
		after time.Duration
		want  error
	}{
		{1, 0, nil},
		{1, 59 * time.Second, nil}, // nothing is said before a minute is over
		{6000, time.Second, nil},
		{100, 30 * time.Second, nil},
		{100, 31 * time.Second, errTooSlow},
	} {
		if err := feed(v.n, v.after); !errors.Is(err, v.want) || (err == nil) != (v.want == nil) {
			t.Errorf("%d bytes after %v: %v", v.n, v.after, err)
		}
	}
}
