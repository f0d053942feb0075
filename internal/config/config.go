// Package config reads the settings: one TOML file, strict, into the Config of each package that has one. All errors of a
// file are found in one run, each with its line and column.
package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"lazaret/internal/admin"
	"lazaret/internal/audit"
	"lazaret/internal/content"
	"lazaret/internal/egress"
	"lazaret/internal/gate"
	"lazaret/internal/intercept"
	"lazaret/internal/listen"
	"lazaret/internal/mail/attachment"
	"lazaret/internal/mail/pop3"
	"lazaret/internal/mail/replacement"
	"lazaret/internal/mail/report"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/quarantine"
	"lazaret/internal/redirect"
	"lazaret/internal/sandbox"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/spam"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
	"lazaret/internal/web"
)

// Config is all settings.
type Config struct {
	StateDir   string            `toml:"state_dir" doc:"where the gateway keeps what must last: the CA in ca/, the quarantine, what it has learned. Empty: /var/lib/lazaret for root, else lazaret in the user's state directory"`
	Web        Web               `toml:"web"`
	Egress     egress.Config     `toml:"egress"`
	POP3       pop3.Config       `toml:"pop3"`
	Mail       Mail              `toml:"mail"`
	Redirect   redirect.Config   `toml:"redirect"`
	Quarantine quarantine.Config `toml:"quarantine"`
	Admin      admin.Config      `toml:"admin"`
	Sandbox    sandbox.Config    `toml:"sandbox"`
	Listen     listen.Config     `toml:"listen"`
	ClamAV     ClamAV            `toml:"clamav"`
	Scanners   []Scanner         `toml:"scanner"`
	Policy     policy.Config     `toml:"policy"`
	Gate       gate.Config       `toml:"gate"`
	Spool      spool.Config      `toml:"spool"`
	Unpack     unpack.Limits     `toml:"unpack"`
	Content    content.Limits    `toml:"content"`
	Notice     notice.Config     `toml:"notice"`
	Audit      audit.Config      `toml:"audit"`

	// Warnings are what can be used but is surely not meant, with their places.
	Warnings Errors `toml:"-"`
}

// Web is [web] with [web.tls] in it.
type Web struct {
	web.Config
	TLS intercept.Config `toml:"tls"`
}

// Mail is [mail]: what the mail protocols have in common.
type Mail struct {
	Notice      replacement.Config    `toml:"notice"`
	Attachments attachment.Config     `toml:"attachments"`
	HTML        attachment.HTMLConfig `toml:"html"`
	Report      report.Config         `toml:"report"`
	Spam        spam.Config           `toml:"spam"`
}

// ClamAV is [clamav]: a clamd that we run, and the freshclam that feeds it.
type ClamAV struct {
	supervise.Settings
	Freshclam supervise.UpdateConfig `toml:"freshclam"`
}

// Default returns the settings that work without a file.
func Default() *Config {
	return &Config{
		StateDir:   defaultStateDir(),
		Web:        Web{Config: web.Default(), TLS: intercept.Default()},
		Egress:     egress.Default(),
		POP3:       pop3.Default(),
		Mail:       Mail{Notice: replacement.Default(), Attachments: attachment.Default(), HTML: attachment.DefaultHTML(), Report: report.Default(), Spam: spam.Default()},
		Quarantine: quarantine.Default(),
		Redirect:   redirect.Default(),
		Admin:      admin.Default(),
		Sandbox:    sandbox.Default(),
		Listen:     listeners(),
		ClamAV:     ClamAV{Settings: supervise.DefaultSettings(), Freshclam: supervise.DefaultUpdate()},
		Policy:     policy.Default(),
		Gate:       gate.Default(),
		Spool:      spool.Default(),
		Unpack:     unpack.Default(),
		Content:    content.Default(),
		Notice:     notice.Default(),
		Audit:      audit.Default(),
	}
}

// listeners returns the limits of all listeners together. They are above the proxy's own, so that a client who meets
// those hears why.
func listeners() listen.Config {
	c := listen.Default()
	c.MaxConnections += c.MaxConnections / 4
	c.MaxPerClient += c.MaxPerClient / 4
	return c
}

func defaultStateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/lazaret"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lazaret")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "lazaret")
	}
	return ".lazaret"
}

// Error is one error of a settings file.
type Error struct {
	File         string
	Line, Column int
	Key          string // the full name, "web.tls.tunnel"; empty where it is about the file itself
	Message      string
}

// Error implements error: "file:line:column: key: message", without what is not known.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		b.WriteString(":" + strconv.Itoa(e.Line) + ":" + strconv.Itoa(e.Column))
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors is every error of a file, in their order in it.
type Errors []*Error

// Error implements error: one error a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// maxFile bounds what is read as a settings file.
const maxFile = 4 << 20

