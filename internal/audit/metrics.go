package audit

import (
	"regexp"
	"slices"
	"strconv"
	"sync"

	"lazaret/internal/policy"
	"lazaret/internal/scan"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics sums the records up. No label ever holds a host, a URL, a user or a signature: their number is bounded by words,
// which bounds the memory here and in whoever collects.
type metrics struct {
	registry *prometheus.Registry
	objects  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	scan     prometheus.Histogram
	receive  prometheus.Histogram
	cached   prometheus.Counter
	exempt   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	words    map[string]*words // by label
}

func newMetrics() *metrics {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "lazaret", Name: name, Help: help}
	}
	hist := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "lazaret", Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		objects: prometheus.NewCounterVec(opts("objects_total", "Objects judged."),
			[]string{"protocol", "direction", "outcome", "reason", "action"}),
		bytes: prometheus.NewCounterVec(opts("object_bytes_total", "Bytes of the objects judged, decoded."),
			[]string{"protocol", "direction"}),
		scan: hist("scan_duration_seconds", "How long the engines took for an object; remembered verdicts are not counted.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}),
		receive: hist("receive_duration_seconds", "From the first byte of an object asked for to the last one held.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900}),
		cached:  prometheus.NewCounter(opts("verdict_cache_hits_total", "Objects whose verdict was remembered.")),
		exempt:  prometheus.NewCounterVec(opts("exempt_total", "What passed without being held to its end: tunnels, streams; a trickle and progress pages, too, before their verdicts."), []string{"kind"}),
		refused: prometheus.NewCounterVec(opts("refused_total", "Connections and requests turned away before there was an object."), []string{"kind"}),
		words: map[string]*words{
			"protocol": {limit: 16}, "exempt": {limit: 32}, "refuse": {limit: 64}, "connections": {limit: 32},
		},
	}
	m.registry.MustRegister(m.objects, m.bytes, m.scan, m.receive, m.cached, m.exempt, m.refused,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// reasons is fixed when the program starts: what else a verdict says becomes "other".
var reasons = scan.Reasons()

func (m *metrics) count(r Record) {
	switch r.Event {
	case Exempt:
		m.exempt.WithLabelValues(m.words["exempt"].word(r.Kind)).Inc()
		return
	case Refuse:
		m.refused.WithLabelValues(m.words["refuse"].word(r.Kind)).Inc()
		return
	}
	protocol, direction := m.words["protocol"].word(r.Facts.Protocol), "other"
	if d := r.Facts.Direction; d == policy.Download || d == policy.Upload {
		direction = string(d)
	}
	reason := "none"
	if r.Verdict.Reason != scan.NoReason {
		if reason = string(r.Verdict.Reason); !slices.Contains(reasons, r.Verdict.Reason) {
			reason = "other"
		}
	}
	m.objects.WithLabelValues(protocol, direction, r.Verdict.Outcome.String(), reason, r.Decision.Action.String()).Inc()
	m.bytes.WithLabelValues(protocol, direction).Add(float64(max(r.Size, 0)))
	m.receive.Observe(r.Receive.Seconds())
	if r.Cached {
		m.cached.Inc()
	} else {
		m.scan.Observe(r.Scan.Seconds())
	}
}

// words bounds a label: the first limit short fixed words that come are kept, and all else is "other".
type words struct {
	limit int
	mu    sync.Mutex
	known map[string]bool
}

var fixedWord = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,39}$`)

func (w *words) word(s string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known[s] {
		return s
	}
	if len(w.known) >= w.limit || !fixedWord.MatchString(s) {
		return "other"
	}
	if w.known == nil {
		w.known = map[string]bool{}
	}
	w.known[s] = true
	return s
}

// ScannerStatus is what is known of one scanner, for metrics, readiness and console.
type ScannerStatus struct {
	Name     string       `json:"name"`
	Address  string       `json:"address,omitempty"` // where it is reached; empty: built in
	Required bool         `json:"required"`
	Up       bool         `json:"up"`                // it would judge an object now
	Problem  string       `json:"problem,omitempty"` // why it is not up, and what to do
	Version  scan.Version `json:"version"`           // zero: unknown
}

// DecodersStatus is what is known of the memory that decoders share.
type DecodersStatus struct {
	Used    int64 // bytes in use
	Most    int64 // bytes that were ever in use at the same time
	Total   int64 // bytes that may be in use
	Waiting int   // decoders that wait for some
}

// Gauges are what the metrics ask for when they are collected. Each may be nil, answers from memory, without waiting, and
// may be called by several goroutines at once.
type Gauges struct {
	Version     string                                 // of this program
	Scanners    func() []ScannerStatus                 // every scanner there is
	Spool       func() (memory, disk int64)            // bytes held
	Decoders    func() DecodersStatus                  // the memory that decoders share
	Connections func() map[string]int64                // open connections, by a fixed word for each listener: "web", "pop3"
	Output      func() OutputStatus                    // the log's own state
	Cache       func() (entries int64, evicted uint64) // the verdict cache
	Downloads   func() (fetching, ready int)           // those that progress pages are about
}

// Registry returns the metrics of this Log, and those that Watch added.
func (l *Log) Registry() *prometheus.Registry { return l.metrics.registry }

// Watch adds gauges to the metrics. It is called once; an error means that it was called before.
func (l *Log) Watch(g Gauges) error {
	return l.metrics.registry.Register(&watcher{g: g, words: l.metrics.words})
}

type watcher struct {
	g     Gauges
	words map[string]*words
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("lazaret_"+name, help, labels, nil)
}

var (
	descInfo        = desc("build_info", "Always 1; the label says which version runs.", "version")
	descUp          = desc("scanner_up", "1 where the scanner would judge an object now.", "scanner", "required")
	descSignatures  = desc("scanner_signatures_timestamp_seconds", "When the scanner's signatures were made.", "scanner")
	descSpool       = desc("spool_bytes", "Bytes of objects that wait for a verdict.", "where")
	descDecoders    = desc("decoder_memory_bytes", "Memory of decoders: in use, the most that ever was at the same time, and how much may be (unpack.total_memory).", "what")
	descDecWaiting  = desc("decoders_waiting", "Decoders that wait for memory.")
	descConnections = desc("connections", "Open connections of clients.", "listener")
	descStalled     = desc("log_stalled", "1 while the log takes no lines.")
	descOverflowed  = desc("log_overflowed_lines_total", "Log lines that went to the overflow file.")
	descLost        = desc("log_lost_lines_total", "Log lines that went nowhere.", "about")
	descCache       = desc("verdict_cache_entries", "Verdicts remembered.")
	descDownloads   = desc("progress_downloads", "Downloads that browsers are shown a progress page about.", "state")
	descEvicted     = desc("verdict_cache_evictions_total", "Verdicts forgotten for lack of room.")
)

// Describe implements prometheus.Collector.
func (w *watcher) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInfo, descUp, descSignatures, descSpool, descDecoders, descDecWaiting, descConnections, descStalled, descOverflowed, descLost, descCache, descEvicted, descDownloads,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (w *watcher) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(descInfo, 1, w.g.Version)
	if w.g.Scanners != nil {
		w.scanners(gauge)
	}
	if w.g.Spool != nil {
		memory, disk := w.g.Spool()
		gauge(descSpool, float64(memory), "memory")
		gauge(descSpool, float64(disk), "disk")
	}
	if w.g.Decoders != nil {
		d := w.g.Decoders()
		gauge(descDecoders, float64(d.Used), "used")
		gauge(descDecoders, float64(d.Most), "most")
		gauge(descDecoders, float64(d.Total), "total")
		gauge(descDecWaiting, float64(d.Waiting))
	}
	if w.g.Connections != nil {
		sums := map[string]int64{} // several names may have become "other"
		for name, n := range w.g.Connections() {
			sums[w.words["connections"].word(name)] += n
		}
		for name, n := range sums {
			gauge(descConnections, float64(n), name)
		}
	}
	if w.g.Cache != nil {
		entries, evicted := w.g.Cache()
		gauge(descCache, float64(entries))
		counter(descEvicted, float64(evicted))
	}
	if w.g.Downloads != nil {
		fetching, ready := w.g.Downloads()
		gauge(descDownloads, float64(fetching), "fetching")
		gauge(descDownloads, float64(ready), "ready")
	}
	if w.g.Output != nil {
		s := w.g.Output()
		stalled := 0.0
		if s.Stalled {
			stalled = 1
		}
		gauge(descStalled, stalled)
		counter(descOverflowed, float64(s.Overflowed))
		counter(descLost, float64(s.LostClean), "clean")
		counter(descLost, float64(s.Lost), "other")
	}
}

// scanners writes the state of each scanner, of maxScanners at most. Two of the same name are told apart by a number: twice
// the same labels would spoil the whole collection.
func (w *watcher) scanners(gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	all := w.g.Scanners()
	seen := map[string]int{}
	for _, s := range all[:min(len(all), maxScanners)] {
		name := cut(s.Name, maxWord)
		if seen[name]++; seen[name] > 1 {
			name += "#" + strconv.Itoa(seen[name])
		}
		up, required := 0.0, strconv.FormatBool(s.Required)
		if s.Up {
			up = 1
		}
		gauge(descUp, up, name, required)
		if !s.Version.Updated.IsZero() {
			gauge(descSignatures, float64(s.Version.Updated.Unix()), name)
		}
	}
}

// maxScanners bounds the number of scanners in the metrics.
const maxScanners = 64
