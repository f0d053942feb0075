package p3scan_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/config"
	"lazaret/internal/p3scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/scan/command"
)

func no(string) bool { return false }

// convert reads and converts a file, and reads what came out with the strict reader of settings.
func convert(t *testing.T, conf string) (*config.Config, string, map[string]p3scan.Item) {
	t.Helper()
	settings, err := p3scan.Parse(strings.NewReader(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	toml, report := p3scan.Convert(settings, p3scan.Options{Source: "test", Knows: config.Has, Exists: no, User: no})
	c, err := config.Parse("converted", toml)
	if err != nil {
		t.Fatalf("%s\n%s\n%v", conf, toml, err)
	}
	if len(report) != len(settings) {
		t.Errorf("%d settings, and %d lines of report: %+v", len(settings), len(report), report)
	}
	items := map[string]p3scan.Item{}
	for _, i := range report {
		items[i.Key] = i
		if i.Status == "" || i.Note == "" && i.Status != p3scan.Taken && i.Status != p3scan.Mapped {
			t.Errorf("%+v says nothing", i)
		}
	}
	return c, string(toml), items
}

func TestTheTutorialsFile(t *testing.T) {
	b, err := os.ReadFile("testdata/tutorial.conf")
	if err != nil {
		t.Fatal(err)
	}
	c, toml, items := convert(t, string(b))
	if len(items) != 14 {
		t.Errorf("%d items", len(items))
	}
	if c.POP3.MaxSessions != 10 || !slices.Equal(c.POP3.Listen, []string{"0.0.0.0:8110"}) || c.POP3.Upstream != "" || len(c.Quarantine.Protocols) != 0 {
		t.Errorf("%+v %+v", c.POP3, c.Quarantine)
	}
	if len(c.Scanners) != 1 {
		t.Fatalf("%+v", c.Scanners)
	}
	s := c.Scanners[0].Settings.(command.Config)
	if !slices.Equal(s.Command, []string{"/usr/bin/clamscan", "--no-summary", "-i", "{file}"}) || s.NamePattern != ".*: (.*) FOUND" ||
		!slices.Equal(s.InfectedCodes, []int{1}) || !slices.Equal(s.CleanCodes, []int{0}) || !c.Scanners[0].Required {
		t.Errorf("%+v", s)
	}
	n := c.Mail.Notice
	if n.Subject != "[virus] dans un message pour vous:" || n.Deleted != "Pour information, le message a été détruit." || n.Language != "fr" {
		t.Errorf("%+v", n)
	}
	if !strings.Contains(toml, "# template = \"/etc/p3scan/p3scan-fr.mail\"\n") {
		t.Error(toml)
	}
	for key, i := range items {
		if i.Status == p3scan.Refused || i.Status == p3scan.NotYet {
			t.Errorf("%s: %+v", key, i)
		}
	}
}

// TestLatin1: the tutorial's file as it was on a machine of 2005.
func TestLatin1(t *testing.T) {
	c, _, _ := convert(t, "notify = d\xe9truit\n")
	if c.Mail.Notice.Deleted != "détruit" {
		t.Errorf("%q", c.Mail.Notice.Deleted)
	}
}

func TestSyntax(t *testing.T) {
	for name, c := range map[string]struct {
		conf string
		want string
	}{
		"equals, or none":          {"port = 1\nip=::1\nuser\tx\ntimeout   =2", "1 port 1|2 ip ::1|3 user x|4 timeout 2"},
		"comments":                 {"# a\n ; b\n// c\n\nport 1 # no comment\n", "5 port 1 # no comment"},
		"CRLF and a mark":          {"\xef\xbb\xbfport = 1\r\nquiet\r\n", "1 port 1|2 quiet "},
		"no newline at the end":    {"quiet", "1 quiet "},
		"signs in values":          {"subject = a = b ; c // d # e", "1 subject a = b ; c // d # e"},
		"abbreviations":            {"maxch 5\nvirusr x\npid y", "1 maxchilds 5|2 virusregexp x|3 pidfile y"},
		"a key that begins others": {"ip 1\nscanner x\nnotify y", "1 ip 1|2 scanner x|3 notify y"},
		"names of 3.0":             {"freespace 1\ndelnotify x\ndelete\nspamsub y", "1 freespace 1|2 delnotify x|3 delete |4 spamsubject y"},
		"short in 2.3.2":           {"spam x\nbytes 5", "1 spamcheck x|2 bytesfree 5"},
		"short in 3.0":             {"freesp 5\nwhite a", "1 freespace 5|2 whitelist a"},
		"debug of a part":          {"debug-scanner\ndebug", "1 debug-scanner |2 debug "},
		"both vocabularies":        {"bytesfree 1\nfreespace 2", "1 bytesfree 1|2 freespace 2"},
		"empty":                    {"", ""},
	} {
		got, err := p3scan.Parse(strings.NewReader(c.conf))
		var out []string
		for _, s := range got {
			out = append(out, fmt.Sprintf("%d %s %s", s.Line, s.Key, s.Value))
		}
		if err != nil || strings.Join(out, "|") != c.want {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
}

func TestErrorsHaveLines(t *testing.T) {
	for conf, want := range map[string]string{
		"port = 1\nprot = 2":                  `line 2: "prot" is no key of P3Scan`,
		"= 5":                                 "line 1: has a value and no key",
		"\n\nviru x":                          `line 3: "viru" may be viruscode or virusdir or virusregexp: write it out`,
		"PORT = 1":                            `line 1: "PORT" is no key of P3Scan`,
		"subject = a\x00b":                    "line 1: has control characters in it",
		"subject a\x1b[31m\nnonsense":         "line 1: has control characters in it\nline 2: \"nonsense\" is no key of P3Scan",
		"nonsense\nsubject a\x1b\nbytesf\n= ": "line 1: \"nonsense\" is no key of P3Scan\nline 2: has control characters in it\nline 4: has a value and no key",
	} {
		_, err := p3scan.Parse(strings.NewReader(conf))
		var e *p3scan.Error
		if err == nil || err.Error() != want || !errors.As(err, &e) || e.Line == 0 {
			t.Errorf("%q: %v", conf, err)
		}
	}
	if _, err := p3scan.Parse(strings.NewReader(strings.Repeat("#\n", 1<<20))); err == nil {
		t.Error("a file without an end is read")
	}
}

// TestEachKey has what each setting becomes.
func TestEachKey(t *testing.T) {
	const scanner = "scannertype basic\nscanner /bin/x\n"
	for _, c := range []struct {
		conf, key string
		status    p3scan.Status
		toml      string // has to be in the settings; with a ! before it, must not be
	}{
		{"ip = 192.0.2.1\nport = 110", "port", p3scan.Taken, `listen = ["192.0.2.1:110"]`},
		{"ip = ::1", "ip", p3scan.Taken, `listen = ["[::1]:8110"]`},
		{"ip = mail.example", "ip", p3scan.Refused, `listen = ["0.0.0.0:8110"]`},
		{"port = 0", "port", p3scan.Refused, `listen = ["0.0.0.0:8110"]`},
		{"port = 110 \"]\n", "port", p3scan.Refused, `listen = ["0.0.0.0:8110"]`},
		{"targetip = 192.0.2.9\ntargetport = 110", "targetip", p3scan.Taken, `upstream = "192.0.2.9:110"`},
		{"targetip = 2001:db8::9\ntargetport = 995", "targetport", p3scan.Taken, `upstream = "tls://[2001:db8::9]:995"`},
		{"targetip = 0.0.0.0", "targetip", p3scan.Taken, `!upstream`},
		{"targetport = 110", "targetport", p3scan.Taken, `!upstream`},
		{"sslport = 1995", "sslport", p3scan.Mapped, `tls_ports = [1995]`},
		{"useurl", "useurl", p3scan.Refused, `# login_servers`},
		{"useurl = off", "useurl", p3scan.Needed, `!login_servers`},
		{"useurl = perhaps", "useurl", p3scan.Refused, `!login_servers`},
		{"maxchilds = 50", "maxchilds", p3scan.Taken, "max_sessions = 50"},
		{"maxchilds = 0", "maxchilds", p3scan.Refused, "!max_sessions"},
		{"timeout = 45", "timeout", p3scan.Mapped, `keep_alive = "45s"`},
		{"broken", "broken", p3scan.Mapped, `keep_alive_unit = "line"`},
		{"justdelete", "justdelete", p3scan.Mapped, `protocols = []`},
		{"justdelete = no", "justdelete", p3scan.Needed, `!protocols`},
		{"delete", "justdelete", p3scan.Mapped, `protocols = []`},
		{"bytesfree = 10000", "bytesfree", p3scan.Mapped, `min_free = "10000 KiB"`},
		{"freespace = 10000", "bytesfree", p3scan.Mapped, `min_free = "10000 KiB"`},
		{"user = nobody", "user", p3scan.Mapped, `# user = "nobody"`},
		{"subject = \"quoted\\\"", "subject", p3scan.Taken, `subject = "\"quoted\\\""`},
		{"delnotify = gone", "notify", p3scan.Taken, `deleted = "gone"`},
		{"template = /x/p3scan-de.mail", "template", p3scan.Mapped, `language = "de"`},
		{"debug", "debug", p3scan.Mapped, `level = "debug"`},
		{"debug-pop3", "debug-pop3", p3scan.Mapped, `level = "debug"`},
		{"quiet", "quiet", p3scan.Mapped, `level = "warn"`},
		{"debug\nquiet", "quiet", p3scan.Refused, `level = "debug"`},
		{"quiet\ndebug-pop3", "debug-pop3", p3scan.Refused, `level = "warn"`},
		{"debug\ndebug-pop3", "debug-pop3", p3scan.Mapped, `level = "debug"`},
		{"checksize = 1024", "checksize", p3scan.Refused, "!max_message"},
		{"smtpsize = 1024", "checksize", p3scan.Refused, "!max_message"},
		{"checksize = 0", "checksize", p3scan.Needed, "!max_message"},
		{"whitelist = a@example", "whitelist", p3scan.Refused, "!example"},
		{"renattach = /usr/bin/renattach", "renattach", p3scan.Mapped, `rename = ["executable", `},
		{"spamsubject = [SPAM]", "spamsubject", p3scan.Taken, `subject = "[SPAM]"`},
		{"ispspam = X-Spam: YES", "ispspam", p3scan.Taken, `skip_marked = "X-Spam: YES"`},
		{"emailport = 25", "emailport", p3scan.NotYet, "!25"},
		{"xmail = /bin/mail %USERNAME%", "xmail", p3scan.Refused, "!bin/mail"},
		{"xmail = /usr/sbin/sendmail", "xmail", p3scan.Mapped, `program = ["/usr/sbin/sendmail", "-i", "--"]`},
		{"extra = root@localhost postmaster@localhost", "extra", p3scan.Mapped, `notices = ["root@localhost", "postmaster@localhost"]`},
		{"extra = root, mail-admin", "extra", p3scan.Mapped, `notices = ["root", "mail-admin"]`},
		{"extra = root;rm -rf", "extra", p3scan.Refused, `!notices`},
		{"extra = root $(rm)", "extra", p3scan.Refused, `!notices`},
		{"emergcon = root", "emergcon", p3scan.Mapped, `faults = ["root"]`},
		{"emergcon = root@localhost", "emergcon", p3scan.Mapped, `faults = ["root@localhost"]`},
		{"overwrite = /usr/bin/p3pmail", "overwrite", p3scan.Mapped, `disarm = "all"`},
		{"blacklist = /etc/p3scan/black", "blacklist", p3scan.Mapped, `# senders_file = "/etc/p3scan/black"`},
		{"blacklist = ada@example.org", "blacklist", p3scan.Refused, `!senders`},
		{"blacksubj = [BLACK]", "blacksubj", p3scan.Taken, `subject = "[BLACK]"`},
		{"spamsubject = [SPAM]\nblacksubj = [BLACK]", "blacksubj", p3scan.Refused, `subject = "[SPAM]"`},
		{"port 1\nport 2", "port", p3scan.Taken, `:2"]`},

		{"scannertype = clamd", "scannertype", p3scan.Mapped, `address = "tcp:127.0.0.1:3310"`},
		{"scannertype = clamd\nscanner = 192.0.2.1:3311", "scanner", p3scan.Mapped, `address = "tcp:192.0.2.1:3311"`},
		{"scannertype = clamd\nscanner = /run/c.ctl", "scanner", p3scan.Mapped, `address = "unix:/run/c.ctl"`},
		{"scannertype = clamd\nscanner = nonsense", "scanner", p3scan.Refused, `address = "tcp:127.0.0.1:3310"`},
		{"scannertype = clamd\nviruscode = 1", "viruscode", p3scan.Needed, `!codes`},
		{"scannertype = bash\nscanner = /opt/s.sh 'a b' c\\ d", "scanner", p3scan.Mapped, `command = ["/opt/s.sh", "a b", "c d", "{copy}"]`},
		{"scannertype = trophie\nscanner = /x\nvirusregexp = x", "scannertype", p3scan.Refused, "![[scanner]]"},
		{"scannertype = avpd_new", "scannertype", p3scan.Refused, "![[scanner]]"},
		{"scannertype = basic", "scannertype", p3scan.Mapped, "![[scanner]]"},
		{"scanner = clamscan | grep x", "scanner", p3scan.Refused, "![[scanner]]"},
		{"scanner = 'open", "scanner", p3scan.Refused, "![[scanner]]"},
		{"scanner = x $(rm y)", "scanner", p3scan.Refused, "![[scanner]]"},
		{"scanner =", "scanner", p3scan.Refused, "![[scanner]]"},
		{scanner + "viruscode = 1,2 3", "viruscode", p3scan.Taken, "infected_codes = [1, 2, 3]"},
		{scanner + "viruscode = 300", "viruscode", p3scan.Refused, "![[scanner]]"},
		{scanner + "viruscode = 0", "scanner", p3scan.Refused, "![[scanner]]"},
		{scanner + "viruscode = 0\ngoodcode = 1", "goodcode", p3scan.Taken, "clean_codes = [1]"},
		{scanner + "goodcode = 0,10", "goodcode", p3scan.Taken, "clean_codes = [0, 10]"},
		{scanner + "goodcode = 1", "goodcode", p3scan.Refused, "![[scanner]]"},
		{scanner + "goodcode = 1\nvirusregexp = x", "virusregexp", p3scan.Refused, "![[scanner]]"},
		{scanner + "viruscode = 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", "viruscode", p3scan.Refused, "![[scanner]]"},
		{scanner + "virusregexp = (a)(b)/2", "virusregexp", p3scan.Taken, `name_pattern = "(a)(b)/2"`},
		{scanner + "virusregexp = (a)/2", "virusregexp", p3scan.Refused, "!name_pattern"},
		{scanner + "virusregexp = (?<=a)b", "virusregexp", p3scan.Refused, "!name_pattern"},
		{scanner + "virusregexp = (a)/99999999999999999999", "virusregexp", p3scan.Refused, "!name_pattern"},
	} {
		_, toml, items := convert(t, c.conf)
		i, ok := items[c.key]
		if !ok || i.Status != c.status {
			t.Errorf("%q: %+v", c.conf, i)
		}
		text, absent := strings.CutPrefix(c.toml, "!")
		if strings.Contains(toml, text) == absent {
			t.Errorf("%q:\n%s", c.conf, toml)
		}
	}
}

// TestSpam is about keys that this version may or may not know.
func TestSpam(t *testing.T) {
	for _, c := range []struct {
		conf   string
		status p3scan.Status
		want   string
	}{
		{"checkspam", p3scan.Mapped, `type = "spamd"`},
		{"checkspam = off", p3scan.Needed, "!spamd"},
		{"checkspam = /usr/bin/spamc -d 192.0.2.1 -p 7830", p3scan.Mapped, `address = "tcp:192.0.2.1:7830"`},
		{"checkspam = spamc -U/run/spamd.sock", p3scan.Mapped, `address = "unix:/run/spamd.sock"`},
		{"checkspam = spamc -u bob", p3scan.Refused, "!spamd"},
		{"checkspam = dspam --x", p3scan.Refused, "!spamd"},
		{"checkspam = spamc -p", p3scan.Refused, "!spamd"},
		{"checkspam = spamc -d a,b", p3scan.Refused, "!spamd"},
	} {
		settings, err := p3scan.Parse(strings.NewReader(c.conf))
		if err != nil {
			t.Fatal(err)
		}
		toml, report := p3scan.Convert(settings, p3scan.Options{})
		text, absent := strings.CutPrefix(c.want, "!")
		if len(report) != 1 || report[0].Status != c.status || strings.Contains(string(toml), text) == absent {
			t.Errorf("%s: %+v\n%s", c.conf, report, toml)
		}
		toml, report = p3scan.Convert(settings, p3scan.Options{Knows: no})
		if strings.Contains(string(toml), "spam") || c.status == p3scan.Mapped && report[0].Status != p3scan.NotYet {
			t.Errorf("%s, where there is no such key: %+v\n%s", c.conf, report, toml)
		}
	}
	settings, err := p3scan.Parse(strings.NewReader("spamcheck = spamc"))
	if err != nil {
		t.Fatal(err)
	}
	if toml, report := p3scan.Convert(settings, p3scan.Options{}); report[0].Status != p3scan.Needed || strings.Contains(string(toml), "spam") {
		t.Errorf("%+v\n%s", report, toml)
	}
}

func TestClamdIsReadAsClamd(t *testing.T) {
	c, _, _ := convert(t, "scannertype = clamd\nscanner = /run/c.ctl\n")
	if s, ok := c.Scanners[0].Settings.(clamd.Config); !ok || len(s.Addresses) != 1 {
		t.Errorf("%+v", c.Scanners)
	}
}

func FuzzImport(f *testing.F) {
	b, err := os.ReadFile("testdata/tutorial.conf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("freespace 1\nspamsub =\xe9\ntargetip ::1\ntargetport 995\nuseurl\ncheckspam spamc -d h\n"))
	f.Add([]byte("scannertype clamd\nscanner = [::1]:3310\nviruscode 1\ntemplate = x\"\\\n"))
	f.Add([]byte("scanner = \"a b\" 'c'\\ d\nviruscode 1,2\ngoodcode 0\nvirusregexp = (a)/1\nbytesfree 99\nmaxchilds 3\ntimeout 9\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		settings, err := p3scan.Parse(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		toml, report := p3scan.Convert(settings, p3scan.Options{Source: string(b), Knows: config.Has, Exists: no, User: no})
		if len(report) != len(settings) {
			t.Fatalf("%d settings, %d lines of report", len(settings), len(report))
		}
		if _, err := config.Parse("converted", toml); err != nil {
			t.Fatalf("%v\n%s", err, toml)
		}
	})
}
