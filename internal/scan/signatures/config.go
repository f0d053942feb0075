package signatures

import (
	"errors"
	"fmt"

	"lazaret/internal/units"
)

// Config says where the signatures are.
type Config struct {
	Paths   []string       `toml:"paths" doc:"signature files in ClamAV's formats (.hdb, .hsb, .ndb, .fp, .sfp, .ign2, .cvd, .cld), and directories of them. With none, only the EICAR test file is known."`
	Poll    units.Duration `toml:"poll" doc:"how often the files are looked at for changes; \"0s\": only when the configuration is read again"`
	PUA     bool           `toml:"pua" doc:"also read the signatures of potentially unwanted applications (.hdu, .hsu, .ndu)"`
	MaxSize units.Size     `toml:"max_size" doc:"signature files larger than this in all, as unpacked, are not loaded"`
}

// Default returns the settings that work without a file: EICAR alone.
func Default() Config {
	return Config{Poll: units.Duration(defaultPoll), MaxSize: 4 * units.GiB}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon. It
// does not look at the files: New does.
func (c Config) Validate() error {
	var errs []error
	for i, p := range c.Paths {
		if p == "" {
			errs = append(errs, fmt.Errorf("paths: entry %d is empty; name a file or a directory, or remove it", i+1))
		}
	}
	if c.Poll < 0 {
		errs = append(errs, errors.New("poll: is negative; write a duration such as \"10s\", or \"0s\" for never"))
	}
	if c.MaxSize <= 0 {
		errs = append(errs, errors.New("max_size: must be greater than zero, such as \"4 GiB\""))
	}
	return errors.Join(errs...)
}
