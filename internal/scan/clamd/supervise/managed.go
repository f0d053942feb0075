package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lazaret/internal/units"

	"golang.org/x/sys/unix"
)

// Managed says whether a clamd of ours is run.
type Managed string

// The values of Managed.
const (
	ManagedAuto Managed = "auto" // where no engine is named, and no clamd runs
	ManagedYes  Managed = "true" // in any case, beside the engines that are named
	ManagedNo   Managed = "false"
)

// UnmarshalText implements encoding.TextUnmarshaler: what is no value is left to Validate.
func (m *Managed) UnmarshalText(b []byte) error {
	*m = Managed(b)
	return nil
}

// TakesBool says that a settings file may write true and false without quotes.
func (*Managed) TakesBool() {}

// WithoutSignatures says what a gateway does that is to run clamd and has no signatures for it yet.
type WithoutSignatures string

// The values of WithoutSignatures. With the first two clamd takes over, without a restart, once there are signatures.
const (
	UseBuiltin WithoutSignatures = "builtin" // the built-in signatures alone stand guard meanwhile
	Wait       WithoutSignatures = "wait"    // nothing is judged, so that nothing passes, meanwhile
	Stop       WithoutSignatures = "stop"    // it does not start
)

// Settings is the [clamav] section, but for freshclam's part.
type Settings struct {
	Managed           Managed           `toml:"managed" doc:"whether lazaret runs a clamd of its own: \"true\"; \"false\"; \"auto\": where no [[scanner]] is named and no clamd runs. One that is named with [[scanner]] is never touched"`
	WithoutSignatures WithoutSignatures `toml:"without_signatures" doc:"while there are no signatures yet for a clamd of ours: \"builtin\": the built-in ones alone stand guard; \"wait\": nothing is judged, and so nothing passes; \"stop\": lazaret does not start. With the first two, clamd takes over by itself once they have come"`
	MaxAge            units.Duration    `toml:"max_age" doc:"age of an engine's signatures from which the log warns, twice a day, and the metric lazaret_scanner_signatures_old is 1; 0: never. ClamAV's are made every day"`
	OldNotReady       bool              `toml:"old_not_ready" doc:"whether a gateway with signatures older than max_age says at /readyz that it is not ready, so that a load balancer prefers others"`
	Config
}

// DefaultSettings returns the settings that work without a file.
func DefaultSettings() Settings {
	s := Settings{Managed: ManagedAuto, WithoutSignatures: UseBuiltin, MaxAge: units.Duration(3 * 24 * time.Hour), Config: Default()}
	s.Database, s.MaxObject = "", 0
	return s
}

// Validate returns what cannot be used in s, one error for each key, each beginning with the key's name and a colon.
func (s Settings) Validate() error {
	var errs []error
	if !slices.Contains([]Managed{ManagedAuto, ManagedYes, ManagedNo}, s.Managed) {
		errs = append(errs, fmt.Errorf(`managed: %q is not known: write true, false or "auto"`, string(s.Managed)))
	}
	if !slices.Contains([]WithoutSignatures{UseBuiltin, Wait, Stop}, s.WithoutSignatures) {
		errs = append(errs, fmt.Errorf(`without_signatures: %q is not known: write "builtin", "wait" or "stop"`, string(s.WithoutSignatures)))
	}
	if s.MaxAge < 0 {
		errs = append(errs, fmt.Errorf("max_age: %v is negative; write 0 for none", s.MaxAge))
	}
	c := s.Config
	if c.MaxObject == 0 {
		c.MaxObject = maxFile // filled in later
	}
	return errors.Join(append(errs, c.Validate())...)
}

// Complete fills in what depends on other settings: the size of the largest object that there can be, and where the
// signatures are. That is the usual directory where it has signatures, or where we, or the user that clamd runs as, may
// fill it; else signatures in stateDir.
func (s *Settings) Complete(stateDir string, maxObject units.Size) {
	if s.MaxObject == 0 {
		s.MaxObject = max(units.MiB, min(maxObject, maxFile))
	}
	if s.Database == "" {
		s.Database = UsualDatabase
		if CheckDatabase(UsualDatabase) != nil && !fills(s.User, UsualDatabase) {
			s.Database = filepath.Join(stateDir, "signatures")
		}
	}
}

// fills says whether freshclam, as we would run it, can write to dir.
func fills(user, dir string) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return false
	}
	a, err := lookup(user)
	switch {
	case err != nil:
		return false
	case a == nil:
		return unix.Access(dir, unix.W_OK|unix.X_OK) == nil
	}
	return st.Uid == a.uid
}

// OtherFreshclam returns the process number of a freshclam that runs without us, as the system's service does, and may fill
// the usual directory; 0: there is none, or none can be seen.
func OtherFreshclam() int {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0
	}
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(comm)) != "freshclam" {
			continue
		}
		// One that a gateway has started names its configuration; the service does not.
		line, err := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if err != nil || strings.Contains(string(line), "--config-file=") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(name)), "%d", &pid); err == nil {
			return pid
		}
	}
	return 0
}
