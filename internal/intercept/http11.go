package intercept

import (
	"slices"
	"strings"
	"time"
)

const (
	// http11Life is how long it is remembered that an origin wants HTTP/1.1, and maxHTTP11 of how many at most. It is short, as
	// nobody can see it or have it forgotten; what it costs to learn it again is one redirection.
	http11Life = time.Hour
	maxHTTP11  = 1024
)

// WantsHTTP11 says whether err, of a request by HTTP/2, is an origin's HTTP_1_1_REQUIRED (RFC 9113, 7). Servers send it where they
// need something of the connection that HTTP/2 has no room for: Apache and IIS, to ask for a client certificate.
func WantsHTTP11(err error) bool {
	return err != nil && strings.Contains(err.Error(), "HTTP_1_1_REQUIRED") // net/http exports no type for it
}

// FallBack has the client's next connections to the origin of s, and theirs to it, speak HTTP/1.1. It says false where the session
// speaks that itself, or the client speaks HTTP/2 alone. Other requests of the session, and other sessions from before, may be told
// the same: each is to be asked again by a new connection.
func (s *Session) FallBack() bool {
	return s != nil && s.Proto == "h2" && s.fallBack != nil && s.fallBack()
}

// fallBackOf returns FallBack for a session with o, whose client offers what is in protos.
func (i *Interceptor) fallBackOf(o *origin, protos []string) func() bool {
	key := learnedKey(o.name, o.target)
	return func() bool {
		if !slices.Contains(protos, "http/1.1") {
			return false
		}
		if _, known := i.http11.get(key); !known {
			i.http11.put(key, struct{}{}, i.now().Add(http11Life))
			i.log.Info("an origin wants HTTP/1.1: its next connections speak it", "host", key)
		}
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

// http11Failed forgets that the origin of o wants HTTP/1.1, where a handshake has failed that offered it for that reason alone: an
// origin that has come to speak HTTP/2 only is not to be out of reach.
func (i *Interceptor) http11Failed(o *origin, protos []string) {
	if len(o.protos) < len(protos) {
		i.http11.drop(learnedKey(o.name, o.target))
	}
}
