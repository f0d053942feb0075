package notice

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"golang.org/x/text/language"
)

//go:embed locales/*.toml
var locales embed.FS

// textData is what the placeholders of a text stand for.
type textData struct {
	Organisation string
	Count        int
}

// texts is one language.
type texts struct {
	tag       language.Tag
	ready     map[string]string // by id: the texts without a count
	localizer *i18n.Localizer   // for those with a count
}

// get returns the text of that id, and "" where there is none.
func (t *texts) get(id string) string { return t.ready[id] }

// more returns "and n more findings".
func (t *texts) more(n int) string {
	s, _ := localised(t.localizer, moreID, textData{Count: n})
	return s
}

// localised returns a text. With an error it may still have found one: of another language, or of another plural form.
func localised(l *i18n.Localizer, id string, data textData) (string, error) {
	c := &i18n.LocalizeConfig{MessageID: id, PluralCount: data.Count, TemplateData: data}
	return l.Localize(c) //nolint:misspell // the library's own name
}

const moreID = "page.more"

// catalogue is the texts in every language.
type catalogue struct {
	languages []*texts // the default language is the first
	matcher   language.Matcher
}

// choose returns the language that the Accept-Language header (RFC 9110 section 12.5.4) prefers.
func (c *catalogue) choose(acceptLanguage string) *texts {
	if len(acceptLanguage) > maxField {
		acceptLanguage = acceptLanguage[:maxField]
	}
	if parts := strings.SplitN(acceptLanguage, ",", maxItems+1); len(parts) > maxItems {
		acceptLanguage = strings.Join(parts[:maxItems], ",")
	}
	_, i := language.MatchStrings(c.matcher, acceptLanguage)
	return c.languages[i]
}

// loader puts a catalogue together.
type loader struct {
	cfg    Config
	bundle *i18n.Bundle
	ids    map[string]bool // every id there is, by the English catalogue
	tags   []language.Tag
}

// loadCatalogue returns the built-in texts with those of cfg.Templates over them. Its errors name file and line.
func loadCatalogue(cfg Config) (*catalogue, error) {
	def, err := language.Parse(cfg.Language)
	if err != nil {
		return nil, fmt.Errorf("language: %w", err)
	}
	l := &loader{cfg: cfg, bundle: i18n.NewBundle(def), ids: map[string]bool{}}
	if err := l.builtIn(); err != nil {
		return nil, err
	}
	if cfg.Templates != "" {
		if err := l.operator(cfg.Templates); err != nil {
			return nil, err
		}
	}
	return l.finish(def)
}

func (l *loader) builtIn() error {
	files, err := locales.ReadDir("locales")
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := locales.ReadFile("locales/" + f.Name())
		if err != nil {
			return err
		}
		messages, err := i18n.ParseMessageBytes(data, toml.Unmarshal)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		tag := language.Make(strings.TrimSuffix(f.Name(), ".toml"))
		if tag == language.English {
			for _, m := range messages {
				l.ids[m.ID] = true
			}
		}
		if err := l.add(tag, messages); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) add(tag language.Tag, messages []*i18n.Message) error {
	if !slices.Contains(l.tags, tag) {
		l.tags = append(l.tags, tag)
	}
	return l.bundle.AddMessages(tag, messages...)
}

// operator reads the operator's *.toml files, each called by a language.
func (l *loader) operator(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, l.file(name))
	}
	return errors.Join(errs...)
}

func (l *loader) file(name string) error {
	base := strings.TrimSuffix(filepath.Base(name), ".toml")
	tag, err := language.Parse(base)
	if err != nil || tag == language.Und {
		return fmt.Errorf("templates: %s: %q is not a language: call the file by one, such as fr.toml", name, base)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	messages, err := i18n.ParseMessageBytes(data, toml.Unmarshal)
	if err != nil {
		var de *toml.DecodeError
		if errors.As(err, &de) {
			row, col := de.Position()
			return fmt.Errorf("templates: %s:%d:%d: %w", name, row, col, err)
		}
		return fmt.Errorf("templates: %s: %w", name, err)
	}
	lines := keyLines(data)
	var errs []error
	for _, m := range messages {
		at := fmt.Sprintf("%s:%d", name, lines[m.ID])
		switch err := tryForms(at, m); {
		case !l.ids[m.ID]:
			errs = append(errs, fmt.Errorf("templates: %s: there is no text %q: the built-in catalogue has \"kind.infected.title\" and the like", at, m.ID))
		case m.Other == "":
			errs = append(errs, fmt.Errorf("templates: %s: %q is empty: leave it out to keep the built-in text", at, m.ID))
		case err != nil:
			errs = append(errs, fmt.Errorf("templates: %w: the placeholders are {{.Organisation}} and {{.Count}}", err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return l.add(tag, messages)
}

// tryForms renders every plural form of m once.
func tryForms(at string, m *i18n.Message) error {
	for _, form := range []string{m.Zero, m.One, m.Two, m.Few, m.Many, m.Other} {
		t, err := template.New(at).Parse(form)
		if err != nil {
			return err
		}
		if err := t.Execute(io.Discard, textData{}); err != nil {
			return err
		}
	}
	return nil
}

// keyLines returns the line of each dotted key in a TOML document that parses.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		key, line := "", 0
		for it := e.Key(); it.Next(); {
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
			key += "." + string(it.Node().Data)
		}
		if e.Kind == unstable.Table {
			table = key
			lines[key[1:]] = line
			continue
		}
		lines[(table + key)[1:]] = line
	}
	return lines
}

// finish picks the languages and renders every text once, which also proves that it can be rendered.
func (l *loader) finish(def language.Tag) (*catalogue, error) {
	offered := l.tags
	if len(l.cfg.Languages) > 0 {
		offered = nil
		for _, s := range l.cfg.Languages {
			offered = append(offered, language.Make(s))
		}
	}
	offered = slices.DeleteFunc(slices.Clone(offered), func(t language.Tag) bool { return t == def })
	offered = append([]language.Tag{def}, offered...)
	c := &catalogue{matcher: language.NewMatcher(offered)}
	var errs []error
	for _, tag := range offered {
		if !slices.Contains(l.tags, tag) {
			errs = append(errs, fmt.Errorf("languages: there are no texts in %q: leave it out, or put a file %s.toml into templates", tag, tag))
			continue
		}
		t, err := l.language(tag)
		errs = append(errs, err)
		c.languages = append(c.languages, t)
	}
	return c, errors.Join(errs...)
}

func (l *loader) language(tag language.Tag) (*texts, error) {
	t := &texts{tag: tag, ready: map[string]string{}, localizer: i18n.NewLocalizer(l.bundle, tag.String())}
	english := i18n.NewLocalizer(l.bundle, "en")
	data := textData{Organisation: Clean(l.cfg.Organisation, maxSetting), Count: 2}
	for id := range l.ids {
		s, err := localised(t.localizer, id, data)
		if s == "" { // an operator's default language that is incomplete: English is complete
			s, err = localised(english, id, data)
		}
		if s == "" {
			return nil, fmt.Errorf("the text %q in %q: %w", id, tag, err)
		}
		t.ready[id] = s
	}
	return t, nil
}
