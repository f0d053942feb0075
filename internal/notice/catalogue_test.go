package notice

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lazaret/internal/policy"
	"lazaret/internal/scan"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"github.com/pelletier/go-toml/v2"
)

var wanted = []string{"de", "en", "es", "fr", "it", "nl", "pt"}

func catalogues(t *testing.T) map[string]map[string]*i18n.Message {
	t.Helper()
	files, err := locales.ReadDir("locales")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]*i18n.Message{}
	for _, f := range files {
		data, err := locales.ReadFile("locales/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		messages, err := i18n.ParseMessageBytes(data, toml.Unmarshal)
		if err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		m := map[string]*i18n.Message{}
		for _, x := range messages {
			m[x.ID] = x
		}
		all[strings.TrimSuffix(f.Name(), ".toml")] = m
	}
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, wanted) {
		t.Fatalf("languages are %v, want %v", got, wanted)
	}
	return all
}

var placeholder = regexp.MustCompile(`{{[^}]*}}`)

func TestEveryLanguageHasEveryTextWithTheSamePlaceholders(t *testing.T) {
	all := catalogues(t)
	en := all["en"]
	if len(en) < 100 {
		t.Fatalf("only %d English texts", len(en))
	}
	same := []string{"page.checksum", "page.contact", "page.site", "page.why"} // may read the same as in English
	for lang, m := range all {
		for id, e := range en {
			x := m[id]
			if x == nil {
				t.Errorf("%s: %q is missing", lang, id)
				continue
			}
			for _, form := range [][2]string{{e.One, x.One}, {e.Other, x.Other}} {
				want, got := form[0], form[1]
				if (want == "") != (got == "") {
					t.Errorf("%s: %q: a plural form is missing", lang, id)
				}
				if want == "" {
					continue
				}
				p, q := placeholder.FindAllString(want, -1), placeholder.FindAllString(got, -1)
				slices.Sort(p)
				slices.Sort(q)
				if !slices.Equal(p, q) {
					t.Errorf("%s: %q has placeholders %v, want %v", lang, id, q, p)
				}
				if strings.TrimSpace(got) != got || strings.Contains(got, "  ") {
					t.Errorf("%s: %q has spaces too many: %q", lang, id, got)
				}
				if (strings.HasSuffix(id, ".why") || strings.HasSuffix(id, ".do")) && !strings.HasPrefix(id, "page.") && !strings.HasSuffix(got, ".") {
					t.Errorf("%s: %q is no sentence: %q", lang, id, got)
				}
				if lang != "en" && got == want && got != "" && !slices.Contains(same, id) {
					t.Errorf("%s: %q is not translated: %q", lang, id, got)
				}
			}
		}
		for id := range m {
			if en[id] == nil {
				t.Errorf("%s: %q is not in the English catalogue", lang, id)
			}
		}
	}
}

func TestEveryKindReasonAndFaultIsExplained(t *testing.T) {
	if len(Kinds()) != len(specs) {
		t.Errorf("Kinds lists %d of %d", len(Kinds()), len(specs))
	}
	faults := []string{
		"handshake", "untrusted", "self-signed", "wrong-name", "expired", "not-yet-valid", "revoked", "weak", "wrong-usage", "malformed", "own-ca",
		"not-allowed", "client-certificate", "parent",
	}
	for lang, m := range catalogues(t) {
		need := func(id string) {
			if m[id] == nil || m[id].Other == "" {
				t.Errorf("%s: %q is missing", lang, id)
			}
		}
		for _, k := range Kinds() {
			for _, part := range []string{".title", ".why", ".do"} {
				need("kind." + string(k) + part)
			}
		}
		if len(scan.Reasons()) < 10 {
			t.Fatalf("only %d reasons", len(scan.Reasons()))
		}
		for _, r := range scan.Reasons() {
			need("reason." + string(r) + ".why")
			need("reason." + string(r) + ".do")
		}
		for _, f := range faults {
			need("fault." + f + ".why")
		}
	}
}

