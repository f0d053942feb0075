//go:build corpus

// Each construct is made twice, around a text with the EICAR test file in it and around a harmless one of the same length.
// Of a valid construct the harmless one must arrive byte for byte; of no construct may the other one arrive in a form that
// any of the clients can read.
package corpus

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"lazaret/internal/scan"
	"lazaret/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Clean()
	os.Exit(code)
}

// made is one answer.
type made struct {
	raw  string   // all its bytes; "" where head and body say it, which then go over HTTP/2 too
	head []string // header lines
	body []byte
	want []byte // the content that a client is to end up with
}

// construct is a way to write an answer.
type construct struct {
	family, name string
	valid        bool // a standards-abiding server may send it: the harmless one must arrive
	make         func(content []byte) made
}

// sample is a construct around one content.
type sample struct {
	construct
	made
	infected bool
}

// payload returns a text with the virus in it, and a harmless one of the same length.
func payload() (infected, clean []byte) {
	const before = "This is the beginning of a text that is neither short nor long.\n"
	const after = "\nAnd this is its end; it has some more words than it needs, to be worth a compression, words, words.\n"
	harmless := strings.Repeat("no virus here. ", 10)[:len(scan.EICAR())]
	return []byte(before + string(scan.EICAR()) + after), []byte(before + harmless + after)
}

func samples() []sample {
	infected, clean := payload()
	var all []sample
	for _, c := range slices.Concat(lengths(), chunks(), heads(), statuses(), codings(), oddCodings(), undeclared(), documents(), charsets(), types(), partial()) {
		all = append(all, sample{construct: c, made: c.make(infected), infected: true}, sample{construct: c, made: c.make(clean)})
	}
	return all
}

// outcome is what a client made of an answer.
type outcome struct {
	status string // "" where there was no answer
	page   bool   // the gateway's own
	broken bool   // the client says that it is not whole
	body   []byte
	raw    []byte // everything that came, where the client knows
}

// client is one way to fetch.
type client struct {
	name  string
	h2    bool // only for what goes over HTTP/2
	any   bool // delivers a coding undone or not
	fetch func(t *testing.T, path string) outcome
}

// tally counts the samples of a family over all clients.
type tally struct{ cases, fetches, delivered, refused, evaded, wrongly int }

func TestCorpusOfAnswers(t *testing.T) {
	all := samples()
	if len(all) < 200 {
		t.Fatalf("the corpus has only %d answers", len(all))
	}
	o := startOrigins(t, all)
	g := harness.Start(t, nil, o.ca.File)
	cs := clients(t, g, o)
	var mu sync.Mutex
	report := map[string]*tally{}
	var families []string
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, s := range all {
		f := report[s.family]
		if f == nil {
			f = &tally{}
			report[s.family] = f
			families = append(families, s.family)
		}
		f.cases++
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for _, c := range cs {
				if c.h2 && s.raw != "" {
					continue
				}
				out := c.fetch(t, fmt.Sprintf("/%d", i))
				mu.Lock()
				f.judge(t, &s, &c, out)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	report["all"] = &tally{}
	for _, name := range families {
		report["all"].add(report[name])
	}
	t.Logf("%-26s %6s %8s %10s %8s %7s %16s", "family", "cases", "fetches", "delivered", "refused", "evaded", "wrongly refused")
	for _, name := range append(families, "all") {
		f := report[name]
		t.Logf("%-26s %6d %8d %10d %8d %7d %16d", name, f.cases, f.fetches, f.delivered, f.refused, f.evaded, f.wrongly)
		if f.fetches < 4*f.cases {
			t.Errorf("%s was hardly fetched", name)
		}
	}
	if report["all"].delivered == 0 || report["all"].refused == 0 {
		t.Error("the corpus saw nothing")
	}
}

func (f *tally) add(g *tally) {
	f.cases += g.cases
	f.fetches += g.fetches
	f.delivered += g.delivered
	f.refused += g.refused
	f.evaded += g.evaded
	f.wrongly += g.wrongly
}

// judge counts one fetch, and reports what must not be.
func (f *tally) judge(t *testing.T, s *sample, c *client, out outcome) {
	f.fetches++
	refused := out.page || out.status == "" || out.broken
	if refused {
		f.refused++
	} else {
		f.delivered++
	}
	kind := "harmless"
	if s.infected {
		kind = "infected"
	}
	name := fmt.Sprintf("%s/%s (%s) by %s", s.family, s.name, kind, c.name)
	if how := readable(append(slices.Clone(out.raw), out.body...)); how != "" {
		f.evaded++
		t.Errorf("%s: EVADED, read by: %s; status %s\n%.600q", name, how, out.status, append(out.raw, out.body...))
	}
	if !s.valid || s.infected {
		if s.valid && !refused && len(s.want) > 0 {
			t.Errorf("%s: not refused, status %s, body %.300q", name, out.status, out.body)
		}
		return
	}
	if refused || !bytes.Equal(out.body, s.want) && (!c.any || !bytes.Equal(out.body, s.body)) {
		f.wrongly++
		t.Errorf("%s: WRONGLY REFUSED or changed: status %q, broken %v, body %.300q", name, out.status, out.broken, out.body)
	}
}
