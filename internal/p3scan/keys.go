package p3scan

import (
	"fmt"
	"net"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// fixed are the keys of which always the same is to be said.
var fixed = map[string]struct {
	status Status
	note   string
}{
	"pidfile":    {Needed, "the service manager knows the process; a stale file is no error"},
	"virusdir":   {Mapped, "originals are kept in <state_dir>/quarantine, encrypted; what P3Scan has kept stays where it is"},
	"notifydir":  {Needed, "notices are made in memory"},
	"logopt":     {Needed, "the log goes to standard error, where the service manager takes it, or to [audit] file"},
	"logfac":     {Needed, "the log goes to standard error, where the service manager takes it, or to [audit] file"},
	"noeom":      {Needed, "a message ends where RFC 1939 says, and nowhere else"},
	"nospampipe": {Needed, "spamd is talked to without pipes"},
	"cleankill":  {Needed, "programs that were started are ended with their scan"},
	"whitelist":  {Refused, "a From field is easily forged: nothing is left unscanned for it"},
	"blackshort": {Refused, "mails of listed senders are marked as spam, and otherwise stay as they are"},
	"spamdelete": {Refused, "no mail is deleted because it looks like spam: mark it, and have the mail program file it"},
	"footer":     {Refused, "clean mails stay as they are, byte for byte: signatures depend on it"},
	"emailport":  {NotYet, "SMTP is not relayed by this version: do not redirect it here"},
	"smtprset":   {NotYet, "SMTP is not relayed by this version"},
	"imapport":   {NotYet, "IMAP is not relayed by this version: do not redirect it here"},
}

// one converts a setting that stands for itself.
func (c *converter) one(s Setting) {
	if f, ok := fixed[s.Key]; ok {
		c.say(s, f.status, "", f.note)
		return
	}
	switch s.Key {
	case "maxchilds":
		if n, ok := c.number(s, 1, 1_000_000); ok {
			c.put(s, Taken, "pop3.max_sessions", strconv.Itoa(n), "the default is 1000: a session needs no process any more")
		}
	case "timeout":
		if n, ok := c.number(s, 0, 86400); ok {
			c.put(s, Mapped, "pop3.keep_alive", quoted(strconv.Itoa(n)+"s"), "")
		}
	case "bytesfree":
		if n, ok := c.number(s, 0, 1<<40); ok {
			free := quoted(strconv.Itoa(n) + " KiB")
			c.file.set("spool.min_free", free)
			c.put(s, Mapped, "quarantine.min_free", free, "spool.min_free as well")
		}
	case "user":
		c.user(s)
	case "subject":
		c.text(s, "mail.notice.subject")
	case "notify":
		c.text(s, "mail.notice.deleted")
	case "ispspam":
		c.text(s, "mail.spam.skip_marked")
	case "spamsubject":
		c.text(s, "mail.spam.subject")
	case "template":
		c.template(s)
	case "renattach":
		c.put(s, Mapped, "mail.attachments.rename", quotedList(dangerous), "no program changes mails, but attachments are renamed that are dangerous by content or name: adapt the list")
	case "overwrite":
		c.put(s, Mapped, "mail.html.disarm", quoted("all"), "no program changes mails, but scripts, forms, frames and what is fetched from elsewhere are taken out of HTML; \"active\" leaves pictures")
	case "extra":
		c.addresses(s, "mail.report.notices", "they get a copy of each notice")
	case "emergcon":
		c.addresses(s, "mail.report.faults", "they are told when the gateway cannot do its work, and when it can again; watch /readyz as well: one that is dead mails nobody")
	case "xmail":
		c.mailer(s)
	case "blacklist":
		c.blacklist(s)
	case "blacksubj":
		if _, ok := c.have["spamsubject"]; ok {
			c.say(s, Refused, "mail.spam.subject", "there is one subject for spam, and spamsubject has it")
			return
		}
		c.text(s, "mail.spam.subject")
	case "checksize", "skipsize":
		c.size(s)
	case "spamcheck", "checkspam":
		c.spam(s)
	default:
		c.switched(s)
	}
}

// dangerous are the attachments that renattach is mostly used for, in the words of mail.attachments.
var dangerous = []string{"executable", "script", "shortcut", "double-extension", "deceptive-name"}

// user converts whom the gateway becomes.
func (c *converter) user(s Setting) {
	const target = "sandbox.user"
	if c.opt.Knows(target) && !c.opt.User(s.Value) {
		c.file.note("sandbox", "user = "+quoted(s.Value))
		c.say(s, Mapped, target, "there is no such user here: it is written as a comment")
		return
	}
	c.put(s, Mapped, target, quoted(s.Value), "it must be able to write to state_dir; where the service manager starts the gateway as a user of its own, leave it out")
}

// switched converts what is on or off.
func (c *converter) switched(s Setting) {
	level := func(word string) { c.put(s, Mapped, "audit.level", quoted(word), "") }
	if strings.HasPrefix(s.Key, "debug-") {
		level("debug")
		return
	}
	if s.Key == "demime" || s.Key == "enabletop" || s.Key == "altvnmsg" {
		c.say(s, Needed, "", map[string]string{
			"demime":    "mails are always taken apart",
			"enabletop": "TOP always works, and shows nothing that was not scanned",
			"altvnmsg":  "a template is used whatever it is called",
		}[s.Key])
		return
	}
	if !c.whether(s) {
		return
	}
	switch s.Key {
	case "justdelete":
		c.put(s, Mapped, "quarantine.protocols", "[]", "no mail is kept; what [policy] quarantine and rules name still is")
	case "broken":
		c.put(s, Mapped, "pop3.keep_alive_unit", quoted("line"), "")
	case "debug":
		level("debug")
	case "quiet":
		level("warn")
	case "useurl":
		c.file.note("pop3", `login_servers = ["pop.example.org"]`)
		c.say(s, Refused, "pop3.login_servers", "P3Scan connected to any server that a login named: list those that are meant")
	default:
		c.say(s, Refused, "", "nothing is known of it")
	}
}

func (c *converter) text(s Setting, target string) {
	if s.Value == "" {
		c.say(s, Needed, target, "it is empty")
		return
	}
	c.put(s, Taken, target, quoted(s.Value), "")
}

var localeName = regexp.MustCompile(`-(de|en|es|fr|it|nl|pt)\.mail$`)

// template converts the name of a template, and guesses its language.
func (c *converter) template(s Setting) {
	const target = "mail.notice.template"
	if m := localeName.FindStringSubmatch(path.Base(s.Value)); m != nil && c.opt.Knows("mail.notice.language") {
		c.file.set("mail.notice.language", quoted(m[1]))
	}
	switch {
	case s.Value == "":
		c.say(s, Needed, target, "it is empty")
	case !c.opt.Knows(target):
		c.put(s, Taken, target, "", "")
	case !c.opt.Exists(s.Value):
		c.file.note("mail.notice", "template = "+quoted(s.Value))
		c.say(s, Mapped, target, "there is no such file here: it is written as a comment, and a built-in text is used, in the language of the template's name "+
			"where that tells; P3Scan's own templates can be used as they are")
	default:
		c.put(s, Taken, target, quoted(s.Value), "")
	}
}

func (c *converter) size(s Setting) {
	n, ok := c.number(s, 0, 1<<40)
	switch {
	case !ok:
	case n == 0:
		c.say(s, Needed, "", "every mail is scanned")
	default:
		c.say(s, Refused, "", "P3Scan let larger mails pass unscanned. Every mail is scanned; to stop large ones, write [pop3] max_message, and [policy] too_large "+
			"says what follows")
	}
}

// spam converts the spam check: "checkspam" switches it on, or is the command as "spamcheck" is.
func (c *converter) spam(s Setting) {
	const target = "mail.spam.type"
	is, word := on(s)
	if s.Key == "checkspam" && word && !is {
		c.say(s, Needed, "", "it is off")
		return
	}
	if other, ok := c.have["checkspam"]; s.Key == "spamcheck" {
		if is, word := on(other); !ok || word && !is {
			c.say(s, Needed, "", "checkspam is not on")
			return
		}
	}
	address := ""
	if !word || s.Key == "spamcheck" {
		args, ok := words(s.Value)
		if ok && path.Base(args[0]) == "spamc" {
			address, ok = spamc(args[1:])
		} else {
			ok = false
		}
		if !ok {
			c.say(s, Refused, target, "no program changes mails, but spamd (spamc with -d, -p and -U) and rspamd are asked: see [mail.spam]")
			return
		}
	}
	c.put(s, Mapped, target, quoted("spamd"), "spamd is asked itself, without spamc; marks go into the header of what is spam")
	if address != "" && c.opt.Knows("mail.spam.address") {
		c.file.set("mail.spam.address", quoted(address))
	}
}

// spamc reads the options of spamc that say where spamd listens; others are refused.
func spamc(args []string) (address string, ok bool) {
	host, port := "", "783"
	for len(args) > 0 {
		opt := args[0]
		if len(opt) < 2 || opt[0] != '-' {
			return "", false
		}
		value := opt[2:]
		args = args[1:]
		if value == "" {
			if len(args) == 0 {
				return "", false
			}
			value, args = args[0], args[1:]
		}
		switch opt[1] {
		case 'd':
			host = value
		case 'p':
			port = value
		case 'U':
			return "unix:" + value, len(args) == 0 && strings.HasPrefix(value, "/")
		default:
			return "", false
		}
	}
	if host == "" && port == "783" {
		return "", true
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if !isPort(port) || !isHost(host) {
		return "", false
	}
	return "tcp:" + net.JoinHostPort(host, port), true
}

// Summary counts the states of a report, for people.
func Summary(report []Item) string {
	n := map[Status]int{}
	for _, i := range report {
		n[i.Status]++
	}
	return fmt.Sprintf("%d taken over, %d mapped, %d not needed, %d refused, %d not yet", n[Taken], n[Mapped], n[Needed], n[Refused], n[NotYet])
}