// Load reads the file at path over the defaults. The error is of type Errors where the content is to blame.
func Load(path string) (*Config, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("settings: %s has %d bytes; more than %d are not read", path, st.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return Parse(path, data)
}

// Again returns why settings cannot be read from path a second time, nil where they can: what came out of a pipe is gone, and the empty
// rest would be taken for settings that leave everything at its default. No path is as good as a file.
func Again(path string) error {
	if path == "" {
		return nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	if st.Mode()&os.ModeNamedPipe != 0 {
		return fmt.Errorf("settings: %s is a pipe, which cannot be read again: put the settings into a file", path)
	}
	return nil
}

// Parse reads settings from data, which name stands for in errors.
func Parse(name string, data []byte) (*Config, error) {
	c := Default()
	root, errs := parse(data)
	a := &assigner{places: make(map[string]pos), names: make(map[string][]string)}
	v := reflect.ValueOf(c).Elem()
	collectNames(v, "", a.names)
	a.table(root, v, "")
	errs = append(errs, a.errs...)
	failed := make(map[string]bool)
	for _, e := range errs {
		key, _, _ := strings.Cut(e.Key, "[")
		failed[key] = true
		failed[e.Key] = true
	}
	errs = append(errs, c.validate(a.places, failed)...)
	if len(errs) > 0 {
		for _, e := range errs {
			e.File = name
		}
		sort.SliceStable(errs, func(i, j int) bool {
			return errs[i].Line < errs[j].Line || errs[i].Line == errs[j].Line && errs[i].Column < errs[j].Column
		})
		return nil, Errors(errs)
	}
	c.Warnings = located("policy", c.Policy.Warnings(), a.places, nil)
	for _, w := range c.Warnings {
		w.File = name
	}
	return c, nil
}

func collectNames(v reflect.Value, path string, names map[string][]string) {
	for _, f := range fieldsOf(v) {
		full := join(path, f.key)
		names[f.key] = append(names[f.key], full)
		if f.value.Kind() == reflect.Struct && f.doc == "" {
			collectNames(f.value, full, names)
		}
	}
}

// section is a package's part of the settings.
type section struct {
	path string
	conf interface{ Validate() error }
}

func (c *Config) sections() []section {
	out := []section{
		{"web", c.Web.Config},
		{"web.tls", c.Web.TLS},
		{"pop3", c.POP3},
		{"mail.notice", c.Mail.Notice},
		{"mail.attachments", c.Mail.Attachments},
		{"mail.html", c.Mail.HTML},
		{"mail.spam", c.Mail.Spam},
		{"mail.report", c.Mail.Report},
		{"quarantine", c.Quarantine},
		{"egress", c.Egress},
		{"redirect", c.Redirect},
		{"admin", c.Admin},
		{"sandbox", c.Sandbox},
		{"listen", c.Listen},
		{"clamav", c.ClamAV.Settings},
		{"clamav.freshclam", c.ClamAV.Freshclam},
		{"policy", c.Policy},
		{"gate", c.Gate},
		{"spool", c.Spool},
		{"unpack", c.Unpack},
		{"content", c.Content},
		{"notice", c.Notice},
		{"audit", c.Audit},
	}
	for i, s := range c.Scanners {
		if s.Settings != nil {
			out = append(out, section{fmt.Sprintf("scanner[%d]", i+1), s.Settings})
		}
	}
	return out
}

// Validate returns what cannot be used in c, without places in a file: for settings that come from elsewhere.
func (c *Config) Validate() error {
	errs := c.validate(nil, nil)
	if len(errs) == 0 {
		return nil
	}
	for _, e := range errs {
		e.File = "settings"
	}
	return Errors(errs)
}

// validate asks each section, and gives what it says the place of its key. Keys that failed before are left out, and where
// any did, keys that the file does not set: complaints about them may only follow.
func (c *Config) validate(places map[string]pos, failed map[string]bool) []*Error {
	var out []*Error
	for _, s := range c.sections() {
		out = append(out, located(s.path, s.conf.Validate(), places, failed)...)
	}
	return out
}

// located gives what a section says the place of its key.
func located(path string, said error, places map[string]pos, failed map[string]bool) []*Error {
	var out []*Error
	for _, err := range flatten(said) {
		key, msg, ok := strings.Cut(err.Error(), ": ")
		if !ok || strings.ContainsAny(key, " \"") {
			key, msg = "", err.Error()
		}
		full := join(path, key)
		at, set := places[full]
		for parent := full; !set && strings.Contains(parent, "."); {
			parent = parent[:strings.LastIndexByte(parent, '.')]
			at, set = places[parent]
		}
		if failed[full] || !set && len(failed) > 0 {
			continue
		}
		out = append(out, &Error{Line: at.line, Column: at.col, Key: strings.TrimSuffix(full, "."), Message: msg})
	}
	return out
}

// flatten returns the errors that were joined. Where joined ones were wrapped, each gets what they were wrapped in: the key.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if inner := errors.Unwrap(err); inner != nil {
		around, ok := strings.CutSuffix(err.Error(), inner.Error())
		if parts := flatten(inner); ok && len(parts) > 0 {
			for i, e := range parts {
				parts[i] = fmt.Errorf("%s%w", around, e)
			}
			return parts
		}
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}
