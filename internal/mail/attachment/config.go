// Package attachment applies rules to the attachments of mails that are delivered: by what they are, whatever they are
// called, and by what they are called, whatever they are. An attachment is renamed, taken out, or has the whole mail replaced.
//
// It edits only where all parsers agree on what is where: a mail whose structure can be read in several ways, and that has
// something unwanted in it under one of them, is replaced. What is not edited stays as it is, byte for byte.
package attachment

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"lazaret/internal/filetype"
)

// Config is mail.attachments.
type Config struct {
	Rename  []string `toml:"rename" doc:"attachments that get suffix behind their names: types and groups of [policy] rules (\"executable\", \"script\", \"macro\", \"pe\"), names (\"*.exe\"), \"double-extension\" (\"invoice.pdf.exe\"), \"deceptive-name\" (directional characters, spaces that hide the end, names that contradict each other)"`
	Strip   []string `toml:"strip" doc:"the same for attachments that are taken out; a note stands in their place"`
	Replace []string `toml:"replace" doc:"the same for attachments that have the whole mail replaced by a notice"`
	Suffix  string   `toml:"suffix" doc:"what renamed attachments end in"`
}

// Default returns the settings that work without a file: no rules.
func Default() Config { return Config{Suffix: ".txt"} }

// Words for names.
const (
	doubleExtension = "double-extension"
	deceptiveName   = "deceptive-name"
)

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon.
func (c Config) Validate() error {
	var errs []error
	for _, l := range []struct {
		key   string
		words []string
	}{{"rename", c.Rename}, {"strip", c.Strip}, {"replace", c.Replace}} {
		for _, w := range l.words {
			if _, err := parseWord(w); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l.key, err))
			}
		}
	}
	if len(c.Suffix) < 2 || len(c.Suffix) > 20 || c.Suffix[0] != '.' || strings.Trim(strings.ToLower(c.Suffix[1:]), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		errs = append(errs, fmt.Errorf("suffix: %q must be a dot and letters, such as \".txt\"", c.Suffix))
	}
	return errors.Join(errs...)
}

// word is a condition of a rule.
type word struct {
	text    string
	content bool // about what a file is
	glob    bool
}

func parseWord(s string) (word, error) {
	switch {
	case s == doubleExtension || s == deceptiveName:
		return word{text: s}, nil
	case slices.Contains(filetype.Names(), s):
		return word{text: s, content: true}, nil
	case strings.ContainsAny(s, "*?.["):
		if _, err := path.Match(s, "x"); err != nil {
			return word{}, fmt.Errorf("%q is no pattern of names: %w", s, err)
		}
		return word{text: strings.ToLower(s), glob: true}, nil
	}
	return word{}, fmt.Errorf("%q is no type, no group, no pattern such as \"*.exe\", and neither %q nor %q", s, doubleExtension, deceptiveName)
}