func TestExplanationIsTheMostSpecific(t *testing.T) {
	r := mustNew(t, Default())
	en := r.texts.choose("en")
	for name, c := range map[string]struct {
		n    Notice
		why  []string
		do   string
		head string
	}{
		"encrypted": {
			Notice{Kind: NotScanned, Verdict: scan.IncompleteVerdict(scan.Encrypted, "")},
			[]string{"reason.encrypted.why", "kind.not-scanned.why"},
			"reason.encrypted.do", "kind.not-scanned.title",
		},
		"scanner down": {
			Notice{Kind: Unavailable, Verdict: scan.IncompleteVerdict(scan.Unavailable, "")},
			[]string{"reason.scanner-down.why", "kind.unavailable.why"},
			"reason.scanner-down.do", "kind.unavailable.title",
		},
		"no reason": {Notice{Kind: NotScanned}, []string{"kind.not-scanned.why"}, "kind.not-scanned.do", "kind.not-scanned.title"},
		"unknown reason": {
			Notice{Kind: NotScanned, Verdict: scan.Verdict{Reason: "new"}},
			[]string{"kind.not-scanned.why"},
			"kind.not-scanned.do", "kind.not-scanned.title",
		},
		"upload": {
			Notice{Kind: Infected, Facts: policy.Facts{Direction: policy.Upload}},
			[]string{"kind.infected-upload.why"},
			"kind.infected-upload.do", "kind.infected-upload.title",
		},
		"expired": {
			Notice{Kind: OriginCert, FaultKind: "expired"},
			[]string{"fault.expired.why", "kind.origin-cert.why"},
			"kind.origin-cert.do", "kind.origin-cert.title",
		},
		"unknown fault": {
			Notice{Kind: OriginCert, FaultKind: "../x"}, []string{"kind.origin-cert.why"}, "kind.origin-cert.do", "kind.origin-cert.title",
		},
		"unknown kind": {Notice{Kind: "new"}, []string{"kind.internal.why"}, "kind.internal.do", "kind.internal.title"},
	} {
		v := r.view(en, c.n)
		var why []string
		for _, id := range c.why {
			why = append(why, en.get(id))
		}
		if !slices.Equal(v.Why, why) || v.Do != en.get(c.do) || v.Title != en.get(c.head) || v.Title == "" {
			t.Errorf("%s: %q, %q, %q", name, v.Title, v.Why, v.Do)
		}
	}
}

func TestMoreFindingsAreCountedInEachLanguage(t *testing.T) {
	r := mustNew(t, Default())
	for lang, want := range map[string][2]string{
		"en": {"and 1 more finding", "and 7 more findings"}, "de": {"und 1 weiterer Fund", "und 7 weitere Funde"},
		"fr": {"et 1 autre détection", "et 7 autres détections"},
	} {
		for i, n := range []int{1, 7} {
			if got := r.texts.choose(lang).more(n); got != want[i] {
				t.Errorf("%s, %d: %q, want %q", lang, n, got, want[i])
			}
		}
	}
}

func TestLanguageFollowsTheBrowser(t *testing.T) {
	r := mustNew(t, Default())
	german := Default()
	german.Language = "de"
	few := Default()
	few.Languages = []string{"en", "fr"}
	for _, c := range []struct {
		r    *Renderer
		in   string
		want string
	}{
		{r, "", "en"},
		{r, "fr", "fr"},
		{r, "fr-CA,fr;q=0.9,en;q=0.8", "fr"},
		{r, "de-CH", "de"},
		{r, "de-AT,de;q=0.9,en-US;q=0.8,en;q=0.7", "de"},
		{r, "pt-BR,pt;q=0.9", "pt"},
		{r, "pt-PT", "pt"},
		{r, "es-419", "es"},
		{r, "zh-CN,zh;q=0.9,it;q=0.5", "it"},
		{r, "zh", "en"},
		{r, "nl;q=0,de", "de"},
		{r, "*", "en"},
		{r, "not a language !!", "en"},
		{r, "EN-us", "en"},
		{r, strings.Repeat("xx,", 5000) + "fr", "en"},
		{mustNew(t, german), "", "de"},
		{mustNew(t, german), "ja", "de"},
		{mustNew(t, few), "de", "en"},
		{mustNew(t, few), "fr-BE", "fr"},
	} {
		res := c.r.Respond("text/html", c.in, infected())
		if got := res.Header.Get("Content-Language"); got != c.want {
			t.Errorf("Accept-Language %.60q: %q, want %q", c.in, got, c.want)
		}
		if !strings.Contains(string(res.Body), `<html lang="`+c.want+`">`) {
			t.Errorf("Accept-Language %.60q: the page says another language than %q", c.in, c.want)
		}
	}
}

