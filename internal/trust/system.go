package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// system is one way of distributions to trust more authorities: a directory of PEM files, and a tool that makes of it what
// programs read.
type system struct {
	name    string
	dir     string
	tool    string
	args    []string // behind certificates have come
	dropped []string // behind some have gone
	make    bool     // dir is made where it is missing: the tool alone is enough to know the system by
}

// systems is asked in this order: the directory of another distribution can be there by accident, and Debian's is in the
// Filesystem Hierarchy Standard's /usr/local.
var systems = []system{
	{name: "Fedora, RHEL", dir: "/etc/pki/ca-trust/source/anchors", tool: "update-ca-trust", args: []string{"extract"}, dropped: []string{"extract"}},
	{name: "Arch", dir: "/etc/ca-certificates/trust-source/anchors", tool: "trust", args: []string{"extract-compat"}, dropped: []string{"extract-compat"}},
	{name: "SUSE", dir: "/etc/pki/trust/anchors", tool: "update-ca-certificates"},
	// Without --fresh Debian's tool leaves the links of certificates that have gone.
	{name: "Debian, Ubuntu, Alpine", dir: "/usr/local/share/ca-certificates", tool: "update-ca-certificates", dropped: []string{"--fresh"}, make: true},
}

// pick returns the system's way, and the path of its tool.
func pick(from []system) (s system, tool string, ok bool) {
	for _, s := range from {
		tool := s.tool
		if !filepath.IsAbs(tool) {
			tool = find(tool)
		}
		st, err := os.Stat(s.dir)
		if tool != "" && (s.make || (err == nil && st.IsDir())) {
			return s, tool, true
		}
	}
	return system{}, "", false
}

// report begins the report about a system's store.
func (s system) report() Report { return Report{Store: "system (" + s.name + ")", Place: s.dir} }

// noSystem is for machines whose way is not known, or whose tool is not installed.
func noSystem() Report {
	return Report{
		Store:  "system",
		Detail: "neither update-ca-certificates nor update-ca-trust nor trust is here: install the package ca-certificates",
	}
}

func installSystem(ctx context.Context, from []system, certs []*x509.Certificate) Report {
	s, tool, ok := pick(from)
	if !ok {
		return noSystem()
	}
	r := s.report()
	if s.make {
		_ = os.MkdirAll(s.dir, 0o755) // where that fails, writing does
	}
	if err := writable(s.dir); err != nil {
		r.Detail = err.Error()
		return r
	}
	there, err := s.files()
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	added := 0
	for _, c := range certs {
		file := name(c) + ".crt"
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		if old, err := os.ReadFile(filepath.Join(s.dir, file)); err != nil || !bytes.Equal(old, block) {
			if err := place(s.dir, file, block); err != nil {
				r.Detail = err.Error()
				return r
			}
			added++
		}
		delete(there, file)
	}
	if err := s.remove(there); err != nil {
		r.Detail = err.Error()
		return r
	}
	// The tool runs in any case: it may have failed the last time.
	if err := s.update(ctx, tool, len(there) > 0); err != nil {
		r.Detail = err.Error()
		return r
	}
	r.State, r.Detail = outcome(added, len(there), len(certs))
	return r
}

func uninstallSystem(ctx context.Context, from []system) Report {
	s, tool, ok := pick(from)
	if !ok {
		r := noSystem()
		r.State, r.Detail = Absent, "no store of this system is known"
		return r
	}
	r := s.report()
	there, err := s.files()
	switch {
	case err != nil:
		r.Detail = err.Error()
		return r
	case len(there) == 0:
		r.State, r.Detail = Unchanged, "no certificate of ours is in it"
		return r
	}
	if err := writable(s.dir); err != nil {
		r.Detail = err.Error()
		return r
	}
	if err := s.remove(there); err != nil {
		r.Detail = err.Error()
		return r
	}
	if err := s.update(ctx, tool, true); err != nil {
		r.Detail = err.Error()
		return r
	}
	r.State, r.Detail = outcome(0, len(there), 0)
	return r
}

// outcome puts numbers into words.
func outcome(added, removed, wanted int) (State, string) {
	var words []string
	if added > 0 {
		words = append(words, count(added)+" added")
	}
	if removed > 0 {
		words = append(words, count(removed)+" removed")
	}
	if len(words) == 0 {
		return Unchanged, count(wanted) + " trusted already"
	}
	return Changed, strings.Join(words, ", ")
}

func count(n int) string {
	if n == 1 {
		return "1 certificate"
	}
	return fmt.Sprintf("%d certificates", n)
}

// files returns the files of ours in the directory.
func (s system) files() (map[string]bool, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out := map[string]bool{}
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".crt"); ok && ours.MatchString(base) {
			out[e.Name()] = true
		}
	}
	return out, nil
}

func (s system) remove(files map[string]bool) error {
	for f := range files {
		if err := os.Remove(filepath.Join(s.dir, f)); err != nil {
			return err
		}
	}
	return nil
}

func (s system) update(ctx context.Context, tool string, dropped bool) error {
	args := s.args
	if dropped {
		args = s.dropped
	}
	if _, err := (command{program: tool, args: args}).run(ctx); err != nil {
		return fmt.Errorf("the files in %s are as they are to be, but what programs read was not made anew from them: %w", s.dir, err)
	}
	return nil
}

// writable says what to do where dir may not be written to.
func writable(dir string) error {
	err := unix.Access(dir, unix.W_OK|unix.X_OK)
	switch {
	case err == nil:
		return nil
	case os.Geteuid() != 0:
		return fmt.Errorf("this needs root: run the same command with sudo (%s: %w)", dir, err)
	}
	return fmt.Errorf("%s cannot be written to: %w", dir, err)
}

// place writes a file that everybody may read, whole or not at all.
func place(dir, file string, b []byte) error {
	f, err := os.CreateTemp(dir, ".lazaret-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, file))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
