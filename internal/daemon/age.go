package daemon

import (
	"context"
	"fmt"
	"time"

	"lazaret/internal/audit"
	"lazaret/internal/scan"
	"lazaret/internal/units"

	"github.com/prometheus/client_golang/prometheus"
)

// Times of the watch of ages.
const (
	ageEvery = 30 * time.Second
	oldEvery = 12 * time.Hour // between two warnings about the same
)

// old says whether signatures are older than limit. Those of unknown age are not: that is said, once, in other words.
func old(v scan.Version, limit units.Duration, now time.Time) bool {
	return limit > 0 && !v.Updated.IsZero() && now.Sub(v.Updated) > limit.Std()
}

// seen is what was said last of an engine's signatures.
type seen struct {
	signatures string
	made       time.Time
	warned     time.Time // zero: they were not too old
}

// watchAge logs signatures when they change, and warns of old ones, sparingly.
func (s *freshness) watchAge(ctx context.Context) {
	said := map[string]seen{}
	for {
		if o := s.d.engines.Load().own; o != nil {
			o.look()
		}
		s.tell(said, s.d.ScannerStatus(), time.Now())
		select {
		case <-time.After(ageEvery):
		case <-ctx.Done():
			return
		}
	}
}

// tell logs what is new in the states of engines, compared with what was said.
func (s *freshness) tell(said map[string]seen, all []audit.ScannerStatus, now time.Time) {
	limit := s.d.maxAge()
	for _, st := range all {
		if !st.Up || st.Version.Engine == "" {
			continue // it will say when it is there again
		}
		was, known := said[st.Name]
		if !known || was.signatures != st.Version.Signatures || !was.made.Equal(st.Version.Updated) {
			s.d.log.Info("signatures in use", "scanner", st.Name, "engine", st.Version.Engine, "signatures", st.Version.Signatures,
				"age", ageWords(st.Version, now))
		}
		next := seen{signatures: st.Version.Signatures, made: st.Version.Updated}
		if old(st.Version, limit, now) {
			if next.warned = was.warned; now.Sub(was.warned) > oldEvery {
				next.warned = now
				s.d.log.Warn("the signatures are old: new viruses are not known", "scanner", st.Name, "age", ageWords(st.Version, now),
					"limit", limit.String(), "do", "see that freshclam runs and reaches its mirror: its errors are in this log where lazaret runs it, else in its own (journalctl -u clamav-freshclam)")
			}
		} else if !was.warned.IsZero() {
			s.d.log.Info("the signatures are fresh again", "scanner", st.Name)
		}
		said[st.Name] = next
	}
}

// ageWords says how old signatures are, for people.
func ageWords(v scan.Version, now time.Time) string {
	if v.Updated.IsZero() {
		return "not known: the engine tells none"
	}
	age := now.Sub(v.Updated)
	if age < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(age.Hours()))
	}
	return fmt.Sprintf("%d days", int(age.Hours()/24))
}

func (d *Daemon) maxAge() units.Duration { return d.opt.Config.ClamAV.MaxAge }

// tooOld says, for /readyz, which engines' signatures are too old, where the settings want that.
func (d *Daemon) tooOld() []string {
	if !d.opt.Config.ClamAV.OldNotReady {
		return nil
	}
	var out []string
	for _, st := range d.ScannerStatus() {
		if now := time.Now(); st.Required && old(st.Version, d.maxAge(), now) {
			out = append(out, fmt.Sprintf("the signatures of %s are old (%s)", st.Name, ageWords(st.Version, now)))
		}
	}
	return out
}

// signatureMetrics exports the age of signatures, and what became of updates.
type signatureMetrics struct{ d *Daemon }

var (
	ageDesc        = prometheus.NewDesc("lazaret_scanner_signatures_age_seconds", "How old the scanner's signatures are; absent where they have no age, as the built-in ones.", []string{"scanner"}, nil)
	oldDesc        = prometheus.NewDesc("lazaret_scanner_signatures_old", "1: they are older than [clamav] max_age.", []string{"scanner"}, nil)
	updatedDesc    = prometheus.NewDesc("lazaret_freshclam_success_timestamp_seconds", "When freshclam last worked; absent before it has.", nil, nil)
	failedDesc     = prometheus.NewDesc("lazaret_freshclam_failures", "How many runs of freshclam in a row have failed.", nil, nil)
	changedDesc    = prometheus.NewDesc("lazaret_freshclam_changes_total", "How many runs of freshclam brought new signatures.", nil, nil)
	restartsDesc   = prometheus.NewDesc("lazaret_clamd_restarts_total", "How often a clamd of ours has ended, and was started again.", nil, nil)
	signatureDescs = []*prometheus.Desc{ageDesc, oldDesc, updatedDesc, failedDesc, changedDesc, restartsDesc}
)

// Describe implements prometheus.Collector.
func (m signatureMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range signatureDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m signatureMetrics) Collect(ch chan<- prometheus.Metric) {
	now, names := time.Now(), map[string]bool{}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, st := range m.d.ScannerStatus() {
		if st.Version.Updated.IsZero() || names[st.Name] {
			continue // two of one name would spoil the whole collection
		}
		names[st.Name] = true
		gauge(ageDesc, now.Sub(st.Version.Updated).Seconds(), st.Name)
		is := 0.0
		if old(st.Version, m.d.maxAge(), now) {
			is = 1
		}
		gauge(oldDesc, is, st.Name)
	}
	if e := m.d.engines.Load(); e != nil && e.own != nil {
		ch <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(e.own.supervisor.State().Restarts))
	}
	u := m.d.updates.Load()
	if u == nil {
		return
	}
	st := u.State()
	if !st.Success.IsZero() {
		gauge(updatedDesc, float64(st.Success.Unix()))
	}
	gauge(failedDesc, float64(st.Failed))
	ch <- prometheus.MustNewConstMetric(changedDesc, prometheus.CounterValue, float64(st.Changed))
}
