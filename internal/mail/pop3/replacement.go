package pop3

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lazaret/internal/gate"
	"lazaret/internal/notice"
	"lazaret/internal/scan"
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
	// Replacement returns a whole message (RFC 5322) that begins with o.Kept and whose lines end in CRLF. It may be called
	// more than once for a message, with less of the original each time.
	Replacement(o Original, n notice.Notice) []byte
	// Given is told of what the message was made that a client is given.
	Given(o Original, n notice.Notice)
}

// noticeTime is how long a notice may be examined: it is small, and the client waits.
const noticeTime = 20 * time.Second

// notice returns the message that stands in the place of l, whose header begins with head. It has nothing in it that the engines
// find: what was found may have stood in the header, whose fields a notice keeps and shows. Then it is made without them, but for
// what the client has already.
func (x *session) notice(ctx context.Context, l *letter, head []byte) []byte {
	fields, _ := kept(head)
	o, n := Original{Head: head, Kept: fields, Client: x.clientAddr, Server: x.serverAddr()}, l.notice
	msg := x.s.opt.Replacer.Replacement(o, n)
	v := x.examine(ctx, msg)
	// Where nobody could examine the mail, nobody may be able to examine the notice. It is the same text for every such mail, with
	// a header that nothing was found in.
	unknown := v.Outcome == scan.Incomplete && n.Kind != notice.Infected
	if v.Outcome != scan.Clean && !unknown {
		x.log.Warn("a notice is given without the fields of the original: nobody says that they are clean", "reference", n.Reference,
			"outcome", v.Outcome, "reason", v.Reason)
		o.Head, o.Kept = nil, begun(head[:l.drip.ofMessage()])
		n.Fault = ""
		n.Verdict.Findings = slices.Clone(n.Verdict.Findings)
		for i := range n.Verdict.Findings {
			n.Verdict.Findings[i].Path = ""
		}
		msg = x.s.opt.Replacer.Replacement(o, n)
	}
	x.s.opt.Replacer.Given(o, n)
	return msg
}

// examine returns what the engines say of a message of the gateway's own.
func (x *session) examine(ctx context.Context, msg []byte) scan.Verdict {
	ctx, cancel := context.WithTimeout(ctx, noticeTime)
	defer cancel()
	o, err := x.s.opt.Gate.Take(bytes.NewReader(msg), gate.Intake{Name: "notice.eml", Type: "message/rfc822", Size: int64(len(msg))})
	if err != nil {
		return scan.FromError("", err)
	}
	if o.Body != nil {
		defer o.Body.Close() // the room is given back
	}
	return x.s.opt.Gate.Examine(ctx, o)
}

// begun returns the fields that sent, the beginning of a header, is of: the last one ends where sent does.
func begun(sent []byte) []byte {
	line := sent[bytes.LastIndexByte(sent, '\n')+1:]
	if len(line) == 0 {
		return sent
	}
	out := bytes.Clone(bytes.TrimSuffix(sent, []byte("\r")))
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case line[0] != ' ' && line[0] != '\t' && bytes.IndexByte(line, ':') < 0:
		out = append(out, ": -"...) // of its name
	case len(bytes.TrimSpace(line)) == 0:
		out = append(out, '-') // a line of nothing but white space would end the header for some
	}
	return append(out, "\r\n"...)
}

// plainReplacer is the Replacer where no other is given: a short text.
type plainReplacer struct{}

// Replacement implements Replacer.
func (plainReplacer) Replacement(o Original, n notice.Notice) []byte {
	_, names := kept(o.Kept)
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

// Given implements Replacer.
func (plainReplacer) Given(Original, notice.Notice) {}

func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