// templates returns a directory with those files.
func templates(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOperatorReplacesTextsAndTemplates(t *testing.T) {
	cfg := Default()
	cfg.Organisation = "ACME & Sons"
	cfg.Templates = templates(t, map[string]string{
		"page.html":  `<!DOCTYPE html><title>{{.Title}}</title><p>{{.Organisation}} {{range .Rows}}{{.Name}}={{.Value}};{{end}}`,
		"de.toml":    "[kind.infected]\ntitle = \"Halt! Sagt {{.Organisation}}\"\n",
		"pl.toml":    "[kind.infected]\ntitle = \"Zatrzymano niebezpieczny plik\"\n[page.more]\none = \"i {{.Count}}\"\nfew = \"i {{.Count}}f\"\nmany = \"i {{.Count}}m\"\nother = \"i {{.Count}}o\"\n",
		"page.html~": "{{broken",
	})
	r := mustNew(t, cfg)
	body := func(accept, lang string) string { return string(r.Respond(accept, lang, infected()).Body) }
	if got := body("text/html", "en"); !strings.HasPrefix(got, "<!DOCTYPE html><title>Dangerous file stopped</title><p>ACME &amp; Sons found=Eicar (clamd);") {
		t.Errorf("page.html is not used: %q", got)
	}
	if got := body("text/plain", "de"); !strings.HasPrefix(got, "Halt! Sagt ACME & Sons\n\nDie angeforderte Datei") {
		t.Errorf("de.toml is not used, or page.txt and the other texts are not the built-in ones: %q", got)
	}
	if got := body("text/plain", "pl"); !strings.HasPrefix(got, "Zatrzymano niebezpieczny plik\n\nThe file that you asked for") {
		t.Errorf("pl.toml is not offered, or does not fall back: %q", got)
	}
	cfg.Language = "pl"
	r = mustNew(t, cfg)
	if got := body("text/plain", ""); !strings.HasPrefix(got, "Zatrzymano niebezpieczny plik\n\nThe file that you asked for") {
		t.Errorf("an incomplete default language does not fall back to English: %q", got)
	}
	if got := r.texts.choose("pl").more(3); got != "i 3f" {
		t.Errorf("Polish plural: %q", got)
	}
}

func TestBrokenTemplateIsAnErrorWithFileAndLine(t *testing.T) {
	for name, c := range map[string]struct {
		file, content string
		want          []string
	}{
		"html syntax":         {"page.html", "<p>\n{{if}}", []string{"page.html:2"}},
		"html field":          {"page.html", "<p>\n\n{{.Titel}}", []string{"page.html:3", "Titel"}},
		"html context":        {"page.html", "<p>\n<a href='{{if .Title}}\"{{else}}'{{end}}>", []string{"page.html:2"}},
		"html field of a row": {"page.html", "{{range .Rows}}\n{{.Wert}}{{end}}", []string{"page.html:2", "Wert"}},
		"text syntax":         {"page.txt", "a\nb\n{{end}}", []string{"page.txt:3"}},
		"text function":       {"page.txt", "{{env \"HOME\"}}", []string{"page.txt:1", "env"}},
		"toml syntax":         {"fr.toml", "[page]\nwhy = \"x\nfoo", []string{"fr.toml:2"}},
		"toml unknown text":   {"fr.toml", "[page]\nwhy = \"x\"\nwhi = \"y\"\n", []string{"fr.toml:3", "page.whi"}},
		"toml unknown table":  {"fr.toml", "\n[kind.infektion]\ntitle = \"x\"\n", []string{"fr.toml:3", "kind.infektion.title"}},
		"toml placeholder":    {"fr.toml", "[kind.infected]\n\ntitle = \"{{.Host}}\"", []string{"fr.toml:3", "Host", "{{.Organisation}}"}},
		"toml template":       {"fr.toml", "[kind.infected]\ntitle = \"{{\"", []string{"fr.toml:2"}},
		"toml one form":       {"fr.toml", "[page.more]\none = \"{{.X}}\"\nother = \"x\"", []string{"fr.toml:1", "X"}},
		"toml empty":          {"fr.toml", "page.why = \"\"", []string{"fr.toml:1", "empty"}},
		"toml number":         {"fr.toml", "[page]\nwhy = 3", []string{"fr.toml"}},
		"no language":         {"notes.toml", "a = \"b\"", []string{"notes.toml", "not a language"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default()
			cfg.Templates = templates(t, map[string]string{c.file: c.content})
			_, err := New(cfg)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, w := range append(c.want, "templates: ") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error lacks %q: %v", w, err)
				}
			}
		})
	}
	for _, dir := range []string{"/no/such/dir", "/dev/null"} {
		cfg := Default()
		cfg.Templates = dir
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("templates %s: %v", dir, err)
		}
	}
}

