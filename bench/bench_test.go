package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lazaret/bench/internal/peers"
)

func TestChoose(t *testing.T) {
	for list, want := range map[string]string{
		"direct":          "direct",
		"squid":           "squid", // exactly this one, not squid-scan
		"squid-":          "squid-scan",
		"tunnel, direct":  "direct,tunnel",
		"all":             "direct,lazaret,tunnel,squid-scan,squid",
		"lazaret,lazaret": "lazaret",
	} {
		got, err := choose(peers.Alternatives, list, alternativeName)
		if err != nil || strings.ReplaceAll(names(got, alternativeName), ", ", ",") != want {
			t.Errorf("%q: %s, %v", list, names(got, alternativeName), err)
		}
	}
	for _, list := range []string{"", "mitmproxy", "direct,,squid"} {
		if got, err := choose(peers.Alternatives, list, alternativeName); err == nil {
			t.Errorf("%q was taken as %s", list, names(got, alternativeName))
		}
	}
	if got, err := choose(scenarios, "1k-", scenarioName); err != nil || len(got) != 4 {
		t.Errorf("1k-: %s, %v", names(got, scenarioName), err)
	}
}

func TestParseRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "0"}, {"-duration", "0s"}, {"-idle", "-1"}, {"-alternatives", "x"}, {"-scenarios", "x"}, {"extra"}, {"-db-bodies", "-1"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}

func TestMedians(t *testing.T) {
	m := medians([]sample{
		{Rate: 3, P50: 1, Memory: 10, Requests: 5, Round: 0},
		{Rate: 1, P50: 9, Memory: 30, Requests: 6, Round: 1, Errors: 2, Error: "x"},
		{Rate: 2, P50: 2, Memory: 20, Requests: 7, Round: 2},
	})
	if m.Rate != 2 || m.P50 != 2 || m.Memory != 20 || m.Requests != 18 || m.Errors != 2 || m.Error != "x" || m.Round != -1 {
		t.Errorf("got %+v", m)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of four: %v", got)
	}
}

func TestSearchAcrossWrites(t *testing.T) {
	text := []byte("before needle after")
	for step := 1; step <= len(text); step++ {
		s := search{want: []byte("needle")}
		for rest := text; len(rest) > 0; {
			n, _ := s.Write(rest[:min(step, len(rest))])
			rest = rest[n:]
		}
		if !s.found || s.size != int64(len(text)) {
			t.Errorf("in steps of %d: found %v, %d bytes", step, s.found, s.size)
		}
	}
	s := search{want: []byte("needle")}
	_, _ = s.Write([]byte("need"))
	_, _ = s.Write([]byte("-le"))
	if s.found {
		t.Error("found what is not there")
	}
}

// resultsOf makes results of two rounds in which lazaret is better or worse than Squid by known factors.
func resultsOf(t *testing.T) *results {
	t.Helper()
	all, err := choose(scenarios, "idle,memory-1g,1k-repeat-1,1k-unique-1,100m-fast", scenarioName)
	if err != nil {
		t.Fatal(err)
	}
	r := newResults(options{scenarios: all, alternatives: peers.Alternatives, lazaret: "/nonexistent"})
	add := func(scenario, alternative string, round int, s sample) {
		s.Scenario, s.Alternative, s.Round = scenario, alternative, round
		r.Samples = append(r.Samples, s)
	}
	for round := range 2 {
		slow := float64(1 + round) // the whole machine is slower in the second round
		add("1k-repeat-1", peers.Lazaret, round, sample{Requests: 10, Rate: 600 / slow, GatewayCPU: 1 * slow, AllCPU: 2 * slow})
		add("1k-repeat-1", peers.SquidScan, round, sample{Requests: 10, Rate: 100 / slow, GatewayCPU: 4 * slow, AllCPU: 5 * slow})
		add("1k-unique-1", peers.Lazaret, round, sample{Requests: 10, Rate: 90 / slow, GatewayCPU: 3 * slow})
		add("1k-unique-1", peers.SquidScan, round, sample{Requests: 10, Rate: 100 / slow, GatewayCPU: 4 * slow})
		add("100m-fast", peers.SquidScan, round, sample{Failed: true, Errors: 1, Error: "came to a standstill"})
		add("100m-fast", peers.Lazaret, round, sample{Requests: 1, First: 5, Total: 9})
	}
	add("idle", peers.Lazaret, 0, sample{Requests: 9, PerConnection: 39 << 10})
	add("memory-1g", peers.Lazaret, 0, sample{Requests: 1, PeakGrowth: 65 << 20})
	r.conclude()
	return r
}

