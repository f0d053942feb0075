package spam

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"lazaret/internal/mail/header"
)

// maxSenders bounds how many senders a file may list.
const maxSenders = 200_000

// senders are those whose mails are spam without anybody being asked. It is safe for use by many goroutines.
type senders struct {
	named map[string]bool // from the settings
	file  string
	now   func() time.Time

	mu     sync.Mutex
	listed map[string]bool // from the file
	looked time.Time       // at the file
	stamp  time.Time
	size   int64
}

var senderEntry = regexp.MustCompile(`^(?:[^\s@<>,;"]{1,100}@|\.|)[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?$`)

// sender returns an entry as it is looked for: "ada@example.org", "example.org", ".example.org".
func sender(s string) (string, error) {
	e := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), "*@")
	e = strings.TrimPrefix(e, "@")
	if strings.HasPrefix(e, "*.") {
		e = e[1:]
	}
	if !senderEntry.MatchString(e) {
		return "", fmt.Errorf("%.100q is no sender: write \"ada@example.org\", \"example.org\", or \".example.org\" for a domain and those below it", s)
	}
	return e, nil
}

// newSenders returns those of cfg, and nil with no error where there are none.
func newSenders(cfg Config, now func() time.Time) (*senders, error) {
	if len(cfg.Senders) == 0 && cfg.SendersFile == "" {
		return nil, nil //nolint:nilnil // nil senders are none
	}
	s := &senders{named: map[string]bool{}, file: cfg.SendersFile, now: now}
	for _, line := range cfg.Senders {
		e, err := sender(line)
		if err != nil {
			return nil, fmt.Errorf("senders: %w", err)
		}
		s.named[e] = true
	}
	if s.file == "" {
		return s, nil
	}
	if err := s.read(); err != nil {
		return nil, fmt.Errorf("senders_file: %w", err)
	}
	return s, nil
}

// read reads the file.
func (s *senders) read() error {
	f, err := os.Open(s.file)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		e, err := sender(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", s.file, n, err)
		}
		if listed[e] = true; len(listed) > maxSenders {
			return fmt.Errorf("%s: more than %d senders", s.file, maxSenders)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	s.listed, s.stamp, s.size = listed, info.ModTime(), info.Size()
	return nil
}

// current returns what the file lists. It is read again when it has changed; while it cannot be read, what it listed stays.
func (s *senders) current() (map[string]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == "" || s.now().Sub(s.looked) < time.Second {
		return s.listed, nil
	}
	s.looked = s.now()
	info, err := os.Stat(s.file)
	if err == nil && (!info.ModTime().Equal(s.stamp) || info.Size() != s.size) {
		err = s.read()
	}
	return s.listed, err
}

var address = regexp.MustCompile(`[^\s<>,;:"()\[\]@]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?`)

// of returns which entry a mail's From, Sender or Return-Path is in; empty: none. The error is the file's, and does not keep the
// answer from being right as of the last time that it could be read.
func (s *senders) of(h header.Header) (string, error) {
	if s == nil {
		return "", nil
	}
	listed, err := s.current()
	for _, name := range []string{"from", "sender", "return-path"} {
		for _, f := range h.All(name) {
			value := f.Value()
			for _, text := range []string{value, header.Decode(value)} {
				for _, a := range address.FindAllString(text, 50) {
					if e := match(strings.ToLower(a), s.named, listed); e != "" {
						return e, err
					}
				}
			}
		}
	}
	return "", err
}

// match returns the entry that an address is in.
func match(addr string, lists ...map[string]bool) string {
	_, domain, _ := strings.Cut(addr, "@")
	tries := []string{addr, domain}
	for d := "." + domain; d != ""; {
		tries = append(tries, d)
		i := strings.IndexByte(d[1:], '.')
		if i < 0 {
			break
		}
		d = d[i+1:]
	}
	for _, list := range lists {
		for _, t := range tries {
			if list[t] {
				return t
			}
		}
	}
	return ""
}

// blocked is what is said of a mail whose sender is listed, as SpamAssassin says it.
func blocked() Result {
	return Result{State: Spam, Score: 100, Required: 5, Symbols: []string{"USER_IN_BLOCKLIST"}}
}

// errNoHeader is why nobody knows the sender of a mail.
var errNoHeader = errors.New("the mail has no end of its header within 1 MiB")

// listed says whether the sender of a mail is listed.
func (c *Checker) listed(m Message) (is bool, err error) {
	if c.senders == nil {
		return false, nil
	}
	head, h, err := headOf(m.Body)
	if err != nil {
		return false, err
	}
	if len(bytes.TrimSpace(head)) > 0 && h.Body < 0 {
		return false, errNoHeader
	}
	e, err := c.senders.of(h)
	return e != "", err
}
