package audit

import (
	"errors"
	"fmt"
	"log/slog"

	"lazaret/internal/units"
)

// Config says what is logged, and where.
type Config struct {
	Format      string     `toml:"format" doc:"\"text\", \"json\", or \"auto\": text on a terminal, JSON otherwise"`
	Level       string     `toml:"level" doc:"what the service says about itself: \"debug\", \"info\", \"warn\" or \"error\". Records of decisions are written at any level."`
	File        string     `toml:"file" doc:"the log's file, opened anew on SIGHUP; empty: standard error"`
	RecordClean bool       `toml:"record_clean" doc:"write a record for objects found clean, too; metrics and console count them in any case"`
	Query       bool       `toml:"query" doc:"keep the part of a URL after the question mark in records; it can hold search words and secrets of users"`
	Recent      int        `toml:"recent" doc:"how many of the latest records are kept in memory for the console"`
	Overflow    string     `toml:"overflow" doc:"where log lines go while the log itself does not take them; empty: <state_dir>/log-overflow"`
	MaxOverflow units.Size `toml:"max_overflow" doc:"how large the overflow file may become; the second half is kept for what is not clean"`
}

// maxRecent bounds the memory of the ring: a record is at most some 8 KiB.
const maxRecent = 10000

// Default returns the settings that work without a file.
func Default() Config {
	return Config{Format: "auto", Level: "info", RecordClean: true, Query: true, Recent: 200, MaxOverflow: 64 * units.MiB}
}

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	switch c.Format {
	case "auto", "text", "json":
	default:
		errs = append(errs, fmt.Errorf("format: %q is not a format: write \"auto\", \"text\" or \"json\"", c.Format))
	}
	if _, ok := levels[c.Level]; !ok {
		errs = append(errs, fmt.Errorf("level: %q is not a level: write \"debug\", \"info\", \"warn\" or \"error\"", c.Level))
	}
	if c.Recent < 0 || c.Recent > maxRecent {
		errs = append(errs, fmt.Errorf("recent: %d is out of range: write a number from 0 to %d", c.Recent, maxRecent))
	}
	if c.File != "" && c.File == c.Overflow {
		errs = append(errs, errors.New("overflow: is the log's own file: name another one"))
	}
	return errors.Join(errs...)
}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}
