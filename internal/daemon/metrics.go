package daemon

import (
	"strings"

	"lazaret/internal/audit"
	"lazaret/internal/unpack"

	"github.com/prometheus/client_golang/prometheus"
)

// tlsMetrics exports what the interceptor counts. A reload makes a new one, whose counts begin anew, as after a restart.
type tlsMetrics struct{ d *Daemon }

func tlsDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lazaret_tls_"+name, help, labels, nil)
}

var (
	tlsDecisions    = tlsDesc("decisions_total", "Connections by what became of them, and the sort of reason.", "mode", "rule")
	tlsFaults       = tlsDesc("faults_total", "Faults of origins' certificates and handshakes that were shown to clients.", "kind")
	tlsMinted       = tlsDesc("certificates_minted_total", "Leaf certificates signed.")
	tlsResumed      = tlsDesc("sessions_resumed_total", "Sessions that both sides resumed.")
	tlsExceptions   = tlsDesc("exceptions_total", "Faults that an exception let pass.")
	tlsCertificates = tlsDesc("certificates", "Leaf certificates kept in memory.")
	tlsSessions     = tlsDesc("sessions", "Sessions kept in memory, to be resumed.")
	tlsLearned      = tlsDesc("learned", "Hosts, or pairs of client and host, passed through for what they did.")
)

// Describe implements prometheus.Collector.
func (m tlsMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tlsDecisions, tlsFaults, tlsMinted, tlsResumed, tlsExceptions, tlsCertificates, tlsSessions, tlsLearned} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m tlsMetrics) Collect(ch chan<- prometheus.Metric) {
	i := m.d.interceptor.Load()
	if i == nil {
		return
	}
	st := i.Stats()
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	for _, c := range st.Decisions {
		count(tlsDecisions, c.Count, strings.ToLower(c.Mode.String()), string(c.Rule))
	}
	for kind, n := range st.Faults {
		count(tlsFaults, n, string(kind))
	}
	count(tlsMinted, st.Minted)
	count(tlsResumed, st.Resumed)
	count(tlsExceptions, st.Exceptions)
	gauge(tlsCertificates, st.Certificates)
	gauge(tlsSessions, st.Sessions)
	gauge(tlsLearned, st.Learned)
}

// spamMetrics exports what became of the questions about spam. A reload makes a new checker, whose counts begin anew.
type spamMetrics struct{ d *Daemon }

var spamChecks = prometheus.NewDesc("lazaret_spam_checks_total", "Mails by what became of asking about spam: spam, ham, skipped, failed.", []string{"result"}, nil)

// Describe implements prometheus.Collector.
func (m spamMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- spamChecks }

// Collect implements prometheus.Collector.
func (m spamMetrics) Collect(ch chan<- prometheus.Metric) {
	parts := m.d.mail.Load()
	if parts == nil || parts.spam == nil {
		return
	}
	st := parts.spam.Stats()
	for result, n := range map[string]int64{"spam": st.Spam, "ham": st.Ham, "skipped": st.Skipped, "failed": st.Failed} {
		ch <- prometheus.MustNewConstMetric(spamChecks, prometheus.CounterValue, float64(n), result)
	}
}

// decoders returns what is known of the memory that decoders share.
func decoders() audit.DecodersStatus {
	m := unpack.Memory()
	used, most := m.Used()
	return audit.DecodersStatus{Used: used, Most: most, Total: m.Total(), Waiting: m.Waiting()}
}
