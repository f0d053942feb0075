package web

import (
	"fmt"
	"mime"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"lazaret/internal/unpack"

	"golang.org/x/net/http/httpguts"
)

// hopByHop are the headers that concern one connection only (RFC 9110, 7.6.1; RFC 9112; RFC 7540, 3.2.1 for
// HTTP2-Settings), in canonical form. Whatever Connection names is removed besides.
var hopByHop = [...]string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate",
	"Proxy-Authorization", "Proxy-Authentication-Info", "Http2-Settings",
}

// dropHopByHop removes what concerns one connection only.
func dropHopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// upgradeOf returns the protocol that a message asks to switch to, or has switched to, "" for none (RFC 9110, 7.8).
func upgradeOf(h http.Header) string {
	if !httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") {
		return ""
	}
	return strings.ToLower(strings.Join(h["Upgrade"], ", "))
}

// addVia appends this gateway to the list of those that a message has passed (RFC 9110, 7.6.3).
func addVia(h http.Header, major, minor int, pseudonym string) {
	version := fmt.Sprintf("%d.%d", major, minor)
	if major >= 2 {
		version = fmt.Sprint(major)
	}
	via := append(slices.Clone(h["Via"]), version+" "+pseudonym)
	h["Via"] = []string{strings.Join(via, ", ")}
}

// looped says whether a message has been here before.
func looped(h http.Header, pseudonym string) bool {
	for _, v := range h["Via"] {
		for entry := range strings.SplitSeq(v, ",") {
			if f := strings.Fields(entry); len(f) >= 2 && f[1] == pseudonym {
				return true
			}
		}
	}
	return false
}

// supported are the content codings that the gate decodes.
var supported = strings.Split(strings.ReplaceAll(unpack.Supported(), " ", ""), ",")

// acceptable reduces a client's Accept-Encoding (RFC 9110, 12.5.3) to the codings that the gate can decode, with the
// weights the client gave them. A client that says nothing has nothing said for it.
func acceptable(h http.Header) {
	values, ok := h["Accept-Encoding"]
	if !ok {
		return
	}
	var kept []string
	for _, v := range values {
		for element := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(element, ";")
			name = strings.ToLower(textproto.TrimString(name))
			if name == "identity" || slices.Contains(supported, name) {
				kept = append(kept, textproto.TrimString(element))
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}

// contentCodings returns the content codings of a message in the order in which they were applied (RFC 9110, 8.4), without
// "identity".
func contentCodings(h http.Header) ([]string, error) {
	codings, err := unpack.ParseContentEncoding(h["Content-Encoding"])
	return slices.DeleteFunc(codings, func(s string) bool { return s == "identity" }), err
}

// accepted says whether a client asked for all of codings (RFC 9110, 12.5.3).
func accepted(h http.Header, codings []string) bool {
	for _, coding := range codings {
		if !asked(h, strings.TrimPrefix(coding, "x-")) {
			return false
		}
	}
	return true
}

func asked(h http.Header, coding string) bool {
	others := false
	for _, v := range h["Accept-Encoding"] {
		for element := range strings.SplitSeq(v, ",") {
			name, weight, _ := strings.Cut(element, ";")
			name = strings.TrimPrefix(strings.ToLower(textproto.TrimString(name)), "x-")
			_, q, _ := strings.Cut(weight, "=")
			q = textproto.TrimString(q)
			wanted := q == "" || strings.Trim(q, "0.") != ""
			switch name {
			case coding:
				return wanted
			case "*":
				others = wanted
			}
		}
	}
	return others
}

// mediaType returns a message's media type in lower case, without parameters.
func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(textproto.TrimString(t))
}

// settle leaves one value of each header that has one meaning, so that two readers cannot understand the message in two
// ways. Where it cannot be said which one is meant, it returns an error.
func settle(h http.Header) error {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			// Some readers would take "Transfer-Encoding " for what it looks like.
			if meant := http.CanonicalHeaderKey(textproto.TrimString(name)); controls(meant) || slices.Contains(hopByHop[:], meant) {
				return fmt.Errorf("the header %q is misspelt", name)
			}
			delete(h, name)
			continue
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("the header %s has control characters in it", name)
			}
		}
	}
	settleType(h)
	for _, name := range []string{"Content-Disposition", "Content-Range", "Location", "Content-Location"} {
		values := slices.Compact(slices.Clone(h[name]))
		if len(values) > 1 {
			return fmt.Errorf("the header %s occurs more than once, with different values", name)
		}
		if len(values) == 1 {
			h[name] = values
		}
	}
	for _, name := range []string{"Etag", "Last-Modified"} {
		// A validator that is not one value validates nothing.
		if values := slices.Compact(slices.Clone(h[name])); len(values) > 1 {
			delete(h, name)
		} else if len(values) == 1 {
			h[name] = values
		}
	}
	return nil
}

// settleType keeps the last Content-Type that is one, as browsers do (Fetch, 2.2.2, "extract a MIME type").
func settleType(h http.Header) {
	values := h["Content-Type"]
	if len(values) < 2 {
		return
	}
	last := values[len(values)-1]
	for _, v := range slices.Backward(values) {
		if _, _, err := mime.ParseMediaType(v); err == nil {
			last = v
			break
		}
	}
	h["Content-Type"] = []string{last}
}
