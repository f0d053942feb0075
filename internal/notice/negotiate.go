package notice

import (
	"strconv"
	"strings"
)

// format is a form that a notice can be given in.
type format uint8

// The formats, in the order in which they are preferred where a client is indifferent: what says only "*/*" is a program
// such as curl, and its user reads a terminal.
const (
	plainText format = iota
	htmlPage
	jsonObject
	problemJSON // the same object, under the media type of RFC 9457
	formats
)

var mediaTypes = [formats]string{
	"text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json; charset=utf-8", "application/problem+json; charset=utf-8",
}

// The bounds of what is read of a header field.
const (
	maxField = 4096
	maxItems = 64
)

// negotiate returns the format that the Accept header (RFC 9110 section 12.5.1) prefers: the highest quality, then the most
// specific range, then the one named first. Where it accepts none of ours, it is plain text.
func negotiate(accept string) format {
	type match struct {
		q           float64
		specificity int
		place       int
	}
	var best [formats]match
	if len(accept) > maxField {
		accept = accept[:maxField]
	}
	for place, item := range strings.SplitN(accept, ",", maxItems) {
		mediaType, q, ok := mediaRange(item)
		if !ok {
			continue
		}
		for f := range formats {
			if s := specificity(mediaType, f); s > best[f].specificity {
				best[f] = match{q: q, specificity: s, place: place}
			}
		}
	}
	chosen := plainText
	for f := range formats {
		a, b := best[f], best[chosen]
		switch {
		case a.q != b.q:
			if a.q > b.q {
				chosen = f
			}
		case a.specificity != b.specificity:
			if a.specificity > b.specificity {
				chosen = f
			}
		case a.place < b.place:
			chosen = f
		}
	}
	return chosen
}

// mediaRange reads one item of an Accept header, and says whether it is one.
func mediaRange(item string) (mediaType string, q float64, ok bool) {
	mediaType, params, _ := strings.Cut(item, ";")
	q = 1
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(strings.TrimSpace(k), "q") {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || !(n >= 0 && n <= 1) { // NaN is out, too
			return "", 0, false
		}
		q = n
	}
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return mediaType, q, strings.Contains(mediaType, "/")
}

// specificity returns how closely a media range names f: 3 exactly, 2 by "type/*", 1 by "*/*", 0 not at all.
func specificity(mediaType string, f format) int {
	if mediaType == "*/*" {
		return 1
	}
	switch f {
	case plainText:
		return pick(mediaType, "text/*", "text/plain")
	case htmlPage:
		return pick(mediaType, "text/*", "text/html", "application/xhtml+xml")
	case jsonObject:
		return pick(mediaType, "application/*", "application/json")
	case problemJSON:
		if strings.HasSuffix(mediaType, "+json") {
			return 3
		}
	}
	return 0
}

func pick(mediaType, wide string, exact ...string) int {
	for _, e := range exact {
		if mediaType == e {
			return 3
		}
	}
	if mediaType == wide {
		return 2
	}
	return 0
}
