package web

import (
	"net/http"
	"strings"
)

// decodedTag is put into the strong validator of a representation whose content coding was removed.
//
// RFC 9110, 8.8.3.3: two codings of one resource must not have the same strong validator. The origin's validator is for
// the encoded form; what the client gets is the decoded one. Weakening it would break those who edit with If-Match. So the
// validator gets this ending on the way to the client, and loses it on the way to the origin, where it names the
// representation that the client's copy was made from.
const decodedTag = ".lazaret-identity"

// markDecoded puts decodedTag into a strong ETag; weak ones may stay as they are.
func markDecoded(h http.Header) {
	tag := h.Get("Etag")
	if strings.HasPrefix(tag, `"`) && len(tag) >= 2 && strings.HasSuffix(tag, `"`) && !strings.HasSuffix(tag, decodedTag+`"`) {
		h.Set("Etag", strings.TrimSuffix(tag, `"`)+decodedTag+`"`)
	}
}

// originTags takes decodedTag out of the conditions of a request, and says whether it was in one.
func originTags(h http.Header) (marked bool) {
	for _, name := range []string{"If-Match", "If-None-Match"} {
		for i, v := range h[name] {
			if strings.Contains(v, decodedTag+`"`) {
				marked = true
				h[name][i] = strings.ReplaceAll(v, decodedTag+`"`, `"`)
			}
		}
	}
	return marked
}
