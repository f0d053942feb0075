package attachment

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"lazaret/internal/mail/header"
)

// param is a parameter of a field (RFC 2045, 5.1; RFC 2231).
type param struct{ name, value string }

// maxParams bounds the parameters of a field. With more of them it counts as one that not everybody reads alike.
const maxParams = 200

// parseValue reads "attachment; filename=x; a=b". ok says that it is well-formed: everybody reads it alike.
func parseValue(s string) (main string, params []param, ok bool) {
	ok = true
	main, rest, _ := strings.Cut(s, ";")
	main = strings.ToLower(strings.TrimSpace(main))
	if strings.ContainsAny(main, "()\"\\ \t,") {
		ok = false
	}
	for rest = strings.TrimSpace(rest); rest != ""; {
		if len(params) == maxParams {
			return main, params, false
		}
		name, after, has := strings.Cut(rest, "=")
		name = strings.ToLower(name)
		if !has || name == "" || strings.ContainsAny(name, " \t\"();,\\") || !section.MatchString(name) || slices.ContainsFunc(params, func(p param) bool { return p.name == name }) {
			ok = false
		}
		var value string
		var fine bool
		value, rest, fine = paramValue(after)
		ok = ok && fine
		params = append(params, param{strings.TrimSpace(name), value})
		if !has {
			break
		}
	}
	return main, params, ok
}

// section is the name of a parameter, and what RFC 2231 puts behind it. Programs make different things of anything else.
var section = regexp.MustCompile(`^[^*]+(?:\*[0-9]{1,3})?\*?$`)

// paramValue reads a token or a quoted string, and the semicolon behind it.
func paramValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ";")
		value = strings.TrimRight(value, " \t")
		return value, strings.TrimSpace(rest), value != "" && !strings.ContainsAny(value, " \t\"(),<>@:\\[]")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			after := strings.TrimSpace(s[i+1:])
			rest, found := strings.CutPrefix(after, ";")
			return b.String(), strings.TrimSpace(rest), found || after == ""
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), "", false
}

// maxNames bounds how many names one part is taken to have, and maxShown how much of one is looked at.
const (
	maxNames = 16
	maxShown = 4096
)

// namesOf returns every name that some mail program might show for these parameters: as they stand, with encoded words
// (RFC 2047) decoded, with continuations joined and percent-encoding decoded (RFC 2231). all says that there are no more: those
// that most programs show come first.
func namesOf(params []param) (out []string, all bool) {
	all = true
	add := func(s string) {
		s = s[max(0, len(s)-maxShown):] // the end is what counts
		switch {
		case s == "" || slices.Contains(out, s):
		case len(out) == maxNames:
			all = false
		default:
			out = append(out, s)
		}
	}
	pieces := map[string]map[int]string{}
	var strange []string
	for _, p := range params {
		base, ext, extended := strings.Cut(p.name, "*")
		if base != "name" && base != "filename" {
			continue
		}
		if !extended {
			add(header.Decode(p.value))
			add(p.value)
			continue
		}
		if ext == "" {
			add(percent(p.value))
			continue
		}
		number, starred := strings.CutSuffix(ext, "*")
		value := p.value
		if starred {
			value = percent(value)
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			strange = append(strange, value) // such as "filename*x"
			continue
		}
		if pieces[base] == nil {
			pieces[base] = map[int]string{}
		}
		pieces[base][n] = value
	}
	for _, m := range pieces {
		var keys []int
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		joined := ""
		for _, k := range keys {
			joined += m[k]
		}
		add(joined)
		add(header.Decode(joined))
	}
	for _, s := range strange {
		add(s)
	}
	return out, all
}

// percent decodes RFC 2231's form, charset'language'text. Other charsets than UTF-8 keep their ASCII, which is what counts.
func percent(s string) string {
	if parts := strings.SplitN(s, "'", 3); len(parts) == 3 {
		s = parts[2]
	}
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// plain returns what a system makes of a name: the last element of a path, without what cannot be seen, without the dots and
// spaces at the end that Windows leaves out, in lower case.
func plain(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf) {
			return -1
		}
		return r
	}, name)
	if i := strings.IndexByte(name, ':'); i > 0 { // a stream of NTFS
		name = name[:i]
	}
	return strings.ToLower(strings.TrimRight(strings.TrimSpace(name), ". \u00a0\u3000"))
}

var double = regexp.MustCompile(`\.(docx?|xlsx?|pptx?|pdf|rtf|odt|ods|txt|csv|html?|jpe?g|png|gif|bmp|tiff?|mp3|mp4|avi|mov|wav|zip|rar|7z|eml|msg)[\s_.-]*` +
	`\.(exe|com|scr|pif|bat|cmd|cpl|msi|msp|dll|js|jse|vbs|vbe|wsf|wsh|hta|ps1|lnk|jar|url|reg|chm|iso|img|vhdx?|apk|app|dmg|sh|py|pl)$`)

// deceptive says whether names show something else than what would be opened.
func deceptive(names []string) bool {
	extension := ""
	for _, n := range names {
		for _, r := range n {
			if unicode.IsControl(r) && r != '\t' || unicode.In(r, unicode.Cf) {
				return true
			}
		}
		if n != strings.TrimRight(n, ". \u00a0\u3000") || strings.Contains(n, "     ") {
			return true
		}
		if strings.Contains(n, "=?") { // as it stands, before decoding
			continue
		}
		e := path.Ext(plain(n))
		if extension != "" && e != extension {
			return true
		}
		extension = e
	}
	return false
}

// ofName says whether a word about names is true of them.
func (w word) ofName(names []string) bool {
	switch {
	case w.text == deceptiveName:
		return deceptive(names)
	case w.content:
		return false
	}
	return slices.ContainsFunc(names, func(n string) bool {
		p := plain(n)
		if w.glob {
			ok, err := path.Match(w.text, p)
			return ok && err == nil
		}
		return double.MatchString(p)
	})
}
