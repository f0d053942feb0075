package attachment

import (
	"regexp"
	"strings"
)

// maxStyle is the longest style attribute that is looked at, in bytes. Longer ones are dropped.
const maxStyle = 4 << 10

// looks are the properties of style attributes that fetch nothing and cover nothing else, with values as styleValue has them.
var looks = strings.Fields(`color background background-color font font-family font-size font-style font-variant font-weight letter-spacing
	line-height text-align text-decoration text-indent text-transform vertical-align white-space word-spacing
	border border-bottom border-bottom-color border-bottom-style border-bottom-width border-collapse border-color border-left
	border-left-color border-left-style border-left-width border-radius border-right border-right-color border-right-style
	border-right-width border-spacing border-style border-top border-top-color border-top-style border-top-width border-width
	height margin margin-bottom margin-left margin-right margin-top max-height max-width min-height min-width
	padding padding-bottom padding-left padding-right padding-top table-layout width clear float display direction`)

// styleValue is what a value may be made of: words, numbers, names in quotes, and colours. What is not here is what CSS could fetch,
// run or hide something with: other functions, escapes, comments, blocks.
const styleValue = `(?:[\p{L}\p{N}#%.,+!/ _-]|"[\p{L}\p{N} ,._+-]*"|'[\p{L}\p{N} ,._+-]*'|(?:rgb|hsl)a?\([\p{N}\p{L}%.,+/ -]*\))+`

// harmlessStyle is a style attribute as cleanStyle writes it. It is what decides about one. Go's expressions take time in
// proportion to the text, whatever that is.
var harmlessStyle = regexp.MustCompile(`(?i)^(?:(?:` + strings.Join(looks, "|") + `): ` + styleValue + `(?:; |$))*$`)

// cleanStyle returns what of a style attribute is harmless, and whether that is all of it. What it returns is either empty or
// harmlessStyle.
func cleanStyle(style string) (clean string, all bool) {
	if len(style) > maxStyle {
		return "", false
	}
	all = true
	var kept []string
	for d := range strings.SplitSeq(style, ";") {
		if strings.TrimSpace(d) == "" {
			continue
		}
		property, value, _ := strings.Cut(d, ":")
		d = strings.TrimSpace(property) + ": " + strings.Join(strings.Fields(value), " ")
		if !harmlessStyle.MatchString(d) {
			all = false
			continue
		}
		kept = append(kept, d)
	}
	return strings.Join(kept, "; "), all
}
