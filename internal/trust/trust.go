// Package trust puts the gateway's certificates into the trust stores of the machine it runs on, and takes them out again:
// the system's store, by the tools of the distribution, and the NSS databases of the calling user (Chromium, Firefox,
// Thunderbird), by certutil.
//
// Everything it puts there is called lazaret-<beginning of the certificate's SHA-256>, and it takes nothing out that is not
// called so or is none of the certificates it was given.
package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// State is what came of one store.
type State uint8

// The states. The zero value is the one in which nothing can be relied on.
const (
	Refused   State = iota // it could not be done; Detail says why, and what to do
	Absent                 // there is no such store here
	Unchanged              // it was as it is to be already
	Changed
)

var stateNames = [...]string{"NOT DONE", "not there", "unchanged", "done"}

// String returns the state as people read it.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return stateNames[Refused]
}

// Report is what came of one store.
type Report struct {
	Store  string // "system (Debian, Ubuntu)", "NSS"
	Place  string // the directory; empty where there is none
	State  State
	Detail string // what was done, or why not and what to do
}

// Stores are the trust stores to work on.
type Stores struct {
	System bool
	NSS    bool
	User   User // whose NSS databases
}

// Install makes certs, and no others of ours, trusted in the stores: certificates that an earlier call put there and that
// are not among certs any more, as a rotation is over, are taken out. One report comes back for each store. ctx bounds it.
func Install(ctx context.Context, s Stores, certs []*x509.Certificate) ([]Report, error) {
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate to install")
	}
	var out []Report
	if s.System {
		out = append(out, installSystem(ctx, systems, certs))
	}
	if s.NSS {
		out = append(out, s.User.eachNSS(func(db nssDB) Report { return db.install(ctx, certs) })...)
	}
	return out, nil
}

// Uninstall takes out what Install has put into the stores, and certs, whoever put them there under a name that has
// "lazaret" in it. certs may be empty.
func Uninstall(ctx context.Context, s Stores, certs []*x509.Certificate) []Report {
	var out []Report
	if s.System {
		out = append(out, uninstallSystem(ctx, systems))
	}
	if s.NSS {
		out = append(out, s.User.eachNSS(func(db nssDB) Report { return db.uninstall(ctx, certs) })...)
	}
	return out
}

// name returns what a certificate is called in a store.
func name(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "lazaret-" + hex.EncodeToString(sum[:8])
}

// ours matches what name returns.
var ours = regexp.MustCompile(`^lazaret-[0-9a-f]{16}$`)

// The bounds of a tool's run.
const (
	toolTime   = 2 * time.Minute
	toolOutput = 1 << 20
)

// command is a run of a tool.
type command struct {
	program string
	args    []string
	stdin   []byte
	user    *User // nil: the calling process's
}

// run returns what the tool wrote to its standard output. Its error has what the tool wrote besides. The tool gets no more
// of the environment than it needs, and no terminal to ask questions on.
func (c command) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, c.args...) //nolint:gosec // tools of the distribution, found in its directories
	cmd.Env = []string{"PATH=" + toolPath, "LC_ALL=C", "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	cmd.Dir = "/"
	if c.user != nil {
		cmd.Env[2] = "HOME=" + c.user.Home
		cmd.SysProcAttr.Credential = c.user.credential()
	}
	if c.stdin != nil {
		cmd.Stdin = bytes.NewReader(c.stdin)
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{w: &out}, &limited{w: &complaint}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not end in time: %w", ctx.Err())
		}
		said := strings.Join(strings.Fields(complaint.String()+" "+out.String()), " ")
		return out.Bytes(), fmt.Errorf("%s: %w: %s", filepath.Base(c.program), err, shorten(said))
	}
	return out.Bytes(), nil
}

// limited passes on the first toolOutput bytes, and drops the others.
type limited struct {
	w    io.Writer
	seen int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if room := toolOutput - l.seen; room > 0 {
		n, err := l.w.Write(p[:min(room, len(p))])
		l.seen += n
		if err != nil {
			return n, err
		}
	}
	return len(p), nil
}

func shorten(s string) string {
	const most = 400
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// toolPath is where distributions keep such tools; an ordinary user's PATH leaves half of it out.
const toolPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// find returns the path of a tool, and "" where it is not installed.
func find(tool string) string {
	for dir := range strings.SplitSeq(toolPath, ":") {
		path := filepath.Join(dir, tool)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
			return path
		}
	}
	return ""
}
