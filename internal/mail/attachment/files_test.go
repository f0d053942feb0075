package attachment

import (
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
)

// A file is HTML to whoever opens it, whatever the mail says.
func TestAttachedHTMLIsDisarmed(t *testing.T) {
	const page = "<html><body onload=\"x()\"><script>y</script>Grüße</body></html>"
	for name, fields := range map[string]string{
		"by name":                     "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"Page.HTM\"\r\n",
		"by name in the type":         "Content-Type: text/plain; name=\"=?utf-8?Q?p=2Exhtml?=\"\r\n",
		"by content":                  "Content-Type: application/octet-stream\r\nContent-Disposition: attachment\r\n",
		"by content, without a point": "Content-Disposition: attachment; filename=page\r\nContent-Type: application/x-foo\r\n",
		"by type":                     "Content-Type: application/xhtml+xml; name=x.bin\r\n",
	} {
		d, out := disarmed(t, "active", mixed(fields+"Content-Transfer-Encoding: base64\r\n", wrapped([]byte(page))))
		_, part, _ := strings.Cut(out, "--b1\r\n"+"Content-Type: text/plain\r\n\r\nHello\r\n--b1\r\n")
		head, body, _ := strings.Cut(part, "\r\n\r\n")
		body, _, _ = strings.Cut(body, "\r\n--b1")
		text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
		if err != nil || d.Parts != 1 || string(text) != "\uFEFF<html><body>Grüße</body></html>" {
			t.Errorf("%s: %+v %v %q", name, d, err, text)
		}
		for _, s := range []string{"filename=\"Page.HTM\"", "name=\"=?utf-8?Q?p=2Exhtml?=\"", "name=\"x.bin\"", "filename=page"} {
			if strings.Contains(strings.ReplaceAll(fields, "x.bin", "\"x.bin\""), s) && !strings.Contains(head, s) {
				t.Errorf("%s: the name is gone: %s", name, head)
			}
		}
		if !strings.Contains(head, "; charset=utf-8") || strings.Contains(head, "base64") {
			t.Errorf("%s: %s", name, head)
		}
	}
	source := mixed("Content-Type: text/plain; name=page.php\r\nContent-Transfer-Encoding: base64\r\n", wrapped([]byte(page)))
	if d, out := disarmed(t, "all", source); out != source {
		t.Errorf("a source text: %+v", d)
	}
}

const svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\">"

// Pictures and documents stay as they are, unless a browser would do something with them.
func TestActiveXMLIsTakenOut(t *testing.T) {
	for name, c := range map[string]struct {
		typ, file, text string
		active          bool
	}{
		"a picture": {"image/svg+xml", "p.svg", "<?xml version=\"1.0\"?><!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd\">" +
			svg + "<style>.a{fill:url(#g)}</style><defs><linearGradient id=\"g\"/></defs><path class=\"a\" d=\"M0 0\" style=\"fill:url('#g')\"/><use xlink:href=\"#g\"/></svg>", false},
		"an invoice":          {"text/xml", "i.xml", "<Invoice xmlns=\"urn:oasis:ubl\" src=\"https://x.example/\"><a/>&lt;script&gt;</Invoice>", false},
		"a book":              {"application/octet-stream", "i.xml", "<?mso-application progid=\"Excel.Sheet\"?><Workbook xmlns=\"urn:x\"/>", false},
		"no XML":              {"text/xml", "i.xml", "a & b < c", false},
		"script":              {"image/svg+xml", "p.svg", svg + "<script>x</script></svg>", true},
		"handler":             {"image/svg+xml", "p.svg", svg + "<g onload=\"x\"/></svg>", true},
		"handler, root":       {"application/octet-stream", "p.svg", strings.Replace(svg, ">", " onload=\"x()\">", 1) + "</svg>", true},
		"link":                {"image/svg+xml", "p.svg", svg + "<a xlink:href=\"javascript:x\"/></svg>", true},
		"picture within":      {"image/svg+xml", "p.svg", svg + "<image href=\"https://x.example/\"/></svg>", true},
		"foreign":             {"image/svg+xml", "p.svg", svg + "<foreignObject/></svg>", true},
		"style sheet":         {"image/svg+xml", "p.svg", svg + "<style>@im<![CDATA[port]]> 'x';</style></svg>", true},
		"style":               {"image/svg+xml", "p.svg", svg + "<g style=\"fill:url(https://x.example/)\"/></svg>", true},
		"entities":            {"image/svg+xml", "p.svg", "<!DOCTYPE svg [<!ENTITY a \"b\">]>" + svg + "</svg>", true},
		"not closed":          {"image/svg+xml", "p.svg", svg + "<g>", true},
		"compressed":          {"application/octet-stream", "p.svgz", "\x1f\x8b\x08", true},
		"prefix":              {"text/xml", "p.xml", "<x:svg xmlns:x=\"http://www.w3.org/2000/&#115;vg\"><x:script/></x:svg>", true},
		"XHTML":               {"text/xml", "p.xml", "<html xmlns=\"http://www.w3.org/1999/xhtml\"><script>x</script></html>", true},
		"by content":          {"application/foo", "", "<?xml version=\"1.0\"?><?xml-stylesheet href=\"x\"?><x/>", true},
		"XHTML, not closed":   {"text/xml", "p.xml", "<html xmlns=\"http://www.w3.org/1999/xhtml\"><script>x</script>", true},
		"transformed":         {"application/xml", "p.xml", "<?xml-stylesheet href=\"x.xsl\"?><x/>", true},
		"a web archive":       {"application/octet-stream", "p.mht", "MIME-Version: 1.0\r\n\r\n", true},
		"a web archive, type": {"message/rfc822x", "p.mhtml", "MIME-Version: 1.0\r\n\r\n", true},
	} {
		fields := "Content-Type: " + c.typ + "\r\nContent-Disposition: inline; filename=\"" + c.file + "\"\r\nContent-Transfer-Encoding: base64\r\n"
		if c.file == "" {
			fields = "Content-Type: " + c.typ + "\r\nContent-Transfer-Encoding: base64\r\n"
		}
		text := mixed(fields, wrapped([]byte(c.text)))
		d, out := disarmed(t, "active", text)
		switch {
		case !c.active && (out != text || len(d.Stripped) > 0):
			t.Errorf("%s: %+v", name, d)
		case c.active && (len(d.Stripped) != 1 || d.Stripped[0].Name != c.file || d.Stripped[0].Rule == ""):
			t.Errorf("%s: %+v", name, d)
		case c.active && (!strings.Contains(out, "taken out: "+c.file) || strings.Contains(out, base64.StdEncoding.EncodeToString([]byte(c.text))[:4])):
			t.Errorf("%s: %s", name, out)
		}
	}
}
