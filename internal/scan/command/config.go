// Package command asks a scanner that is a program: it is run once for each object, and its exit code and output are the
// verdict. P3Scan's "basic" scanner type, and every virus scanner with a command line, are asked in this way.
//
// The program is run without a shell, in a process group of its own that is killed as a whole, in a private directory that
// is removed afterwards, with next to no environment, and with bounds on its time, its output, and on how many run at once.
// Only an exit code that is listed as clean is clean; a code that is not listed, a signal, an output without end, and a
// program that does not start are Incomplete.
package command

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/scan"
	"lazaret/internal/units"
)

// What an argument of Config.Command may contain.
const (
	// FilePlace is replaced by a path under which the program itself, but no other process, can open the object.
	FilePlace = "{file}"
	// CopyPlace is replaced by the path of a private copy of the object.
	CopyPlace = "{copy}"
)

// Config is how a program is asked.
type Config struct {
	Command           []string       `toml:"command" doc:"the program and its arguments, each a string of its own; there is no shell. {file} becomes a path of the object that the program itself can open; {copy} the path of a private copy, for programs that pass the name on to another process. Without either the object is on standard input."`
	CleanCodes        []int          `toml:"clean_codes" doc:"exit codes that mean clean. Every code in neither list means that the scan failed."`
	InfectedCodes     []int          `toml:"infected_codes" doc:"exit codes that mean infected."`
	NamePattern       string         `toml:"name_pattern" doc:"regular expression that finds the virus's name in the output, such as '.*: (.*) FOUND'. The first group is the name; /N at the end picks another one."`
	IncompletePattern string         `toml:"incomplete_pattern" doc:"regular expression for names that are none of a virus, but say that the program could not look: the verdict is Incomplete."`
	Unpacks           bool           `toml:"unpacks" doc:"the program opens archives by itself, and says so when it cannot; otherwise it is run for every member."`
	MaxSize           units.Size     `toml:"max_size" doc:"size up to which the program scans; a larger object is Incomplete. Many programs say clean of what is too large for them: do not set this higher than their own limit. 0: no limit."`
	Timeout           units.Duration `toml:"timeout" doc:"time for one object, waiting for a free process included."`
	MaxOutput         units.Size     `toml:"max_output" doc:"output of one run; a program that writes more is ended, and the verdict is Incomplete."`
	MaxProcesses      int            `toml:"max_processes" doc:"runs at a time; more wait. 0: one for each processor."`
	Environment       []string       `toml:"environment" doc:"NAME=value for the program, besides PATH, LANG, HOME and TMPDIR, which are set."`
	Dir               string         `toml:"dir" doc:"where each run gets its private directory; empty: the system's directory for temporary files."`
	VersionCommand    []string       `toml:"version_command" doc:"a program that prints the version of the scanner and its signatures; without it verdicts are not remembered."`
	VersionRefresh    units.Duration `toml:"version_refresh" doc:"how often version_command is run."`
}

// Default returns the settings that work without a file, but for the command.
func Default() Config {
	return Config{
		CleanCodes:        []int{0},
		InfectedCodes:     []int{1},
		IncompletePattern: `^Heuristics\.(Limits\.Exceeded|Encrypted)\b`,
		MaxSize:           25 * units.MiB,
		Timeout:           units.Duration(2 * time.Minute),
		MaxOutput:         64 * units.KiB,
		VersionRefresh:    units.Duration(time.Minute),
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Command) == 0 || c.Command[0] == "" {
		add("command: is missing: write the program and its arguments, such as [\"clamscan\", \"--no-summary\", \"-i\", \"{file}\"]")
	} else if strings.ContainsAny(c.Command[0], " \t{") {
		add("command: the program %q has a space or a brace in it: write each argument as a string of its own", c.Command[0])
	}
	if len(c.CleanCodes) == 0 {
		add("clean_codes: is empty: nothing would ever be clean")
	}
	if len(c.InfectedCodes) == 0 {
		add("infected_codes: is empty: nothing would ever be infected")
	}
	for _, codes := range []struct {
		key string
		are []int
	}{{"clean_codes", c.CleanCodes}, {"infected_codes", c.InfectedCodes}} {
		for _, n := range codes.are {
			if n < 0 || n > 255 {
				add("%s: %d is no exit code: they are 0 to 255", codes.key, n)
			}
		}
	}
	for _, n := range c.InfectedCodes {
		if slices.Contains(c.CleanCodes, n) {
			add("infected_codes: %d is in clean_codes too", n)
		}
	}
	if _, err := parsePattern(c.NamePattern); err != nil {
		add("name_pattern: %w", err)
	}
	if _, err := regexp.Compile(c.IncompletePattern); err != nil {
		add("incomplete_pattern: %w", err)
	}
	if c.Timeout <= 0 {
		add("timeout: must be greater than zero, such as \"2m\"")
	}
	if c.MaxSize < 0 {
		add("max_size: must not be negative")
	}
	if c.MaxOutput < 1*units.KiB || c.MaxOutput > 64*units.MiB {
		add("max_output: %v is not between 1 KiB and 64 MiB", c.MaxOutput)
	}
	if c.MaxProcesses < 0 || c.MaxProcesses > 1000 {
		add("max_processes: %d is not between 0 and 1000", c.MaxProcesses)
	}
	for _, e := range c.Environment {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsRune(e, 0) {
			add("environment: %q is not NAME=value", e)
		}
	}
	if len(c.VersionCommand) > 0 && c.VersionRefresh < units.Duration(time.Second) {
		add("version_refresh: %v is less than 1s", c.VersionRefresh)
	}
	return errors.Join(errs...)
}

// processes returns how many runs there may be at a time.
func (c Config) processes() int {
	if c.MaxProcesses > 0 {
		return c.MaxProcesses
	}
	return runtime.NumCPU()
}

// pattern finds a name in an output.
type pattern struct {
	re    *regexp.Regexp // nil: finds nothing
	group int
}

var groupSuffix = regexp.MustCompile(`/([0-9]{1,3})\z`)

// parsePattern reads a regular expression with an optional "/N" that picks the group; without it that is the first one,
// or the whole match where there is none. The empty string gives a pattern that finds nothing.
func parsePattern(s string) (pattern, error) {
	if s == "" {
		return pattern{}, nil
	}
	group := -1
	if m := groupSuffix.FindStringSubmatchIndex(s); m != nil {
		n, err := strconv.Atoi(s[m[2]:m[3]])
		if err != nil {
			return pattern{}, err
		}
		group, s = n, s[:m[0]]
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return pattern{}, err
	}
	if group < 0 {
		group = min(1, re.NumSubexp())
	}
	if group > re.NumSubexp() {
		return pattern{}, fmt.Errorf("/%d picks a group that is not there: the expression has %d", group, re.NumSubexp())
	}
	return pattern{re, group}, nil
}

// find returns the first name in output, and whether there is one. Each line is looked at by itself.
func (p pattern) find(output []byte) (string, bool) {
	if p.re == nil {
		return "", false
	}
	for line := range strings.Lines(string(output)) {
		if m := p.re.FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
			return printable(strings.TrimSpace(m[p.group])), true
		}
	}
	return "", false
}

// longestName bounds a name, in bytes.
const longestName = 256

// printable returns what scan.Printable makes of s, cut to a sensible length.
func printable(s string) string { return scan.Printable(s, longestName) }
