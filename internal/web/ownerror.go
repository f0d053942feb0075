package web

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// ownError returns the page that goes out in the place of raw, an answer that net/http gives by itself to a request that
// it cannot read, and records it; nil where raw is no such thing.
func (s *Server) ownError(c *client, raw []byte) []byte {
	line, _, _ := bytes.Cut(raw, []byte("\r\n"))
	status, text, _ := strings.Cut(strings.TrimPrefix(string(line), "HTTP/1.1 "), " ")
	code, err := strconv.Atoi(status)
	if err != nil || code < 400 {
		return nil
	}
	f := policy.Facts{Protocol: c.scheme, Direction: policy.Download, Client: c.addr.Addr(), Host: c.to.host}
	if c.session != nil {
		f.User = c.session.Target.User
	}
	kind, fault := notice.BadRequest, "the request is malformed"
	switch code {
	case http.StatusRequestHeaderFieldsTooLarge:
		kind, fault = notice.HeaderTooLarge, "the request's head is larger than "+s.settings.Load().MaxHeader.String()
	case http.StatusNotImplemented:
		kind, fault = notice.NotSupported, "a transfer coding that is not known"
	case http.StatusHTTPVersionNotSupported:
		kind, fault = notice.NotSupported, "a version of HTTP that is not known"
	case http.StatusExpectationFailed: // RFC 9110, 10.1.1
		fault = "an expectation that cannot be met"
	default:
		if _, why, ok := strings.Cut(text, ": "); ok {
			fault = why
		}
	}
	resp := s.opt.Pages.Respond("", "", s.opt.Gate.Refuse(f, kind, fault, string(line)))
	if code == http.StatusExpectationFailed {
		resp.Status = code
	}
	addVia(resp.Header, 1, 1, s.pseudonym)
	return ownPage(resp)
}
