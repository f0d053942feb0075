package notice

import "net/http"

// tone is how a page looks: it is a CSS class of the built-in template.
type tone string

const (
	danger  tone = "danger"  // something harmful was stopped
	caution tone = "caution" // held back, or a certificate that is not in order
	trouble tone = "trouble" // something does not work
)

// spec is what is fixed for a Kind.
type spec struct {
	status     int
	tone       tone
	retryAfter int // seconds, for the Retry-After header (RFC 9110 section 10.2.3); zero: none
}

var specs = map[Kind]spec{
	Infected:        {status: http.StatusForbidden, tone: danger},
	NotScanned:      {status: http.StatusForbidden, tone: caution},
	NotAllowed:      {status: http.StatusForbidden, tone: caution},
	Unavailable:     {status: http.StatusServiceUnavailable, tone: caution, retryAfter: 60},
	OriginCert:      {status: http.StatusBadGateway, tone: danger},
	OriginTLS:       {status: http.StatusBadGateway, tone: caution},
	OriginDNS:       {status: http.StatusBadGateway, tone: trouble},
	OriginRefused:   {status: http.StatusBadGateway, tone: trouble},
	OriginTimeout:   {status: http.StatusGatewayTimeout, tone: trouble},
	OriginProtocol:  {status: http.StatusBadGateway, tone: trouble},
	ForbiddenTarget: {status: http.StatusForbidden, tone: caution},
	ForbiddenClient: {status: http.StatusForbidden, tone: caution},
	AuthRequired:    {status: http.StatusProxyAuthRequired, tone: trouble},
	BadRequest:      {status: http.StatusBadRequest, tone: trouble},
	HeaderTooLarge:  {status: http.StatusRequestHeaderFieldsTooLarge, tone: trouble},
	Loop:            {status: http.StatusLoopDetected, tone: trouble},
	Mismatch:        {status: http.StatusMisdirectedRequest, tone: caution},
	Overload:        {status: http.StatusServiceUnavailable, tone: trouble, retryAfter: 10},
	Internal:        {status: http.StatusInternalServerError, tone: trouble},
	NotTLS:          {status: http.StatusBadRequest, tone: caution},
	NotSupported:    {status: http.StatusNotImplemented, tone: caution},
}

// Kinds lists every Kind, in the order of their definition.
func Kinds() []Kind {
	return []Kind{
		Infected, NotScanned, NotAllowed, Unavailable, OriginCert, OriginTLS, OriginDNS, OriginRefused, OriginTimeout,
		OriginProtocol,
		ForbiddenTarget, ForbiddenClient, AuthRequired, BadRequest, HeaderTooLarge, Loop, Mismatch, Overload, Internal,
		NotTLS, NotSupported,
	}
}

// known returns k, or Internal where k is no Kind of this package.
func (k Kind) known() Kind {
	if _, ok := specs[k]; ok {
		return k
	}
	return Internal
}

// Status returns the HTTP status that a notice of this Kind is given with; 500 for an unknown one.
func (k Kind) Status() int { return specs[k.known()].status }
