package admin

import (
	"context"
	"crypto/x509"

	"lazaret/internal/audit"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources is what the console shows. Each field may be left out, and what it would tell is then missing: without CA and
// Scanners the gateway is not ready. All functions but Ready answer without waiting, and may be called by many
// goroutines at once.
type Sources struct {
	Version    string                             // of this program
	Scanners   func() []audit.ScannerStatus       // every scanner there is
	Spool      func() (memory, disk int64)        // bytes held
	CA         func() *x509.Certificate           // the authority that clients are to trust; nil: not loaded
	OtherCAs   func() []OtherCA                   // what clients are to trust besides while a rotation lasts
	Ready      func(ctx context.Context) []string // what else keeps the gateway from judging now; empty: nothing. It may take a while, and ends with ctx
	ProxyAddrs func() []string                    // where the explicit proxy listens, host:port
	Direct     func() []string                    // what goes around the proxy besides Config.Direct, in the same form
	Records    Records
	Metrics    prometheus.Gatherer
}

// OtherCA is a certificate that clients are to trust besides the one in use.
type OtherCA struct {
	Certificate *x509.Certificate
	Next        bool // the gateway will sign with it from its next start on; otherwise it is a former one
}

// Records is the part of *audit.Log that the console shows.
type Records interface {
	Recent(n int) []audit.Record
	Totals() audit.Totals
}
