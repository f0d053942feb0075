package spam

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lazaret/internal/spool"
	"lazaret/internal/units"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fixed  = "Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0200\r\nFrom: a@example.org\r\n"
	letter = fixed + "Subject: cheap pills\r\nX-Spam-Flag: NO\r\nX-Spam-Status: No,\r\n\tforged\r\nTo: b@example.net\r\n\r\nX-Spam-Flag: NO\r\nbody\r\n"
)

func newPool(t testing.TB) *spool.Pool {
	t.Helper()
	c := spool.Default()
	c.Dir, c.MinFree = t.TempDir(), 0
	p, err := spool.NewPool(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func blob(t testing.TB, p *spool.Pool, text string) *spool.Blob {
	t.Helper()
	b, err := p.Of([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func text(t testing.TB, b *spool.Blob) string {
	t.Helper()
	out, err := io.ReadAll(b.NewReader())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func newChecker(t testing.TB, cfg Config) *Checker {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// fake serves one connection after the other with serve.
func fake(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "tcp:" + l.Addr().String()
}

func spamdConfig(address string) Config {
	c := Default()
	c.Type, c.Address, c.Timeout = typeSpamd, address, units.Duration(20*time.Second)
	return c
}

func TestRepliesOfSpamd(t *testing.T) {
	ok := "SPAMD/1.1 0 EX_OK\r\n"
	for _, v := range []struct {
		name, command, reply string
		want                 State
		score                float64
		symbols              string
	}{
		{"spam", commandSymbols, ok + "Content-length: 11\r\nSpam: True ; 15.5 / 5.0\r\n\r\nGTUBE,ABC_D", Spam, 15.5, "GTUBE ABC_D"},
		{"ham", commandSymbols, ok + "Spam: False ; -1.0 / 5.0\r\nContent-length: 0\r\n\r\n", Ham, -1, ""},
		{"check", commandCheck, ok + "Spam: Yes ; 6 / 5\r\n\r\n", Spam, 6, ""},
		{"hostile symbols", commandSymbols, ok + "Spam: True ; 6 / 5\r\n\r\nA\r\nBcc: x,<b>,ok_1,=?x?=", Spam, 6, "A Bcc: x ok_1"},
		{"headers", commandHeaders, ok + "Spam: True ; 6 / 5\r\n\r\nFrom: x\nX-Spam-Status: Yes,\n\ttests=A\nX-Spam-Flag: YES\n\n", Spam, 6, ""},
		{"an error", commandSymbols, "SPAMD/1.0 76 Bad header line: x\r\n\r\n", NotChecked, 0, ""},
		{"somebody else", commandSymbols, "220 mail.example.org ESMTP\r\n\r\n", NotChecked, 0, ""},
		{"no verdict", commandSymbols, ok + "Content-length: 0\r\n\r\n", NotChecked, 0, ""},
		{"strange verdict", commandSymbols, ok + "Spam: Maybe ; 6 / 5\r\n\r\n", NotChecked, 0, ""},
		{"no number", commandSymbols, ok + "Spam: True ; NaN / 5\r\n\r\n", NotChecked, 0, ""},
		{"cut off", commandSymbols, ok + "Spam: True ; 6 / 5\r\n", NotChecked, 0, ""},
		{"shorter than it says", commandSymbols, ok + "Spam: True ; 6 / 5\r\nContent-length: 50\r\n\r\nA", NotChecked, 0, ""},
		{"nothing", commandSymbols, "", NotChecked, 0, ""},
		{"a line without end", commandSymbols, strings.Repeat("x", 100<<10), NotChecked, 0, ""},
		{"lines without end", commandSymbols, ok + strings.Repeat("A: b\r\n", 10000), NotChecked, 0, ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			var request string
			cfg := spamdConfig(fake(t, func(c net.Conn) {
				b, _ := io.ReadAll(c)
				request = string(b)
				_, _ = io.WriteString(c, v.reply)
			}))
			cfg.Command, cfg.User = v.command, "%USERNAME%"
			r := newChecker(t, cfg).Check(context.Background(), Message{Body: blob(t, newPool(t), letter), User: "ada"})
			if r.State != v.want || r.Score != v.score || strings.Join(r.Symbols, " ") != v.symbols || (r.Err != nil) != (v.want == NotChecked) {
				t.Errorf("got %+v", r)
			}
			if want := fmt.Sprintf("%s SPAMC/1.5\r\nContent-length: %d\r\nUser: ada\r\n\r\n%s", strings.ToUpper(v.command), len(letter), letter); request != want {
				t.Errorf("it was asked %q", request)
			}
			if v.command == commandHeaders && string(r.fields) != "X-Spam-Status: Yes,\r\n\ttests=A\r\nX-Spam-Flag: YES\r\n" {
				t.Errorf("fields %q", r.fields)
			}
		})
	}
}

func TestLoginsThatAreNoWordsAreNotSent(t *testing.T) {
	var request string
	cfg := spamdConfig(fake(t, func(c net.Conn) {
		b, _ := io.ReadAll(c)
		request = string(b)
		_, _ = io.WriteString(c, "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 6 / 5\r\n\r\n")
	}))
	cfg.User = "%USERNAME%"
	r := newChecker(t, cfg).Check(context.Background(), Message{Body: blob(t, newPool(t), letter), User: "ada\r\nX: y"})
	if r.State != Spam || strings.Contains(request, "User:") {
		t.Errorf("%+v, %q", r, request)
	}
}

func TestScannerThatStallsDelaysNoMail(t *testing.T) {
	hang := make(chan struct{})
	address := fake(t, func(net.Conn) { <-hang })
	defer close(hang)
	for _, typ := range []string{typeSpamd, typeRspamd} {
		cfg := spamdConfig(address)
		cfg.Type, cfg.Timeout = typ, units.Duration(100*time.Millisecond)
		c := newChecker(t, cfg)
		b := blob(t, newPool(t), letter)
		if r := c.Check(context.Background(), Message{Body: b}); !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("%s: %+v", typ, r)
		}
		if s := c.Stats(); s.Failed != 1 {
			t.Errorf("%s: %+v", typ, s)
		}
	}
}

func TestWaitingForATurnIsWithinTheTimeout(t *testing.T) {
	cfg := spamdConfig("tcp:127.0.0.1:1")
	cfg.MaxChecks, cfg.Timeout = 1, units.Duration(100*time.Millisecond)
	c := newChecker(t, cfg)
	c.slots <- struct{}{}
	if r := c.Check(context.Background(), Message{Body: blob(t, newPool(t), letter)}); !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("%+v", r)
	}
}

func TestScannerThatIsDownIsLeftAlone(t *testing.T) {
	asked := 0
	c := newChecker(t, spamdConfig(fake(t, func(net.Conn) {})))
	c.ask = func(context.Context, Message) (Result, error) {
		asked++
		if asked > maxFailures {
			return Result{State: Ham}, nil
		}
		return Result{}, errors.New("down")
	}
	now := time.Unix(0, 0)
	c.now = func() time.Time { return now }
	m := Message{Body: blob(t, newPool(t), letter)}
	for range 5 {
		if r := c.Check(context.Background(), m); r.Err == nil || r.State != NotChecked {
			t.Fatalf("%+v", r)
		}
	}
	if asked != maxFailures {
		t.Errorf("it was asked %d times", asked)
	}
	now = now.Add(pause)
	if r := c.Check(context.Background(), m); r.State != Ham {
		t.Errorf("after the pause: %+v", r)
	}
	c.ask = func(context.Context, Message) (Result, error) { panic("x") }
	if r := c.Check(context.Background(), m); r.Err == nil {
		t.Error("a panic is no error")
	}
}

func TestWhatIsNotAsked(t *testing.T) {
	cfg := spamdConfig("tcp:127.0.0.1:1")
	cfg.SkipMarked, cfg.MaxSize = "X-Spam-Flag: YES", 1000
	c := newChecker(t, cfg)
	c.ask = func(context.Context, Message) (Result, error) { return Result{State: Ham}, nil }
	pool := newPool(t)
	for _, v := range []struct {
		name, mail string
		asked      bool
	}{
		{"marked", "X-Spam-Flag: YES\r\n" + letter, false},
		{"not marked", letter, true},
		{"the text in the body", letter + "X-Spam-Flag: YES\r\n", true},
		{"too large", letter + strings.Repeat("x", 1000), false},
	} {
		if r := c.Check(context.Background(), Message{Body: blob(t, pool, v.mail)}); (r.State == Ham) != v.asked || r.Skipped == "" != v.asked {
			t.Errorf("%s: %+v", v.name, r)
		}
	}
	if s := c.Stats(); s.Skipped != 2 || s.Ham != 2 {
		t.Errorf("%+v", s)
	}
	var none *Checker
	if r := none.Check(context.Background(), Message{}); r.State != NotChecked || r.Err != nil {
		t.Errorf("%+v", r)
	}
}

func TestMark(t *testing.T) {
	spam := Result{State: Spam, Score: 6.25, Required: 5, Symbols: []string{"A", "B"}}
	marks := "X-Spam-Flag: YES\r\nX-Spam-Score: 6.2\r\nX-Spam-Level: ******\r\nX-Spam-Status: Yes, score=6.2 required=5.0\r\n\ttests=A,\r\n\tB\r\n"
	rest := "To: b@example.net\r\n\r\nX-Spam-Flag: NO\r\nbody\r\n"
	own := spam
	own.fields = []byte("X-Spam-Status: Yes\r\n")
	for _, v := range []struct {
		name, mark, subject, mail string
		r                         Result
		at                        int
		want                      string
	}{
		{"spam", markSpam, "", letter, spam, len(fixed), fixed + marks + "Subject: cheap pills\r\n" + rest},
		{"subject", markSpam, "[SPAM]", letter, spam, len(fixed), fixed + marks + "Subject: [SPAM] cheap pills\r\n" + rest},
		{"subject alone", markNone, "[Spåm]", letter, spam, len(fixed), strings.Replace(letter, "Subject:", "Subject: =?utf-8?B?W1Nww6VtXQ==?=", 1)},
		{"spamd's own fields", markSpam, "", letter, own, len(fixed), fixed + "X-Spam-Status: Yes\r\nSubject: cheap pills\r\n" + rest},
		{"nothing", markNone, "", letter, spam, len(fixed), letter},
		{"ham", markSpam, "[SPAM]", letter, Result{State: Ham}, len(fixed), letter},
		{"all", markAll, "[SPAM]", letter, Result{State: Ham, Score: -1, Required: 5}, len(fixed), fixed + "X-Spam-Flag: NO\r\nX-Spam-Score: -1.0\r\nX-Spam-Status: No, score=-1.0 required=5.0\r\nSubject: cheap pills\r\n" + rest},
		{"no answer", markAll, "[SPAM]", letter, Result{Err: errors.New("x")}, len(fixed), letter},
		{"no subject", markSpam, "[SPAM]", "From: a\r\n\r\nx", own, 9, "From: a\r\nX-Spam-Status: Yes\r\nSubject: [SPAM]\r\n\r\nx"},
		{"two subjects", markSpam, "[SPAM]", "Subject:a\r\nsubject: b\r\n\r\nx", own, 0, "X-Spam-Status: Yes\r\nSubject: [SPAM] a\r\nsubject: [SPAM] b\r\n\r\nx"},
		{"header alone", markSpam, "[SPAM]", "From: a\r\nSubject: b\r\n", own, 9, "From: a\r\nX-Spam-Status: Yes\r\nSubject: [SPAM] b\r\n"},
		{"header alone, all of it sent", markSpam, "", "From: a\r\n", own, 9, "From: a\r\nX-Spam-Status: Yes\r\n"},
		{"no header", markSpam, "", "\r\nx", own, 0, "X-Spam-Status: Yes\r\n\r\nx"},
		{"bare line feeds", markSpam, "", "From: a\nX-Spam-Flag: NO\n\nx", own, 0, "X-Spam-Status: Yes\r\nFrom: a\nX-Spam-Flag: NO\n\nx"},
	} {
		t.Run(v.name, func(t *testing.T) {
			cfg := spamdConfig("")
			cfg.Mark, cfg.Subject = v.mark, v.subject
			pool := newPool(t)
			b := blob(t, pool, v.mail)
			got, err := newChecker(t, cfg).Mark(pool, b, v.r, v.at)
			if err != nil {
				t.Fatal(err)
			}
			if s := text(t, got); s != v.want {
				t.Errorf("got:\n%q\nwant:\n%q", s, v.want)
			}
			if (got == b) != (v.want == v.mail) {
				t.Error("a copy was made for nothing")
			}
			if got != b {
				_ = got.Close()
			}
		})
	}
}

func TestMailWithoutEndOfHeaderIsNotMarked(t *testing.T) {
	pool := newPool(t)
	for _, mail := range []string{strings.Repeat("X-Long: x\r\n", maxHeader/10), "Hello, this is a text\r\n", "Subject: x"} {
		b := blob(t, pool, mail)
		if got, err := newChecker(t, spamdConfig("")).Mark(pool, b, Result{State: Spam}, 0); err == nil || got != b {
			t.Errorf("%.40q: %v, %v", mail, got, err)
		}
	}
}

func TestRepliesOfRspamd(t *testing.T) {
	for _, v := range []struct {
		name, body string
		status     int
		want       State
		fails      bool
	}{
		{"add header", `{"score":7.5,"required_score":15,"action":"add header","symbols":{"B":{"score":1},"A":{"score":2},"x\r\ny":{}}}`, 200, Spam, false},
		{"reject", `{"score":17.5,"required_score":15,"action":"reject"}`, 200, Spam, false},
		{"no action", `{"score":0,"required_score":15,"action":"no action"}`, 200, Ham, false},
		{"greylist", `{"score":4,"required_score":15,"action":"greylist"}`, 200, Ham, false},
		{"skipped", `{"is_skipped":true}`, 200, NotChecked, false},
		{"skipped with an action", `{"is_skipped":true,"score":15,"required_score":15,"action":"reject"}`, 200, Spam, false},
		{"unknown action", `{"score":4,"required_score":15,"action":"accept it"}`, 200, NotChecked, true},
		{"no score", `{"action":"no action"}`, 200, NotChecked, true},
		{"an error", `{"error":"invalid message"}`, 200, NotChecked, true},
		{"a status", `{"error":"unauthorized"}`, 403, NotChecked, true},
		{"elsewhere", ``, 302, NotChecked, true},
		{"no JSON", `<html>`, 200, NotChecked, true},
		{"without end", `{"x":"` + strings.Repeat("x", maxReply) + `"}`, 200, NotChecked, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got, body = r, must(io.ReadAll(r.Body))
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(v.status)
				_, _ = io.WriteString(w, v.body)
			}))
			defer s.Close()
			cfg := spamdConfig(s.URL)
			cfg.Type, cfg.Password = typeRspamd, "q1"
			c := newChecker(t, cfg)
			r := c.Check(context.Background(), Message{Body: blob(t, newPool(t), letter), User: "ada", Reference: "R-1"})
			if r.State != v.want || (r.Err != nil) != v.fails {
				t.Errorf("%+v", r)
			}
			if got.Method != http.MethodPost || got.URL.Path != "/checkv2" || got.Header.Get("Password") != "q1" || got.Header.Get("Deliver-To") != "ada" || string(body) != letter {
				t.Errorf("it was asked %v %v", got, body)
			}
			if v.name == "add header" && strings.Join(r.Symbols, " ") != "A B" {
				t.Errorf("symbols %q", r.Symbols)
			}
			c.Close()
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestValidate(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"type":        func(c *Config) { c.Type = "bayes" },
		"address":     func(c *Config) { c.Address = "localhost" },
		"command":     func(c *Config) { c.Command = "TELL" },
		"mark":        func(c *Config) { c.Mark = "yes" },
		"subject":     func(c *Config) { c.Subject = "a\r\nb" },
		"skip_marked": func(c *Config) { c.SkipMarked = strings.Repeat("x", 300) },
		"timeout":     func(c *Config) { c.Timeout = 0 },
		"max_size":    func(c *Config) { c.MaxSize = 0 },
		"max_checks":  func(c *Config) { c.MaxChecks = 0 },
	} {
		c := Default()
		c.Type = typeSpamd
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	for _, a := range []string{"tcp:[::1]:783", "unix:/run/x.sock", "http://localhost:11333", "http://localhost"} {
		c := Default()
		c.Type, c.Address = typeRspamd, a
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func FuzzReadSpamd(f *testing.F) {
	f.Add([]byte("SPAMD/1.1 0 EX_OK\r\nContent-length: 11\r\nSpam: True ; 15.5 / 5.0\r\n\r\nGTUBE,ABC_D"))
	f.Add([]byte("SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1 / 5\r\n\r\nX-Spam-Status: No\n\tx\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, command := range []string{commandSymbols, commandHeaders} {
			r, err := readSpamd(bufio.NewReader(strings.NewReader(string(b))), command)
			if err != nil {
				continue
			}
			if r.State == NotChecked {
				t.Fatal("no verdict, and no error")
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(r.fields)+r.own(), "\r\n"), "\r\n") {
				if strings.ContainsAny(line, "\r\n\x00") || !strings.HasPrefix(strings.ToLower(line), "x-spam-") && line[0] != ' ' && line[0] != '\t' {
					t.Fatalf("a line %q", line)
				}
			}
		}
	})
}

func FuzzReadRspamd(f *testing.F) {
	f.Add([]byte(`{"score":7.5,"required_score":15,"action":"add header","symbols":{"B":{"score":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRspamd(200, b)
		if err != nil || r.State == NotChecked {
			return
		}
		if !json.Valid(b) || strings.Contains(strings.ReplaceAll(r.own(), "\r\n", ""), "\n") {
			t.Fatalf("%q", r.own())
		}
	})
}
