package supervise

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/units"
)

// mostChecks is the most checks a day that freshclam's makers allow (Checks in freshclam.conf(5)).
const mostChecks = 50

// UpdateConfig is how freshclam is run to keep the signatures fresh: [clamav.freshclam].
type UpdateConfig struct {
	Checks         int            `toml:"checks" doc:"how often a day new signatures are looked for, 50 times at most; 0: never, somebody else keeps them fresh"`
	Program        string         `toml:"program" doc:"path of freshclam; empty: searched for"`
	Official       bool           `toml:"official" doc:"fetch ClamAV's own databases (main, daily, bytecode); false: only what custom_urls name"`
	Mirrors        []string       `toml:"mirrors" doc:"hosts with ClamAV's own databases (DatabaseMirror), tried in this order"`
	PrivateMirrors []string       `toml:"private_mirrors" doc:"own hosts, or URLs, with copies of ClamAV's databases (PrivateMirror); where there are any, mirrors is not used"`
	CustomURLs     []string       `toml:"custom_urls" doc:"further databases: http, https, ftp or file URLs of single files (DatabaseCustomURL), such as \"https://signatures.example/own.ndb\""`
	Proxy          string         `toml:"proxy" doc:"HTTP proxy to the mirrors, \"http://proxy.example:3128\", with user:password@ where it asks for that; empty: none"`
	Timeout        units.Duration `toml:"timeout" doc:"time for one run; a first one fetches some 300 MB"`
}

// DefaultUpdate returns the settings that work without a file.
func DefaultUpdate() UpdateConfig {
	return UpdateConfig{Checks: 12, Official: true, Mirrors: []string{"database.clamav.net"}, Timeout: units.Duration(time.Hour)}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c UpdateConfig) Validate() error {
	var errs []error
	if c.Checks < 0 || c.Checks > mostChecks {
		errs = append(errs, fmt.Errorf("checks: %d is not between 0 (never) and %d", c.Checks, mostChecks))
	}
	if c.Timeout < units.Duration(time.Second) {
		errs = append(errs, fmt.Errorf("timeout: %v is less than 1s", c.Timeout))
	}
	if c.Official && len(c.Mirrors) == 0 && len(c.PrivateMirrors) == 0 {
		errs = append(errs, errors.New(`mirrors: is empty: write ["database.clamav.net"], name private_mirrors, or set official = false`))
	}
	for key, words := range map[string][]string{"mirrors": c.Mirrors, "private_mirrors": c.PrivateMirrors} {
		for _, w := range words {
			if w == "" || strings.ContainsAny(w, " \t\r\n\"#") {
				errs = append(errs, fmt.Errorf("%s: %q is no host", key, w))
			}
		}
	}
	for _, u := range c.CustomURLs {
		if err := checkCustom(u); err != nil {
			errs = append(errs, fmt.Errorf("custom_urls: %w", err))
		}
	}
	if _, err := c.proxy(); err != nil {
		errs = append(errs, fmt.Errorf("proxy: %w", err))
	}
	return errors.Join(errs...)
}

// checkCustom says what keeps u from being a DatabaseCustomURL.
func checkCustom(u string) error {
	p, err := url.Parse(u)
	if err != nil || strings.ContainsAny(u, " \t\r\n\"#") {
		return fmt.Errorf("%q is no URL", u)
	}
	switch p.Scheme {
	case "http", "https", "ftp", "ftps", "file":
	default:
		return fmt.Errorf("%q begins neither with http:// nor https://, ftp:// or file://", u)
	}
	if !hasSignatures(filepath.Base(p.Path)) {
		return fmt.Errorf("%q does not end in the name of a database that clamd loads, such as own.ndb", u)
	}
	return nil
}

// proxy returns the parsed proxy; nil: there is none.
func (c UpdateConfig) proxy() (*url.URL, error) {
	if c.Proxy == "" {
		return nil, nil //nolint:nilnil // no proxy, and no error
	}
	u, err := url.Parse(c.Proxy)
	// The text is not repeated: it may have a password in it.
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.ContainsAny(c.Proxy, " \t\r\n\"#") {
		return nil, errors.New(`is not of the form "http://proxy.example:3128"`)
	}
	return u, nil
}

// freshclamConf returns the text of a freshclam.conf(5). owner is whom freshclam runs as already, so that it changes to
// nobody.
func (c UpdateConfig) freshclamConf(database, owner string) string {
	lines := [][2]string{
		{"DatabaseDirectory", quoted(database)},
		{"DatabaseOwner", owner},
		{"Foreground", "yes"},
		{"LogTime", "no"},
		{"LogSyslog", "no"},
		{"MaxAttempts", "2"},
		{"ConnectTimeout", "30"},
		{"ReceiveTimeout", strconv.FormatInt(int64(c.Timeout.Std().Seconds()), 10)},
		{"TestDatabases", "yes"},
		{"ScriptedUpdates", map[bool]string{true: "no", false: "yes"}[len(c.PrivateMirrors) > 0]},
		{"CompressLocalDatabase", "no"},
		{"Bytecode", "yes"},
	}
	add := func(option string, values ...string) {
		for _, v := range values {
			lines = append(lines, [2]string{option, v})
		}
	}
	add("PrivateMirror", c.PrivateMirrors...)
	add("DatabaseMirror", c.Mirrors...)
	if len(c.Mirrors)+len(c.PrivateMirrors) == 0 {
		add("DatabaseMirror", "database.clamav.net") // freshclam wants one, whether it is asked or not
	}
	if !c.Official {
		add("ExcludeDatabase", "main", "daily", "bytecode")
	}
	add("DatabaseCustomURL", c.CustomURLs...)
	if p, err := c.proxy(); err == nil && p != nil {
		add("HTTPProxyServer", p.Hostname())
		add("HTTPProxyPort", p.Port())
		if p.User != nil {
			password, _ := p.User.Password()
			add("HTTPProxyUsername", p.User.Username())
			add("HTTPProxyPassword", password)
		}
	}
	var b strings.Builder
	b.WriteString("# Written by lazaret at each start; changes are lost.\n")
	for _, l := range lines {
		b.WriteString(l[0] + " " + l[1] + "\n")
	}
	return b.String()
}

// ErrNoFreshclam says that there is no freshclam on this machine.
var ErrNoFreshclam = errors.New("no freshclam program was found, so that nobody fetches signatures: install it (Debian: apt install clamav-freshclam), or set [clamav.freshclam] program, or checks = 0 where something else keeps them fresh")

// FindFreshclam returns the path of the freshclam program, or ErrNoFreshclam.
func FindFreshclam() (string, error) {
	if p := find("freshclam"); p != "" {
		return p, nil
	}
	return "", ErrNoFreshclam
}

// find returns where a program is, also where PATH lacks the directories for system programs; empty: nowhere.
func find(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		if p, err = filepath.Abs(p); err == nil {
			return p
		}
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/clamav/sbin", "/opt/clamav/bin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return ""
}

// Newest returns when the newest file with signatures in dir was changed; zero where there is none.
func Newest(dir string) time.Time {
	var newest time.Time
	for _, f := range signatureFiles(dir) {
		if st, err := os.Stat(f); err == nil && st.ModTime().After(newest) {
			newest = st.ModTime()
		}
	}
	return newest
}

// signatureFiles lists the files of dir that clamd loads.
func signatureFiles(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if hasSignatures(e.Name()) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// hasSignatures says whether a file of that name is one with signatures.
func hasSignatures(name string) bool {
	for _, suffix := range databaseSuffixes {
		if strings.HasSuffix(strings.ToLower(name), suffix) {
			return true
		}
	}
	return false
}
