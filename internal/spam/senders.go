package spam

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
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

// read reads the file. Every check waits meanwhile: what could keep it waiting for others (a FIFO, a terminal) is no such file.
func (s *senders) read() error {
	f, err := os.OpenFile(s.file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", s.file)
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

// addresses returns the addresses of a field. A display name is none ("ada@example.org via list" <list@example.net>). Of a field
// that is none by RFC 5322, whatever looks like one counts.
func addresses(value string) []string {
	var out []string
	bare := plainly(value)
	for _, text := range []string{value, bare} {
		if list, err := parser.ParseList(text); err == nil {
			for _, a := range list[:min(len(list), maxAddresses)] {
				out = append(out, a.Address)
			}
			return out
		}
	}
	for _, text := range []string{value, header.Decode(value), bare, plainly(header.Decode(value))} {
		out = append(out, address.FindAllString(text, maxAddresses)...)
	}
	return out
}

// parser does not care what charset a display name is in.
var parser = mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil }}}

// maxAddresses bounds how many addresses of a field are looked up.
const maxAddresses = 50

// plainly returns the value of a field without its comments (RFC 5322, 3.2.2), and without quotes around the local part of an
// address where it needs none.
func plainly(value string) string {
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == '\\' && (quoted || depth > 0) && i+1 < len(value):
			i++
			if depth == 0 {
				b.WriteString(value[i-1 : i+1])
			}
			continue
		case depth == 0 && c == '"':
			quoted = !quoted
		case !quoted && c == '(':
			depth++
		case !quoted && c == ')' && depth > 0:
			depth--
			continue
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return around.ReplaceAllString(unquoted.ReplaceAllString(b.String(), "$1@"), "@")
}

var (
	unquoted = regexp.MustCompile(`"([^\s<>,;:"()\[\]@\\]+)"\s*@`)
	around   = regexp.MustCompile(`\s*@\s*`)
)

var address = regexp.MustCompile(`[^\s<>,;:"()\[\]@]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?`)

// of returns which entry a mail's From, Sender or Return-Path is in; empty: none. The error is the file's, and does not keep the
// answer from being right as of the last time that it could be read.
func (s *senders) of(h header.Header) (string, error) {
	if s == nil {
		return "", nil
	}
	listed, err := s.current()
	if err != nil {
		err = fmt.Errorf("senders_file: as it was when it could be read last: %w", err)
	}
	for _, name := range []string{"from", "sender", "return-path"} {
		for _, f := range h.All(name) {
			for _, a := range addresses(f.Value()) {
				if e := match(strings.ToLower(a), s.named, listed); e != "" {
					return e, err
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

// errNoHeader is why nobody knows the sender of a mail. One that ends with its header has no empty line (RFC 5322, 3.5).
var errNoHeader = errors.New("the mail has no end of its header within 1 MiB: its sender is not looked for")

// listed says whether the sender of a mail is listed.
func (c *Checker) listed(m Message) (is bool, err error) {
	if c.senders == nil {
		return false, nil
	}
	_, h, err := headOf(m.Body)
	if err != nil {
		return false, err
	}
	if h.Body < 0 && m.Body.Size() > maxHeader {
		return false, errNoHeader
	}
	e, err := c.senders.of(h)
	return e != "", err
}
