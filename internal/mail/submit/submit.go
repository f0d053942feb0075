// Package submit sends mails by SMTP.
package submit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"strings"
	"time"
)

// Delivery says where a mail is sent by SMTP (RFC 5321).
type Delivery struct {
	Server  string   // "host:25", or "smtps://host:465" with TLS from the start
	From    string   // the envelope's sender; empty: <>, so that no bounce goes to somebody whose address was forged
	To      []string // the envelope's recipients
	NoTLS   bool     // do without STARTTLS where the server offers it
	Timeout time.Duration
	Config  *tls.Config // for tests; nil: the system's authorities
}

// Send sends a mail as it is, except that its lines end in CRLF. A server that offers STARTTLS (RFC 3207) is asked for it,
// and must then have a valid certificate. When Send returns without an error, the server has taken the mail for every
// recipient.
func (d Delivery) Send(ctx context.Context, mail io.Reader) (err error) {
	if len(d.To) == 0 {
		return errors.New("smtp: no recipient")
	}
	for i, a := range append([]string{d.From}, d.To...) {
		if a == "" && i > 0 || strings.ContainsFunc(a, noAddress) {
			return fmt.Errorf("smtp: %q is no address: write it alone, as in ada@example.net", a)
		}
	}
	addr, implicit := strings.CutPrefix(d.Server, "smtps://")
	addr = strings.TrimPrefix(addr, "smtp://")
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return fmt.Errorf("smtp: %q is no server: write \"host:25\" or \"smtps://host:465\"", d.Server)
	}
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("smtp: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // whatever waits for it ends
	defer stop()
	settings := d.Config.Clone()
	if settings == nil {
		settings = &tls.Config{}
	}
	settings.ServerName = host
	settings.MinVersion = tls.VersionTLS12
	if implicit {
		conn = tls.Client(conn, settings)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return errors.Join(fmt.Errorf("smtp: %w", err), conn.Close())
	}
	defer c.Close() // after QUIT there is nothing to be closed
	if err := c.Hello(greetsAs(conn)); err != nil {
		return fmt.Errorf("smtp: EHLO: %w", err)
	}
	if ok, _ := c.Extension("STARTTLS"); ok && !implicit && !d.NoTLS {
		if err := c.StartTLS(settings); err != nil {
			return fmt.Errorf("smtp: STARTTLS: %w", err)
		}
	}
	return d.transaction(c, mail)
}

// noAddress says whether a character cannot be in an address as a command has it (RFC 5321, 4.1.2; quoted ones with spaces are
// left out).
func noAddress(r rune) bool { return r <= ' ' || r == '<' || r == '>' || r == 0x7f }

// greetsAs returns what EHLO says (RFC 5321, 4.1.4): this machine's full name, or where it has none its address. There are servers
// that take no mail from a "localhost".
func greetsAs(conn net.Conn) string {
	if name, err := os.Hostname(); err == nil && strings.Contains(strings.Trim(name, "."), ".") && !strings.ContainsFunc(name, noAddress) {
		return strings.Trim(name, ".")
	}
	a, ok := conn.LocalAddr().(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case a.IP.To4() != nil:
		return "[" + a.IP.To4().String() + "]"
	}
	return "[IPv6:" + a.IP.String() + "]"
}

func (d Delivery) transaction(c *smtp.Client, mail io.Reader) error {
	if err := c.Mail(d.From); err != nil {
		return fmt.Errorf("smtp: MAIL FROM: %w", err)
	}
	for _, to := range d.To {
		if err := c.Rcpt(to); err != nil {
			return fmt.Errorf("smtp: RCPT TO %s: %w", to, err)
		}
	}
	w, err := c.Data()
	if err != nil {
		return fmt.Errorf("smtp: DATA: %w", err)
	}
	if _, err := io.Copy(w, mail); err != nil {
		// Without the final dot the server does not take what it has by now.
		return fmt.Errorf("smtp: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("smtp: the mail was not taken: %w", err)
	}
	_ = c.Quit() // the mail is theirs by now
	return nil
}
