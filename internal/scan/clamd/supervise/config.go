package supervise

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"lazaret/internal/units"
)

// maxFile is the largest MaxFileSize that clamd 1.x takes, in bytes: it cannot scan larger files.
const maxFile = 2147483645

// maxScan is the most that one scan may read, archives' members included; clamd's sizes end below 4 GiB.
const maxScan = 4095 * units.MiB

// Config is how a clamd of ours is run.
type Config struct {
	Dir              string         `toml:"dir" doc:"directory for clamd's socket, configuration and temporary files, emptied at start; empty: <state_dir>/clamd."`
	Program          string         `toml:"program" doc:"path of clamd; empty: searched for."`
	Database         string         `toml:"database" doc:"directory with the signatures, kept up to date by freshclam; empty: /var/lib/clamav where it has signatures or can be filled, else <state_dir>/signatures."`
	User             string         `toml:"user" doc:"whom clamd runs as when lazaret runs as root; empty: clamav."`
	MaxObject        units.Size     `toml:"max_object" doc:"size up to which an object is scanned; a larger one is Incomplete. clamd takes no more than 2 GiB. 0: as [spool] max_object."`
	MaxHTML          units.Size     `toml:"max_html" doc:"size up to which HTML is scanned; larger HTML is Incomplete."`
	Threads          int            `toml:"threads" doc:"scans at a time; 0: two for each processor."`
	Timeout          units.Duration `toml:"timeout" doc:"time for one object; after it the verdict is Incomplete."`
	StartTimeout     units.Duration `toml:"start_timeout" doc:"time for clamd to load its signatures and answer."`
	AlertEncrypted   bool           `toml:"alert_encrypted" doc:"say of encrypted archives and documents that they could not be looked into, rather than nothing."`
	ConcurrentReload bool           `toml:"concurrent_reload" doc:"go on scanning while new signatures are loaded, which takes twice the memory meanwhile; otherwise scans wait."`
	Cache            bool           `toml:"cache" doc:"have clamd remember what was clean by its MD5. Two files with the same MD5 can be made, so that the second one goes unscanned; lazaret remembers by SHA-256 itself."`
}

// Default returns the settings that work without a file, but for Dir.
func Default() Config {
	return Config{
		Database:         UsualDatabase,
		MaxObject:        maxFile,
		MaxHTML:          128 * units.MiB,
		Timeout:          units.Duration(5 * time.Minute),
		StartTimeout:     units.Duration(5 * time.Minute),
		AlertEncrypted:   true,
		ConcurrentReload: true,
	}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon. Dir is
// checked by New, because it may be filled in later.
func (c Config) Validate() error {
	var errs []error
	if c.MaxObject < units.MiB {
		errs = append(errs, fmt.Errorf("max_object: %v is less than 1 MiB", c.MaxObject))
	}
	if c.MaxHTML < units.MiB {
		errs = append(errs, fmt.Errorf("max_html: %v is less than 1 MiB", c.MaxHTML))
	}
	if c.Threads < 0 || c.Threads > 256 {
		errs = append(errs, fmt.Errorf("threads: %d is not between 0 and 256", c.Threads))
	}
	if c.Timeout < units.Duration(time.Second) {
		errs = append(errs, fmt.Errorf("timeout: %v is less than 1s", c.Timeout))
	}
	if c.StartTimeout < units.Duration(time.Second) {
		errs = append(errs, fmt.Errorf("start_timeout: %v is less than 1s", c.StartTimeout))
	}
	for key, path := range map[string]string{"dir": c.Dir, "database": c.Database} {
		if strings.ContainsAny(path, "\n\r\"#") {
			errs = append(errs, fmt.Errorf("%s: %q has characters that clamd.conf cannot have in a path", key, path))
		}
	}
	return errors.Join(errs...)
}

// threads returns how many scans clamd runs at a time.
func (c Config) threads() int {
	if c.Threads > 0 {
		return c.Threads
	}
	return max(4, 2*runtime.NumCPU())
}

// maxObject returns MaxObject as clamd takes it.
func (c Config) maxObject() units.Size { return min(c.MaxObject, maxFile) }

// maxHTML returns MaxHTML, which has to fit into MaxObject.
func (c Config) maxHTML() units.Size { return min(c.MaxHTML, c.maxObject()) }

// clamdConf returns the text of a clamd.conf(5): everything that decides about what is looked at is written down, so that a
// change of clamd's own defaults changes nothing.
func (c Config) clamdConf(socket, temporary string) string {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	size := func(z units.Size) string { return strconv.FormatInt(int64(z), 10) }
	lines := [][2]string{
		{"Foreground", "yes"},
		{"LocalSocket", quoted(socket)},
		{"LocalSocketMode", "600"},
		{"FixStaleSocket", "yes"},
		{"DatabaseDirectory", quoted(c.Database)},
		{"TemporaryDirectory", quoted(temporary)},
		{"LogTime", "no"},
		{"LogSyslog", "no"},
		{"MaxThreads", strconv.Itoa(c.threads())},
		{"MaxQueue", strconv.Itoa(max(200, 4*c.threads()))},
		{"MaxConnectionQueueLength", "200"},
		{"CommandReadTimeout", "30"},
		{"ReadTimeout", "120"},
		{"IdleTimeout", "60"},
		{"SelfCheck", "60"},
		{"ConcurrentDatabaseReload", yes(c.ConcurrentReload)},
		{"DisableCache", yes(!c.Cache)},
		{"AlertExceedsMax", "yes"},
		{"AlertEncrypted", yes(c.AlertEncrypted)},
		{"MaxScanTime", strconv.FormatInt(c.Timeout.Std().Milliseconds(), 10)},
		{"MaxFileSize", size(c.maxObject())},
		{"MaxScanSize", size(maxScan)},
		{"StreamMaxLength", size(c.maxObject())},
		{"MaxHTMLNormalize", size(c.maxHTML())},
		{"MaxHTMLNoTags", size(c.maxHTML())},
		{"MaxScriptNormalize", size(c.maxHTML())},
		{"MaxEmbeddedPE", size(c.maxHTML())},
		{"MaxRecursion", "20"},
		{"MaxFiles", "20000"},
		{"ScanPE", "yes"},
		{"ScanELF", "yes"},
		{"ScanMail", "yes"},
		{"ScanHTML", "yes"},
		{"ScanOLE2", "yes"},
		{"ScanPDF", "yes"},
		{"ScanSWF", "yes"},
		{"ScanArchive", "yes"},
		{"HeuristicAlerts", "yes"},
	}
	var b strings.Builder
	b.WriteString("# Written by lazaret at each start; changes are lost.\n")
	for _, l := range lines {
		b.WriteString(l[0] + " " + l[1] + "\n")
	}
	return b.String()
}

// quoted writes a path for clamd.conf, where one with spaces needs quotes.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t") {
		return `"` + path + `"`
	}
	return path
}
