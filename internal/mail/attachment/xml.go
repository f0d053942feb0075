package attachment

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"

	"golang.org/x/net/html/charset"
)

// The namespaces in which XML does something in a browser.
const (
	nsXHTML  = "http://www.w3.org/1999/xhtml"
	nsSVG    = "http://www.w3.org/2000/svg"
	nsMathML = "http://www.w3.org/1998/Math/MathML"
)

var (
	// drawing are the elements of SVG that draw, and do nothing else.
	drawing = wordSet(`svg g defs symbol use path rect circle ellipse line polyline polygon text tspan textPath title desc metadata
		linearGradient radialGradient stop clipPath mask pattern marker image style switch view filter feBlend feColorMatrix
		feComponentTransfer feComposite feConvolveMatrix feDiffuseLighting feDisplacementMap feDistantLight feDropShadow feFlood
		feFuncA feFuncB feFuncG feFuncR feGaussianBlur feMerge feMergeNode feMorphology feOffset fePointLight feSpecularLighting
		feSpotLight feTile feTurbulence`)
	inside   = regexp.MustCompile(`^(?:#|data:image/(?:png|jpeg|gif|webp);base64,)`) // what a reference may lead to
	urlFunc  = regexp.MustCompile(`url\(\s*["']?([^)]?)`)
	fetching = regexp.MustCompile(`@import|@font-face|image-set|src\(|expression\s*\(|javascript:|-moz-binding|behavior\s*:|\\`) //nolint:misspell // it is CSS's word
	// mayAct is what XML that cannot be read would have to have.
	mayAct = regexp.MustCompile(`(?i)xhtml|/svg|mathml|stylesheet|<!entity|&#|script`)
)

// maxCSS bounds a style sheet in a picture, in bytes.
const maxCSS = 256 << 10

func wordSet(s string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(s) {
		set[w] = true
	}
	return set
}

// activeXML says what in an XML document a browser would run or fetch; empty: nothing. picture says that it is called SVG: one that
// cannot be read is not trusted then.
func activeXML(text []byte, picture bool) string {
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = charset.NewReaderLabel
	inStyle, css := false, []byte(nil)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return ""
		}
		if err != nil {
			if picture || mayAct.Match(bytes.ReplaceAll(text, []byte{0}, nil)) {
				return "XML that cannot be read"
			}
			return ""
		}
		why := ""
		switch t := token.(type) {
		case xml.ProcInst:
			if strings.HasPrefix(strings.ToLower(t.Target), "xml-") {
				why = "a style sheet of XML"
			}
		case xml.Directive:
			if bytes.ContainsAny(t, "[&") {
				why = "a declaration of entities"
			}
		case xml.StartElement:
			if why = activeElement(t); inStyle {
				why = "an element in a style sheet"
			}
			inStyle, css = t.Name.Space == nsSVG && t.Name.Local == "style", css[:0]
		case xml.EndElement:
			if inStyle && fetches(string(css)) {
				why = "a style sheet that fetches something"
			}
			inStyle = false
		case xml.CharData:
			if inStyle { // it comes in pieces
				if css = append(css, t...); len(css) > maxCSS {
					why = "a style sheet that is too long"
				}
			}
		}
		if why != "" {
			return why
		}
	}
}

func activeElement(e xml.StartElement) string {
	switch e.Name.Space {
	case nsXHTML:
		return "XHTML"
	case nsSVG:
		if !drawing[e.Name.Local] {
			return "the element " + e.Name.Local + " of SVG"
		}
	case nsMathML:
	default:
		return "" // nobody knows what it means
	}
	for _, a := range e.Attr {
		name, value := strings.ToLower(a.Name.Local), strings.ToLower(strings.TrimSpace(a.Value))
		switch {
		case a.Name.Space == "xmlns", name == "xmlns":
		case strings.HasPrefix(name, "on"),
			(name == "href" || name == "src" || name == "base") && value != "" && !inside.MatchString(value),
			fetches(value):
			return "the attribute " + name + " of " + e.Name.Local
		}
	}
	return ""
}

// fetches says whether CSS, or the value of an attribute, has something fetched or run.
func fetches(css string) bool {
	css = strings.ToLower(css)
	if fetching.MatchString(css) {
		return true
	}
	for _, m := range urlFunc.FindAllStringSubmatch(css, -1) {
		if m[1] != "#" {
			return true
		}
	}
	return false
}
