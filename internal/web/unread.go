package web

import (
	"net/http"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/web/http1"
)

// unread returns the page that answers what cannot be read as a request, and records it.
func (s *Server) unread(c *client, m *http1.Malformed) []byte {
	c.reading.Store(false)
	f := policy.Facts{Protocol: c.scheme, Direction: policy.Download, Client: c.addr.Addr(), Host: c.to.host}
	if c.session != nil {
		f.User = c.session.Target.User
	}
	kind, fault := notice.BadRequest, "the request is malformed"
	switch m.Status {
	case http.StatusRequestHeaderFieldsTooLarge:
		kind, fault = notice.HeaderTooLarge, "the request's head is larger than "+s.settings.Load().MaxHeader.String()
	case http.StatusNotImplemented:
		kind, fault = notice.NotSupported, "a transfer coding that is not known"
	case http.StatusHTTPVersionNotSupported:
		kind, fault = notice.NotSupported, "a version of HTTP that is not known"
	case http.StatusExpectationFailed: // RFC 9110, 10.1.1
		fault = "an expectation that cannot be met"
	default:
		if m.Why != "" {
			fault = m.Why
		}
	}
	resp := s.opt.Pages.Respond("", "", s.opt.Gate.Refuse(f, kind, fault, m.Error()))
	if m.Status == http.StatusExpectationFailed {
		resp.Status = m.Status
	}
	addVia(resp.Header, 1, 1, s.pseudonym)
	return ownPage(resp)
}
