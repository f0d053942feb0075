package pop3

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lazaret/internal/notice"
)

// Original is what is known of a message that is not given to the client.
type Original struct {
	// Head is its beginning, 64 KiB at most: the header, and what follows it. Nothing of what follows belongs into a notice.
	Head []byte
	// Kept are the fields of its header that the replacement has to begin with, byte for byte, each with its CRLF: the
	// client may have been sent them already.
	Kept []byte
	// Client and Server are the ends of the session. The server's may be the zero value.
	Client, Server netip.AddrPort
}

// Replacer makes the message that a client gets instead of one that it must not have. It is called by many goroutines.
type Replacer interface {
	// Replacement returns a whole message (RFC 5322) that begins with o.Kept and whose lines end in CRLF.
	Replacement(o Original, n notice.Notice) []byte
}

// plainReplacer is the Replacer where no other is given: a short text.
type plainReplacer struct{}

// Replacement implements Replacer.
func (plainReplacer) Replacement(o Original, n notice.Notice) []byte {
	_, names := kept(o.Head)
	var b strings.Builder
	b.Write(o.Kept)
	add := func(name, value string) {
		if !names[strings.ToLower(name)] {
			b.WriteString(name + ": " + value + "\r\n")
		}
	}
	what := "it could not be examined (" + string(n.Verdict.Reason) + ")"
	subject := "[Not delivered] a mail to you could not be examined"
	if n.Kind == notice.Infected {
		virus := "malware"
		if len(n.Verdict.Findings) > 0 {
			virus = notice.Clean(n.Verdict.Findings[0].Signature, 100)
		}
		what, subject = "a virus was found in it: "+virus, "[Virus] found in a mail to you: "+asciiOnly(virus)
	}
	add("Date", n.Time.Format(time.RFC1123Z))
	add("From", "Mail gateway <postmaster@localhost>")
	add("To", "undisclosed-recipients:;")
	b.WriteString("Subject: " + subject + "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: 8bit\r\nAuto-Submitted: auto-generated\r\n\r\n")
	fmt.Fprintf(&b, "A mail to you was not delivered: %s.\r\n\r\n", what)
	row := func(label, name string) {
		if v := value(o.Head, name); v != "" {
			fmt.Fprintf(&b, "%s: %s\r\n", label, notice.Clean(v, 300))
		}
	}
	row("From", "from")
	row("To", "to")
	row("Date", "date")
	row("Subject", "subject")
	fmt.Fprintf(&b, "Server: %s\r\nReference: %s\r\n", notice.Clean(n.Facts.Host, 200), n.Reference)
	return []byte(b.String())
}

func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
