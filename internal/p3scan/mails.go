package p3scan

import (
	"net/mail"
	"path"
	"strings"
)

// addresses converts a list of mail addresses.
func (c *converter) addresses(s Setting, target, note string) {
	list := strings.FieldsFunc(s.Value, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == ';' })
	if len(list) == 0 {
		c.say(s, Needed, target, "it is empty")
		return
	}
	for _, a := range list {
		if p, err := mail.ParseAddress(a); !localMailbox(a) && (err != nil || p.Address != a) {
			c.say(s, Refused, target, quoted(a)+" is no mail address")
			return
		}
	}
	c.put(s, Mapped, target, quotedList(list), note)
}

// localMailbox says whether a is the name of a mailbox of the mail server itself, such as "root", as [mail.report] has them.
func localMailbox(a string) bool {
	return !strings.HasPrefix(a, "-") && strings.Trim(strings.ToLower(a), "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// mailer converts the program that mails administrators. P3Scan calls it as mail(1), with a subject and a text; here it gets a mail.
func (c *converter) mailer(s Setting) {
	args, ok := words(s.Value)
	if ok && len(args) == 1 && path.IsAbs(args[0]) && path.Base(args[0]) == "sendmail" {
		c.put(s, Mapped, "mail.report.program", quotedList([]string{args[0], "-i", "--"}), "")
		return
	}
	c.say(s, Refused, "mail.report.server", "mails to administrators go to the mail server of this machine, or another one; a program must take whole mails as sendmail does, and is called without a shell")
}

// blacklist converts the file of senders.
func (c *converter) blacklist(s Setting) {
	const target = "mail.spam.senders_file"
	const note = "their mails are marked as spam; \"lazaret check\" says what in the file is no address and no domain"
	switch {
	case !path.IsAbs(s.Value):
		c.say(s, Refused, target, "it is not the path of a file: list the senders in [mail.spam] senders")
	case c.opt.Knows(target) && !c.opt.Exists(s.Value):
		c.file.note("mail.spam", "senders_file = "+quoted(s.Value))
		c.say(s, Mapped, target, "there is no such file here: it is written as a comment; "+note)
	default:
		c.put(s, Mapped, target, quoted(s.Value), note)
	}
}
