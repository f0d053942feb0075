package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"lazaret/bench/internal/peers"
)

// sample is what one alternative did in one round of one scenario, or the medians of that over the rounds. Times are in
// milliseconds, memory is in bytes; processor times are for each request, user and system together.
type sample struct {
	Scenario    string `json:"scenario"`
	Alternative string `json:"alternative"`
	Round       int    `json:"round"`

	Requests int    `json:"requests"`
	Errors   int    `json:"errors,omitempty"`
	Error    string `json:"error,omitempty"`
	Failed   bool   `json:"failed,omitempty"` // nothing went well: the figures below are missing

	Rate  float64 `json:"rate,omitempty"` // requests a second
	P50   float64 `json:"p50_ms,omitempty"`
	P95   float64 `json:"p95_ms,omitempty"`
	P99   float64 `json:"p99_ms,omitempty"`
	First float64 `json:"first_byte_ms,omitempty"`
	Total float64 `json:"total_ms,omitempty"`

	GatewayCPU float64 `json:"gateway_cpu_ms"` // all its processes, clamd apart
	ClamdCPU   float64 `json:"clamd_cpu_ms"`
	AllCPU     float64 `json:"all_cpu_ms"` // gateway and clamd
	OriginCPU  float64 `json:"origin_cpu_ms"`
	ClientCPU  float64 `json:"client_cpu_ms"`
	Others     float64 `json:"others_share"` // of all processors, for whatever else ran
	Stolen     float64 `json:"stolen_share"` // of all processors, by the hypervisor

	Memory        int64   `json:"memory,omitempty"` // proportional set size of the gateway afterwards
	Peak          int64   `json:"peak,omitempty"`
	PeakGrowth    int64   `json:"peak_growth,omitempty"`
	ShmemGrowth   int64   `json:"shmem_growth,omitempty"` // the machine's, in tmpfs and memfds
	Disk          int64   `json:"disk,omitempty"`         // most that files without a name took at a time
	PerConnection float64 `json:"per_connection,omitempty"`
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// spent enters u, divided among so many requests.
func (s *sample) spent(u usage, requests int) {
	n := float64(requests)
	s.GatewayCPU, s.ClamdCPU, s.AllCPU = ms(u.gateway)/n, ms(u.clamd)/n, ms(u.gateway+u.clamd)/n
	s.OriginCPU, s.ClientCPU = ms(u.origin)/n, ms(u.client)/n
	s.Others, s.Stolen = u.others, u.stolen
}

// ratio compares lazaret with Squid that scans, in one figure of one scenario.
type ratio struct {
	Scenario string  `json:"scenario"`
	Figure   string  `json:"figure"`
	Value    float64 `json:"lazaret_to_squid_scan"` // median of the rounds' ratios
}

// expectation is what issue "First light" asks for.
type expectation struct {
	What string `json:"what"`
	Got  string `json:"got"`
	Met  bool   `json:"met"`
}

// results are everything that is kept.
type results struct {
	Begun        time.Time         `json:"begun"`
	Took         string            `json:"took"`
	Machine      map[string]string `json:"machine"`
	Options      map[string]string `json:"options"`
	Checks       []check           `json:"checks"`
	Samples      []sample          `json:"samples"`
	Medians      []sample          `json:"medians"`
	Ratios       []ratio           `json:"ratios,omitempty"`
	Expectations []expectation     `json:"expectations,omitempty"`

	scenarios    []scenario
	alternatives []peers.Alternative
}

func newResults(o options) *results {
	return &results{
		Begun: time.Now(), Machine: machine(o), scenarios: o.scenarios, alternatives: o.alternatives,
		Options: map[string]string{
			"duration": o.duration.String(), "rounds": fmt.Sprint(o.rounds), "visits": fmt.Sprint(o.visits), "idle": fmt.Sprint(o.connections), "crowd": fmt.Sprint(o.crowd),
			"body signatures": fmt.Sprint(o.database.Bodies), "hashes": fmt.Sprint(o.database.Hashes),
		},
	}
}

// machine describes where the figures come from.
func machine(o options) map[string]string {
	m := map[string]string{"processors": fmt.Sprint(runtime.NumCPU()), "go": runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				m["processor"] = strings.TrimSpace(v)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m["load before"], _, _ = strings.Cut(string(b), " ")
	}
	for name, argv := range map[string][]string{
		"kernel": {"uname", "-r"}, "clamd": {"clamd", "--version"}, "squid": {"squid", "-v"},
		"c-icap": {"dpkg-query", "-W", "-f", "${Version}", "c-icap"}, "lazaret": {o.lazaret, "version"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).Output(); err == nil {
			m[name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
		}
	}
	return m
}

// failures returns in how many rounds the alternative has failed altogether in the scenario, and how it did.
func (r *results) failures(scenario, alternative string) (n int, how string) {
	for _, s := range r.Samples {
		if s.Failed && s.Scenario == scenario && s.Alternative == alternative {
			n, how = n+1, s.Error
		}
	}
	return n, how
}

func (r *results) of(all []sample, scenario, alternative string) []sample {
	var out []sample
	for _, s := range all {
		if s.Scenario == scenario && s.Alternative == alternative && !s.Failed {
			out = append(out, s)
		}
	}
	return out
}

// median returns the middle one of v, or the mean of the two in the middle; v must not be empty.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// medians returns a sample whose figures are the medians of those of s, each for itself. Requests and errors are added up.
func medians(s []sample) sample {
	out := s[0]
	out.Round = -1
	dst := reflect.ValueOf(&out).Elem()
	for i := range dst.NumField() {
		f := dst.Field(i)
		var all []float64
		for _, one := range s {
			switch v := reflect.ValueOf(one).Field(i); v.Kind() {
			case reflect.Float64:
				all = append(all, v.Float())
			case reflect.Int64:
				all = append(all, float64(v.Int()))
			}
		}
		switch {
		case len(all) == 0:
		case f.Kind() == reflect.Float64:
			f.SetFloat(median(all))
		default:
			f.SetInt(int64(median(all)))
		}
	}
	out.Requests, out.Errors = 0, 0
	for _, one := range s {
		out.Requests += one.Requests
		out.Errors += one.Errors
		if one.Error != "" {
			out.Error = one.Error
		}
	}
	return out
}

// conclude computes medians, ratios and what was expected.
func (r *results) conclude() {
	r.Took = time.Since(r.Begun).Round(time.Second).String()
	for _, sc := range r.scenarios {
		for _, a := range r.alternatives {
			if s := r.of(r.Samples, sc.name, a.Name); len(s) > 0 {
				r.Medians = append(r.Medians, medians(s))
			}
		}
		for _, f := range figures[sc.kind] {
			if v, ok := r.ratio(sc.name, f); ok {
				r.Ratios = append(r.Ratios, ratio{sc.name, f.name, v})
			}
		}
	}
	r.expect()
}

// figure is one that lazaret and Squid are compared in.
type figure struct {
	name string
	of   func(sample) float64
}

var (
	rateFigure    = figure{"requests/s", func(s sample) float64 { return s.Rate }}
	medianFigure  = figure{"median latency", func(s sample) float64 { return s.P50 }}
	p99Figure     = figure{"99% latency", func(s sample) float64 { return s.P99 }}
	gatewayFigure = figure{"CPU gateway", func(s sample) float64 { return s.GatewayCPU }}
	allFigure     = figure{"CPU with clamd", func(s sample) float64 { return s.AllCPU }}
	firstFigure   = figure{"first byte", func(s sample) float64 { return s.First }}
	totalFigure   = figure{"whole download", func(s sample) float64 { return s.Total }}
	growthFigure  = figure{"peak growth", func(s sample) float64 { return float64(s.PeakGrowth) }}
	idleFigure    = figure{"memory a connection", func(s sample) float64 { return s.PerConnection }}
)

var figures = map[string][]figure{
	kindRate:        {rateFigure, medianFigure, p99Figure, gatewayFigure, allFigure},
	kindVisit:       {medianFigure, p99Figure, gatewayFigure, allFigure},
	kindDownload:    {firstFigure, totalFigure, gatewayFigure, allFigure},
	kindMemory:      {growthFigure, totalFigure, gatewayFigure, allFigure},
	kindConnections: {idleFigure},
	kindCrowd:       {totalFigure, growthFigure, gatewayFigure, allFigure},
}

// ratio returns lazaret's figure divided by Squid's: the median over the rounds, in each of which they ran close together.
func (r *results) ratio(scenario string, f figure) (float64, bool) {
	var v []float64
	for _, l := range r.of(r.Samples, scenario, peers.Lazaret) {
		for _, s := range r.of(r.Samples, scenario, peers.SquidScan) {
			if d := f.of(s); s.Round == l.Round && d > 0 {
				v = append(v, f.of(l)/d)
			}
		}
	}
	if len(v) == 0 {
		return 0, false
	}
	return median(v), true
}

// expect compares with what was asked for: see README.md.
func (r *results) expect() {
	add := func(scenario, what, got string, met bool) {
		r.Expectations = append(r.Expectations, expectation{scenario + ": " + what, got, met})
	}
	for _, sc := range r.scenarios {
		if sc.kind == kindRate && sc.name != connectScenario {
			if v, ok := r.ratio(sc.name, gatewayFigure); ok {
				add(sc.name, "at most half of Squid's CPU a request (clamd apart)", times(v), v <= 0.5)
			}
			if v, ok := r.ratio(sc.name, rateFigure); ok && sc.unique {
				add(sc.name, "more requests a second than Squid", times(v), v > 1)
			} else if ok {
				add(sc.name, "at least five times Squid's requests a second", times(v), v >= 5)
			}
		}
		mine := r.of(r.Medians, sc.name, peers.Lazaret)
		if len(mine) == 0 {
			continue
		}
		switch sc.kind {
		case kindConnections:
			v := mine[0].PerConnection
			add(sc.name, "under 40 KiB an idle connection", bytesText(int64(v)), v < 40<<10)
		case kindMemory:
			v := mine[0].PeakGrowth
			add(sc.name, "at most 64 MiB for a download of 1 GiB", bytesText(v), v <= 64<<20)
		}
	}
}

func (r *results) save(file string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// verdict returns an error when the results are void.
func (r *results) verdict() error {
	var errs []error
	for _, k := range r.Checks {
		errs = append(errs, k.void())
	}
	return errors.Join(errs...)
}
