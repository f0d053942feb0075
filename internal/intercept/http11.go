package intercept

import (
	"slices"
	"strings"
	"time"
)

const (
	// http11Life is how long it is remembered that an origin wants HTTP/1.1, and maxHTTP11 of how many at most.
	http11Life = 24 * time.Hour
	maxHTTP11  = 1024
)

// WantsHTTP11 says whether err, of a request by HTTP/2, is an origin's HTTP_1_1_REQUIRED (RFC 9113, 7). Servers send it where they
// need something of the connection that HTTP/2 has no room for: Apache and IIS, to ask for a client certificate.
func WantsHTTP11(err error) bool {
	return err != nil && strings.Contains(err.Error(), "HTTP_1_1_REQUIRED") // net/http exports no type for it
}

// FallBack has the client's next connections to the origin of s, and theirs to it, speak HTTP/1.1. It says false where that is so
// already, or cannot be because the client speaks HTTP/2 alone.
func (s *Session) FallBack() bool { return s != nil && s.fallBack != nil && s.fallBack() }

// fallBackOf returns FallBack for a session with o, whose client offers what is in protos.
func (i *Interceptor) fallBackOf(o *origin, protos []string) func() bool {
	key := learnedKey(o.name, o.target)
	return func() bool {
		if _, known := i.http11.get(key); known || !slices.Contains(protos, "http/1.1") {
			return false
		}
		i.http11.put(key, struct{}{}, i.now().Add(http11Life))
		i.log.Info("an origin wants HTTP/1.1: its next connections speak it", "host", key)
		return true
	}
}

// lowered returns what of protos, which a client offers, an origin is asked for.
func (i *Interceptor) lowered(key string, protos []string) []string {
	if _, known := i.http11.get(key); known && slices.Contains(protos, "http/1.1") {
		return []string{"http/1.1"}
	}
	return protos
}
