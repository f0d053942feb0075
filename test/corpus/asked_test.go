package corpus

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"mime/quotedprintable"
	"net/http"
	"net/url"
	"strings"
)

// asking makes an upload of what stands behind "POST target HTTP/1.1" and Host.
func asking(family, name string, valid bool, content []byte, rest string) upload {
	return upload{
		family: family, name: name, valid: valid, wants: [][]byte{content},
		ask: func(target, host string) string {
			return "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: text/plain\r\n" + rest
		},
	}
}

// smuggled are requests in which another one is hidden, for those who go by another length.
func smuggled(content []byte) []upload {
	const family = "requests in requests"
	hiding := func(name string, ends bool, build func(hidden string) string) upload {
		return upload{
			family: family, name: name, ends: ends, wants: nil,
			ask: func(target, host string) string {
				hidden := fmt.Sprintf("POST %s/hidden HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", target, host, len(content), content)
				return "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: text/plain\r\n" + build(hidden)
			},
		}
	}
	all := []upload{
		hiding("behind the content", false, func(h string) string { return "Content-Length: 2\r\n\r\nhi" + h }),
		hiding("behind none", false, func(h string) string { return "\r\n" + h }),
		hiding("behind the last chunk", false, func(h string) string { return "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + h }),
		hiding("in the content by length, behind it by chunks", true, func(h string) string {
			return fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", len(h)+5, h)
		}),
		hiding("chunks first, then the length", true, func(h string) string {
			return fmt.Sprintf("Transfer-Encoding: chunked\r\nCONTENT-LENGTH: %d\r\n\r\n0\r\n\r\n%s", len(h)+5, h)
		}),
		hiding("behind the content by length, in chunks", true, func(h string) string {
			return fmt.Sprintf("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(h), h)
		}),
		hiding("two lengths", true, func(h string) string {
			return fmt.Sprintf("Content-Length: 0\r\nContent-Length: %d\r\n\r\n%s", len(h), h)
		}),
		hiding("two lengths in one", true, func(h string) string { return fmt.Sprintf("Content-Length: 0, %d\r\n\r\n%s", len(h), h) }),
		hiding("in the trailer", true, func(h string) string {
			return "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nContent-Length: 0\r\n" + h
		}),
		hiding("in a chunk's extension", false, func(h string) string {
			return "Transfer-Encoding: chunked\r\n\r\n2;" + strings.ReplaceAll(h, "\r\n", "\n") + "\r\nhi\r\n0\r\n\r\n"
		}),
		hiding("behind an upgrade to h2c", false, func(h string) string {
			return "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 2\r\n\r\nhi" + h
		}),
		hiding("behind an upgrade to WebSocket", false, func(h string) string {
			return "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 2\r\n\r\nhi" + h
		}),
		hiding("behind a bare LF", false, func(h string) string { return "X: a\nContent-Length: 2\r\n\r\nhi" + h }),
	}
	for _, coding := range []string{
		"xchunked", "chunked, identity", "identity, chunked", "chunked, chunked", "chunked;q=1", "\"chunked\"", "identity", "gzip, chunked", "chunked\x0b", "\x0bchunked",
		"chunked\r\n\tx", "x\r\n chunked", "chunked\r\nTransfer-Encoding: identity", "identity\r\nTransfer-Encoding: chunked", "", "chunked,", "chunked\x00",
	} {
		all = append(all, hiding(fmt.Sprintf("Transfer-Encoding: %q", coding), false, func(h string) string {
			return fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: %s\r\n\r\n0\r\n\r\n%s", len(h)+5, coding, h)
		}))
	}
	for _, field := range []string{"Transfer-Encoding : chunked", " Transfer-Encoding: chunked", "Transfer_Encoding: chunked", "Transfer-Encoding\t: chunked", "X: x\rTransfer-Encoding: chunked", "Transfer-Encoding\r\n : chunked"} {
		all = append(all, hiding(fmt.Sprintf("%q", field), false, func(h string) string {
			return fmt.Sprintf("Content-Length: %d\r\n%s\r\n\r\n0\r\n\r\n%s", len(h)+5, field, h)
		}))
	}
	return all
}

// framedOddly are contents whose end is not where it is said.
func framedOddly(content []byte) []upload {
	const family = "odd ends"
	b := string(content)
	cut := func(name, rest string) upload {
		u := asking(family, name, bad, content, rest)
		u.half = true
		return u
	}
	old := asking(family, "HTTP/1.0 with chunks", bad, content, "Transfer-Encoding: chunked\r\n\r\n"+inChunks(b))
	ask := old.ask
	old.ask = func(target, host string) string {
		return strings.Replace(ask(target, host), " HTTP/1.1\r\n", " HTTP/1.0\r\n", 1)
	}
	older := upload{family: family, name: "HTTP/0.9", ask: func(target, _ string) string { return "POST " + target + "\r\n\r\n" + b }, half: true}
	return []upload{
		cut("cut by the client", length(len(b)+100)+"\r\n"+b),
		cut("cut within a chunk", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(b)+10, b)),
		cut("no last chunk", "Transfer-Encoding: chunked\r\n\r\n"+strings.TrimSuffix(inChunks(b), "0\r\n\r\n")),
		cut("no end of the trailer", "Transfer-Encoding: chunked\r\n\r\n"+strings.TrimSuffix(inChunks(b), "\r\n")+"X: y\r\n"),
		cut("no end of the head", length(len(b))),
		old, older,
		asking(family, "trailers", good, content, "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"+strings.TrimSuffix(inChunks(b), "\r\n")+"X-Sum: 1\r\n\r\n"),
		asking(family, "trailers about the framing", bad, content, "Transfer-Encoding: chunked\r\n\r\n"+strings.TrimSuffix(inChunks(b), "\r\n")+"Content-Length: 3\r\nTransfer-Encoding: x\r\nHost: y\r\n\r\n"),
	}
}

// headed are requests with odd heads, around a content that is framed well.
func headed(content []byte) []upload {
	const family = "odd heads"
	b := string(content)
	field := func(name string, valid bool, line string) upload {
		return asking(family, name, valid, content, line+"\r\n"+length(len(b))+"\r\n"+b)
	}
	lined := func(name string, build func(target, host string) string) upload {
		return upload{family: family, name: name, ask: func(target, host string) string {
			return build(target, host) + "Content-Type: text/plain\r\n" + length(len(b)) + "\r\n" + b
		}}
	}
	return []upload{
		field("a field of ours", good, "X-Foo: bar"),
		field("an empty field", good, "X-Foo:"),
		field("no colon", bad, "X-Foo"),
		field("no name", bad, ": x"),
		field("a space in a name", bad, "X Foo: x"),
		field("folded", bad, "X-Foo: a\r\n b"),
		field("NUL", bad, "X-Foo: a\x00b"),
		field("CR", bad, "X-Foo: a\rb"),
		field("a second Host", bad, "Host: elsewhere.example"),
		field("Connection names the length", bad, "Connection: Content-Length"),
		field("Connection names Host", bad, "Connection: Host"),
		field("a Connection of its own", good, "Connection: keep-alive, X-Hop\r\nX-Hop: 1"),
		lined("a space in the target", func(t, h string) string { return "POST " + t + " x HTTP/1.1\r\nHost: " + h + "\r\n" }),
		lined("two spaces", func(t, h string) string { return "POST  " + t + "  HTTP/1.1\r\nHost: " + h + "\r\n" }),
		lined("HTTP/1.2", func(t, h string) string { return "POST " + t + " HTTP/1.2\r\nHost: " + h + "\r\n" }),
		lined("HTTP/2.0", func(t, h string) string { return "POST " + t + " HTTP/2.0\r\nHost: " + h + "\r\n" }),
		lined("http/1.1", func(t, h string) string { return "POST " + t + " http/1.1\r\nHost: " + h + "\r\n" }),
		lined("a method with a colon", func(t, h string) string { return "PO:ST " + t + " HTTP/1.1\r\nHost: " + h + "\r\n" }),
		lined("no Host", func(t, _ string) string { return "POST " + t + " HTTP/1.1\r\n" }),
		lined("another Host", func(t, _ string) string { return "POST " + t + " HTTP/1.1\r\nHost: elsewhere.example\r\n" }),
		lined("a target with CR", func(t, h string) string { return "POST " + t + "\rx HTTP/1.1\r\nHost: " + h + "\r\n" }),
		lined("empty lines before it", func(t, h string) string { return "\r\n\r\nPOST " + t + " HTTP/1.1\r\nHost: " + h + "\r\n" }),
		lined("LF alone", func(t, h string) string { return "POST " + t + " HTTP/1.1\nHost: " + h + "\n" }),
	}
}

// forms are uploads by form, of which every part counts.
func forms(content []byte) []upload {
	const family = "forms"
	form := func(name string, valid bool, typ, body string) upload {
		return upload{family: family, name: name, valid: valid, wants: [][]byte{[]byte(body)}, ask: func(target, host string) string {
			return "POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: " + typ + "\r\n" + length(len(body)) + "\r\n" + body
		}}
	}
	const mp = "multipart/form-data; boundary=b1"
	part := func(fields string, b string) string { return "--b1\r\n" + fields + "\r\n\r\n" + b + "\r\n" }
	const file = `Content-Disposition: form-data; name="f"; filename="x.txt"`
	text := part(`Content-Disposition: form-data; name="a"`, "a text")
	b, end := string(content), "--b1--\r\n"
	coded := base64.StdEncoding.EncodeToString(content)
	var zipped, quoted bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write(content)
	_ = w.Close()
	q := quotedprintable.NewWriter(&quoted)
	_, _ = q.Write(content)
	_ = q.Close()
	return []upload{
		form("a file", good, mp, text+part(file, b)+end),
		form("a file first", good, mp, part(file, b)+text+end),
		form("a field", good, mp, part(`Content-Disposition: form-data; name="a"`, b)+end),
		form("a file in base64", good, mp, text+part(file+"\r\nContent-Transfer-Encoding: base64", coded)+end),
		form("a file in quoted-printable", good, mp, text+part(file+"\r\nContent-Transfer-Encoding: quoted-printable", quoted.String())+end),
		form("a file in gzip", good, mp, text+part(file+"\r\nContent-Encoding: gzip", zipped.String())+end),
		form("a quoted boundary", good, `multipart/form-data; boundary="b1"`, text+part(file, b)+end),
		form("no end", bad, mp, text+part(file, b)),
		form("LF alone", bad, mp, strings.ReplaceAll(text+part(file, b)+end, "\r\n", "\n")),
		form("no boundary in the type", bad, "multipart/form-data", text+part(file, b)+end),
		form("another boundary in the type", bad, "multipart/form-data; boundary=other", text+part(file, b)+end),
		form("two boundaries", bad, "multipart/form-data; boundary=other; boundary=b1", text+part(file, b)+end),
		form("in the preamble", bad, mp, b+"\r\n"+text+end),
		form("in the epilogue", bad, mp, text+end+b),
		form("a form in the form", good, mp, part("Content-Disposition: form-data; name=x\r\nContent-Type: multipart/mixed; boundary=c2", "--c2\r\n"+file+"\r\n\r\n"+b+"\r\n--c2--")+end),
		form("called text", bad, "text/plain", text+part(file, b)+end),
		form("called text, in base64", bad, "text/plain", text+part(file+"\r\nContent-Transfer-Encoding: base64", coded)+end),
		form("url-encoded", good, "application/x-www-form-urlencoded", "a=1&f="+url.QueryEscape(b)),
		form("a data: URL", good, "application/json", fmt.Sprintf("{\"file\": \"data:text/plain;base64,%s\"}", coded)),
	}
}

// methods are contents where others have none.
func methods(content []byte) []upload {
	var all []upload
	for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodGet, http.MethodOptions, "PROPFIND", "QUERY", "post", "M-SEARCH"} {
		b := string(content)
		for framing, rest := range map[string]string{"length": length(len(b)) + "\r\n" + b, "chunks": "Transfer-Encoding: chunked\r\n\r\n" + inChunks(b)} {
			all = append(all, upload{
				family: "methods", name: method + " by " + framing, valid: true, wants: [][]byte{content},
				ask: func(target, host string) string {
					return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: text/plain\r\n" + rest
				},
			})
		}
	}
	return all
}

// expectations are those of RFC 9110, 10.1.1.
func expectations(content []byte) []upload {
	const family = "expectations"
	b := string(content)
	expects := func(name string, valid bool, value string, status int) upload {
		u := asking(family, name, valid, content, "Expect: "+value+"\r\n"+length(len(b))+"\r\n"+b)
		u.status = status
		return u
	}
	waits := expects("waited for", good, "100-continue", 0)
	waits.wait = "\r\n\r\n"
	capitals := expects("waited for, in capitals", good, "100-Continue", 0)
	capitals.wait = "\r\n\r\n"
	return []upload{
		waits, capitals,
		expects("not waited for", good, "100-continue", 0),
		expects("unknown", bad, "the-impossible", http.StatusExpectationFailed),
	}
}
