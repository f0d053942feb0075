package web

import (
	"fmt"
	"time"

	"lazaret/internal/units"
)

// Waiting is the [web.progress] section.
type Waiting struct {
	Enabled bool           `toml:"enabled" doc:"whether browsers are shown a page with the progress of large downloads, which turns into the download; otherwise they wait like other clients"`
	Jobs    int            `toml:"jobs" doc:"downloads that are fetched, or kept ready, for such pages; the browsers of further ones wait like other clients"`
	Client  int            `toml:"jobs_per_client" doc:"the same for one client address"`
	Size    units.Size     `toml:"size" doc:"disk for files that are kept ready; beyond it the oldest is given up. It counts towards spool.total_disk"`
	Keep    units.Duration `toml:"keep" doc:"how long a file is kept ready after it was last asked for"`
	Idle    units.Duration `toml:"idle" doc:"a download is given up when no page has asked for its progress for this long"`
}

func defaultWaiting() Waiting {
	return Waiting{
		Enabled: true, Jobs: 64, Client: 8, Size: 8 * units.GiB, Keep: units.Duration(10 * time.Minute), Idle: units.Duration(3 * time.Minute),
	}
}

// problems returns what cannot be used in c, one error for each key.
func (c Waiting) problems() []error {
	var errs []error
	if c.Jobs <= 0 {
		errs = append(errs, fmt.Errorf("progress.jobs: %d leaves no room; write a number greater than zero, or enabled = false", c.Jobs))
	}
	if c.Client <= 0 {
		errs = append(errs, fmt.Errorf("progress.jobs_per_client: %d leaves no room; write a number greater than zero, or enabled = false", c.Client))
	}
	if c.Size < 0 {
		errs = append(errs, fmt.Errorf("progress.size: must not be negative; write 0 to keep the newest only"))
	}
	if c.Keep <= 0 {
		errs = append(errs, fmt.Errorf("progress.keep: must be greater than zero, such as \"10m\""))
	}
	if c.Idle <= 0 {
		errs = append(errs, fmt.Errorf("progress.idle: must be greater than zero, such as \"3m\""))
	}
	return errs
}
