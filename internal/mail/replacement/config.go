// Package replacement makes the mail that a recipient gets instead of one that must not be delivered: a MIME message in the
// recipient's language that keeps the original's sender, date and threading and says what was found, or one by an operator's
// template, P3Scan's among them.
//
// Whatever comes from the original is data: it becomes no field, no HTML, and nothing that a template would expand again.
package replacement

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/text/language"
)

// Config is mail.notice.
type Config struct {
	Language   string   `toml:"language" doc:"the language of notices; empty: the one that the original's Content-Language or Accept-Language field names, else that of [notice]"`
	Recipients []string `toml:"recipients" doc:"languages of recipients, which come before everything else: \"example.fr = fr\" for a domain and those below it, \"ada@example.net = it\" for an address or a login"`
	Subject    string   `toml:"subject" doc:"what the subject begins with; the virus's name follows. Empty: a text in the language of the notice"`
	Deleted    string   `toml:"deleted" doc:"what is said in the place of the quarantine's reference where no copy was kept (P3Scan's notify). Empty: a text in the language of the notice"`
	Template   string   `toml:"template" doc:"a file with the notice for infected mails: MIME headers, an empty line, the text, with macros such as %VIRUSNAME%, as P3Scan has them. Empty: the built-in texts"`
}

// Default returns the settings that work without a file.
func Default() Config { return Config{} }

// maxSetting bounds the texts, and maxTemplate the template.
const (
	maxSetting  = 400
	maxTemplate = 1 << 20
)

// Validate returns what cannot be used in c, one error for each key, each beginning with the key's name and a colon. What is
// in the template is checked by New.
func (c Config) Validate() error {
	var errs []error
	if c.Language != "" {
		if err := known(c.Language); err != nil {
			errs = append(errs, fmt.Errorf("language: %w", err))
		}
	}
	for _, r := range c.Recipients {
		if _, _, err := recipient(r); err != nil {
			errs = append(errs, fmt.Errorf("recipients: %w", err))
		}
	}
	for _, s := range []struct{ key, value string }{{"subject", c.Subject}, {"deleted", c.Deleted}} {
		if len(s.value) > maxSetting || strings.ContainsFunc(s.value, unicode.IsControl) {
			errs = append(errs, fmt.Errorf("%s: write one line of at most %d bytes", s.key, maxSetting))
		}
	}
	if c.Template != "" {
		if st, err := os.Stat(c.Template); err != nil {
			errs = append(errs, fmt.Errorf("template: %w", err))
		} else if !st.Mode().IsRegular() || st.Size() > maxTemplate {
			errs = append(errs, fmt.Errorf("template: %s must be a file of at most %d bytes", c.Template, maxTemplate))
		}
	}
	return errors.Join(errs...)
}

// recipient reads "example.fr = fr".
func recipient(s string) (who, lang string, err error) {
	who, lang, ok := strings.Cut(s, "=")
	who, lang = strings.ToLower(strings.TrimSpace(who)), strings.TrimSpace(lang)
	if !ok || strings.Trim(who, ".@*") == "" {
		return "", "", fmt.Errorf("%q: write a domain, an address or a login, \"=\" and a language, such as \"example.fr = fr\"", s)
	}
	return strings.TrimLeft(who, "*.@"), lang, known(lang)
}

// known says what is wrong with the name of a language.
func known(s string) error {
	tag, err := language.Parse(s)
	if err == nil {
		base, _ := tag.Base()
		if _, ok := locales[base.String()]; ok {
			return nil
		}
	}
	return fmt.Errorf("%q is none of the languages that there are: en, de, es, fr, it, nl, pt", s)
}
