package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

func bytesText(n int64) string {
	v, sign := float64(n), ""
	if v < 0 {
		v, sign = -v, "-"
	}
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if v < 1024 {
			return sign + short(v) + " " + unit
		}
		v /= 1024
	}
	return sign + short(v) + " GiB"
}

// short writes v with three digits that count, and whole from 100 on.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	case v >= 0.995:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

func times(v float64) string { return "×" + short(v) }

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }

// column is one of a table.
type column struct {
	head string
	of   func(sample) string
}

func number(head string, of func(sample) float64) column {
	return column{head, func(s sample) string { return short(of(s)) }}
}

func memoryColumn(head string, of func(sample) int64) column {
	return column{head, func(s sample) string { return bytesText(of(s)) }}
}

var (
	cpuColumns = []column{
		number("CPU ms: gateway", func(s sample) float64 { return s.GatewayCPU }),
		number("clamd", func(s sample) float64 { return s.ClamdCPU }),
		number("both", func(s sample) float64 { return s.AllCPU }),
	}
	commonColumns = []column{
		memoryColumn("memory", func(s sample) int64 { return s.Memory }),
		{"errors", func(s sample) string { return fmt.Sprint(s.Errors) }},
		{"others", func(s sample) string { return percent(s.Others + s.Stolen) }},
	}
	latencyColumns = []column{
		number("p50 ms", func(s sample) float64 { return s.P50 }),
		number("p95 ms", func(s sample) float64 { return s.P95 }),
		number("p99 ms", func(s sample) float64 { return s.P99 }),
	}
	downloadColumns = []column{
		number("first byte ms", func(s sample) float64 { return s.First }),
		number("total ms", func(s sample) float64 { return s.Total }),
	}
)

// columns are those of a kind of scenario.
var columns = map[string][]column{
	kindRate: slices.Concat([]column{number("req/s", func(s sample) float64 { return s.Rate })},
		latencyColumns, cpuColumns, commonColumns),
	kindVisit:    slices.Concat(latencyColumns, cpuColumns, commonColumns),
	kindDownload: slices.Concat(downloadColumns, cpuColumns, commonColumns),
	kindMemory: slices.Concat([]column{
		memoryColumn("peak growth", func(s sample) int64 { return s.PeakGrowth }),
		memoryColumn("peak", func(s sample) int64 { return s.Peak }),
		memoryColumn("tmpfs, memfd", func(s sample) int64 { return s.ShmemGrowth }),
	}, downloadColumns, cpuColumns, commonColumns),
	kindCrowd: slices.Concat([]column{
		{"arrived", func(s sample) string { return fmt.Sprint(s.Requests) }},
		memoryColumn("disk", func(s sample) int64 { return s.Disk }),
		memoryColumn("peak growth", func(s sample) int64 { return s.PeakGrowth }),
		number("all of them ms", func(s sample) float64 { return s.Total }),
	}, cpuColumns, commonColumns),
	kindConnections: {
		memoryColumn("a connection", func(s sample) int64 { return int64(s.PerConnection) }),
		{"connections", func(s sample) string { return fmt.Sprint(s.Requests) }},
		memoryColumn("memory", func(s sample) int64 { return s.Memory }),
		{"errors", func(s sample) string { return fmt.Sprint(s.Errors) }},
	},
}

// print writes everything for people to read.
func (r *results) print(w io.Writer) {
	fmt.Fprintf(w, "Benchmark of %s, took %s\n", r.Begun.Format("2006-01-02 15:04:05 MST"), r.Took)
	for _, m := range []map[string]string{r.Machine, r.Options} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintf(w, "  %s: %s\n", k, m[k])
		}
	}
	fmt.Fprintln(w, "Alternatives:")
	for _, a := range r.alternatives {
		fmt.Fprintf(w, "  %-11s %s\n", a.Name, a.Title)
	}
	for _, sc := range r.scenarios {
		r.printScenario(w, sc)
	}
	r.printChecks(w)
	r.printRatios(w)
	if len(r.Expectations) > 0 {
		fmt.Fprintln(w, "\nExpected of lazaret")
		table(w, func(row func(...string)) {
			for _, e := range r.Expectations {
				met := "NOT MET"
				if e.Met {
					met = "met"
				}
				row(e.What, e.Got, met)
			}
		})
	}
}

// table aligns rows. Its first column is aligned to the left.
func table(w io.Writer, fill func(row func(cells ...string))) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fill(func(cells ...string) { fmt.Fprintf(tw, "  %s\n", strings.Join(cells, "\t")) })
	_ = tw.Flush() // a closed standard output is not worth an error
}

func (r *results) printScenario(w io.Writer, sc scenario) {
	fmt.Fprintf(w, "\n%s: %s\n", sc.name, sc.title)
	var notes []string
	table(w, func(row func(...string)) {
		head := []string{""}
		for _, c := range columns[sc.kind] {
			head = append(head, c.head)
		}
		row(head...)
		for _, a := range r.alternatives {
			failed, how := r.failures(sc.name, a.Name)
			m := r.of(r.Medians, sc.name, a.Name)
			if failed > 0 {
				notes = append(notes, fmt.Sprintf("%s failed %d times: %s", a.Name, failed, how))
			}
			if len(m) == 0 {
				if failed > 0 {
					row(a.Name, "failed")
				}
				continue
			}
			cells := []string{a.Name}
			for _, c := range columns[sc.kind] {
				cells = append(cells, c.of(m[0]))
			}
			row(cells...)
			if m[0].Errors > 0 {
				notes = append(notes, fmt.Sprintf("%s: %d errors and %d good answers; one error: %s", a.Name, m[0].Errors, m[0].Requests, m[0].Error))
			}
		}
	})
	for _, n := range notes {
		fmt.Fprintf(w, "  ! %s\n", n)
	}
}

// printChecks shows what was seen alike in one row.
func (r *results) printChecks(w io.Writer) {
	fmt.Fprintln(w, "\nWhat became of EICAR")
	count := make(map[check]int)
	var kinds []check
	for _, k := range r.Checks {
		if k.When != checkLarge {
			k.When = ""
		}
		if count[k]++; count[k] == 1 {
			kinds = append(kinds, k)
		}
	}
	table(w, func(row func(...string)) {
		for _, k := range kinds {
			what := "stopped"
			if k.Arrived {
				what = "arrived"
			}
			if k.Arrived != k.Expected {
				what += " (WRONG)"
			}
			row(k.Alternative, k.What, fmt.Sprintf("%s, %d times", what, count[k]), k.Answer)
		}
	})
}

func (r *results) printRatios(w io.Writer) {
	if len(r.Ratios) == 0 {
		return
	}
	fmt.Fprintln(w, "\nlazaret : squid-scan (for requests/s more is better, for everything else less)")
	var heads []string
	for _, v := range r.Ratios {
		if !slices.Contains(heads, v.Figure) {
			heads = append(heads, v.Figure)
		}
	}
	table(w, func(row func(...string)) {
		row(append([]string{""}, heads...)...)
		for _, sc := range r.scenarios {
			cells := make([]string, len(heads))
			some := false
			for _, v := range r.Ratios {
				if v.Scenario == sc.name {
					cells[slices.Index(heads, v.Figure)], some = times(v.Value), true
				}
			}
			if some {
				row(append([]string{sc.name}, cells...)...)
			}
		}
	})
}
