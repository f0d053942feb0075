package notice

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/language"
)

// Config says how notices look.
type Config struct {
	Language     string   `toml:"language" doc:"the language for those who name none that there is"`
	Languages    []string `toml:"languages" doc:"the languages offered, chosen by the browser's own setting; empty: all there are (de, en, es, fr, it, nl, pt, and those of files in templates)"`
	Templates    string   `toml:"templates" doc:"a directory with replacements: page.html and page.txt for the layout, de.toml, fr.toml and so on for single texts; what is missing there is built in"`
	Organisation string   `toml:"organisation" doc:"whose network this is, as shown on pages"`
	Contact      string   `toml:"contact" doc:"whom users turn to, as shown on pages: a mail address, a web address, a telephone number"`
}

// Default returns the settings that work without a file.
func Default() Config { return Config{Language: "en"} }

// maxSetting bounds what is shown on every page.
const maxSetting = 200

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon. What is
// in the directory of templates is checked by New.
func (c Config) Validate() error {
	var errs []error
	if err := languageName(c.Language); err != nil {
		errs = append(errs, fmt.Errorf("language: %w", err))
	}
	for _, l := range c.Languages {
		if err := languageName(l); err != nil {
			errs = append(errs, fmt.Errorf("languages: %w", err))
		}
	}
	if len(c.Languages) > 0 && !slices.Contains(c.Languages, c.Language) {
		errs = append(errs, fmt.Errorf("languages: %q of the key language is missing: add it", c.Language))
	}
	for key, s := range map[string]string{"organisation": c.Organisation, "contact": c.Contact} {
		if len(s) > maxSetting || strings.ContainsFunc(s, unicode.IsControl) {
			errs = append(errs, fmt.Errorf("%s: write one line of at most %d bytes", key, maxSetting))
		}
	}
	return errors.Join(errs...)
}

func languageName(s string) error {
	if t, err := language.Parse(s); err != nil || t == language.Und {
		return fmt.Errorf("%q is not a language: write a tag such as \"en\" or \"pt-BR\"", s)
	}
	return nil
}