func TestTemplateThatFailsLaterIsReplacedByTheBuiltIn(t *testing.T) {
	cfg := Default()
	cfg.Templates = templates(t, map[string]string{
		"page.html": `<p>{{if eq .Status 403}}{{with index .Rows 0}}{{if eq .Value "Boom (x)"}}{{index .Value 1000}}{{end}}{{end}}{{end}}mine`,
	})
	r := mustNew(t, cfg)
	n := infected()
	if got := string(r.Respond("text/html", "", n).Body); got != "<p>mine" {
		t.Fatalf("the operator's page is not used: %q", got)
	}
	n.Verdict = scan.InfectedVerdict("x", "Boom", "")
	if got := string(r.Respond("text/html", "", n).Body); !strings.Contains(got, "<h1>Dangerous file stopped</h1>") || strings.Contains(got, "mine") {
		t.Errorf("no built-in page: %q", got)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("Default: %v", err)
	}
	for key, c := range map[string]Config{
		"language":     {Language: "english!"},
		"languages":    {Language: "en", Languages: []string{"fr"}},
		"organisation": {Language: "en", Organisation: "a\nb"},
		"contact":      {Language: "en", Contact: strings.Repeat("x", 500)},
	} {
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := New(Config{Language: "en", Languages: []string{"en", "ja"}}); err == nil || !strings.Contains(err.Error(), "ja.toml") {
		t.Errorf("a language without texts: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New takes invalid settings")
	}
}

// european are words that Portuguese of Portugal has, and that of Brazil does not.
var european = regexp.MustCompile(`(?i)ficheiro|ligação|\bpara si\b|\bpor si\b|\bestá a \p{L}+r\b|contacte|arranque|\bnuma?\b`)

// A reader meets one kind of Portuguese, and one kind of apostrophe in each language.
func TestEachLanguageIsOne(t *testing.T) {
	for lang, m := range catalogues(t) {
		signs := map[string]string{}
		for id, x := range m {
			for _, text := range []string{x.One, x.Other} {
				if word := european.FindString(text); lang == "pt" && word != "" {
					t.Errorf("pt: %s: %q is not Brazilian: %s", id, word, text)
				}
				for _, sign := range []string{"'", "’"} {
					if strings.Contains(text, sign) {
						signs[sign] = id
					}
				}
			}
		}
		if len(signs) > 1 {
			t.Errorf("%s has several apostrophes: %v", lang, signs)
		}
	}
}