func TestRatiosAndExpectations(t *testing.T) {
	r := resultsOf(t)
	got := map[string]float64{}
	for _, v := range r.Ratios {
		got[v.Scenario+" "+v.Figure] = v.Value
	}
	// Ratios are taken round by round: that the machine was slower in one of them must not show.
	for k, want := range map[string]float64{"1k-repeat-1 requests/s": 6, "1k-repeat-1 CPU gateway": 0.25, "1k-unique-1 requests/s": 0.9} {
		if got[k] != want {
			t.Errorf("%s: %v instead of %v", k, got[k], want)
		}
	}
	met := map[string]bool{}
	for _, e := range r.Expectations {
		met[e.What] = e.Met
	}
	want := map[string]bool{
		"1k-repeat-1: at most half of Squid's CPU a request (clamd apart)": true,
		"1k-repeat-1: at least five times Squid's requests a second":       true,
		"1k-unique-1: at most half of Squid's CPU a request (clamd apart)": false,
		"1k-unique-1: more requests a second than Squid":                   false,
		"idle: under 40 KiB an idle connection":                            true,
		"memory-1g: at most 64 MiB for a download of 1 GiB":                false,
	}
	for what, ok := range want {
		if v, there := met[what]; !there || v != ok {
			t.Errorf("%s: %v, there: %v", what, v, there)
		}
	}
	if len(met) != len(want) {
		t.Errorf("%d expectations instead of %d", len(met), len(want))
	}
}

func TestPrintAndSave(t *testing.T) {
	r := resultsOf(t)
	r.Checks = []check{{Alternative: peers.Lazaret, What: "EICAR", When: "at the start", Arrived: true}}
	var b bytes.Buffer
	r.print(&b)
	for _, want := range []string{"1k-repeat-1: ", "NOT MET", "×6", "squid-scan failed 2 times: came to a standstill", "arrived (WRONG), 1 times", "65 MiB"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	file := filepath.Join(t.TempDir(), "r.json")
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back results
	if err := json.Unmarshal(raw, &back); err != nil || len(back.Samples) != len(r.Samples) || len(back.Medians) == 0 {
		t.Errorf("read back: %v, %d samples, %d medians", err, len(back.Samples), len(back.Medians))
	}
	if r.verdict() == nil {
		t.Error("EICAR arrived through lazaret, and the results are not void")
	}
}

func TestVoid(t *testing.T) {
	for _, c := range []struct {
		k    check
		void bool
	}{
		{check{Alternative: peers.Lazaret, Arrived: false}, false},
		{check{Alternative: peers.Lazaret, Arrived: true}, true},
		{check{Alternative: peers.SquidScan, Arrived: true}, true},
		{check{Alternative: peers.SquidScan, Arrived: true, When: checkLarge}, false},
		{check{Alternative: peers.Lazaret, Arrived: true, When: checkLarge}, true},
		{check{Alternative: peers.Direct, Arrived: true, Expected: true}, false},
		{check{Alternative: peers.Direct, Arrived: false, Expected: true}, true},
	} {
		if err := c.k.void(); (err != nil) != c.void {
			t.Errorf("%+v: %v", c.k, err)
		}
	}
}

func TestTexts(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 60 << 10: "60 KiB", 100 << 20: "100 MiB", 1 << 30: "1 GiB", -2048: "-2 KiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q instead of %q", n, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0", 0.0421: "0.042", 1.5: "1.5", 2: "2", 12.34: "12.3", 99.96: "100", 9.999: "10", 1234.5: "1234"} {
		if got := short(v); got != want {
			t.Errorf("%v: %q instead of %q", v, got, want)
		}
	}
}
