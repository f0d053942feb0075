package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lazaret/internal/scan/clamd"
)

// usualClamdConf is where distributions keep the settings of a clamd that is not ours.
var usualClamdConf = []string{"/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf", "/usr/local/etc/clamav/clamd.conf"}

// unrarLibraries is where ClamAV looks for what it opens RAR archives with.
var unrarLibraries = []string{
	"/usr/lib/*/libclamunrar_iface.so*", "/usr/lib/libclamunrar_iface.so*", "/usr/lib64/libclamunrar_iface.so*", "/usr/local/lib*/libclamunrar_iface.so*",
}

// clamdAdvice says what about a clamd is dangerous or costs speed: by what was found out from outside, and by its settings
// where they can be read.
func (d *doctor) clamdAdvice(what string, c *clamd.Scanner) {
	for _, st := range c.States() {
		if st.Up && !st.Limits.Alerts {
			d.note(what, levelWarn, st.Address+" says OK to what exceeds its limits; the gateway notices that, and asks more often",
				"set AlertExceedsMax yes in its clamd.conf")
		}
	}
	if !c.ReadsMail() && c.Unpacks() {
		d.note(what, levelWarn, "it does not open mails; the gateway asks about each attachment", "set ScanMail yes in its clamd.conf")
	}
	for _, path := range usualClamdConf {
		settings, err := readClamdConf(path)
		if err != nil {
			continue // not there, or not for us to read
		}
		if !ownsSocket(settings, c) {
			continue
		}
		for _, a := range clamdSettingsAdvice(settings) {
			d.note(what, levelWarn, path+": "+a.seen, a.do)
		}
		break
	}
	if !anyFile(unrarLibraries) {
		d.note(what, levelOK, "ClamAV's library for RAR archives is not installed; the gateway opens them itself",
			"")
	}
}

func anyFile(patterns []string) bool {
	for _, p := range patterns {
		if m, err := filepath.Glob(p); err == nil && len(m) > 0 {
			return true
		}
	}
	return false
}

// readClamdConf reads a clamd.conf(5): the last value of each option, by its name in lower case.
func readClamdConf(path string) (map[string]string, error) {
	f, err := os.Open(path) //nolint:gosec // one of the usual places
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		out[strings.ToLower(name)] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	return out, s.Err()
}

// ownsSocket says whether the settings are those of a clamd that c asks.
func ownsSocket(settings map[string]string, c *clamd.Scanner) bool {
	for _, st := range c.States() {
		if socket := settings["localsocket"]; socket != "" && sameFile(strings.TrimPrefix(st.Address, "unix:"), socket) {
			return true
		}
		if port := settings["tcpsocket"]; port != "" && (st.Address == "tcp:127.0.0.1:"+port || st.Address == "tcp:localhost:"+port) {
			return true
		}
	}
	return false
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return a == b
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

type advice struct{ seen, do string }

// clamdSettingsAdvice returns what in the settings of a clamd costs safety or speed.
func clamdSettingsAdvice(settings map[string]string) []advice {
	off := func(name string) bool {
		switch strings.ToLower(settings[name]) {
		case "no", "false", "0":
			return true
		}
		return false
	}
	on := func(name string) bool {
		_, set := settings[name]
		return set && !off(name)
	}
	var out []advice
	if off("concurrentdatabasereload") {
		out = append(out, advice{"ConcurrentDatabaseReload no", "set it to yes: else every scan waits while signatures are loaded"})
	}
	if !on("disablecache") {
		out = append(out, advice{
			"DisableCache is not set: clamd remembers clean files by MD5, of which two different ones can be made with the same",
			"set DisableCache yes: the gateway remembers by SHA-256 itself",
		})
	}
	for _, name := range []string{"scanarchive", "scanmail", "scanpe", "scanole2", "scanpdf", "scanhtml"} {
		if off(name) {
			out = append(out, advice{fmt.Sprintf("%s no", name), "set it to yes: what is not opened is not found"})
		}
	}
	if n := settings["maxthreads"]; n == "1" || n == "2" {
		out = append(out, advice{"MaxThreads " + n, "set it to at least 10: else clients wait for each other"})
	}
	return out
}
