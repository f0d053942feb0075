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
	"time"

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
	want []byte                // the content that a client is to end up with
	same func(got []byte) bool // whether got is the content, where it may be written anew; nil: it may not
	sent []byte                // the content in its coding, where raw has one: what a client gets that asked for none
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
	for _, c := range slices.Concat(lengths(), chunks(), heads(), statuses(), codings(), oddCodings(), undeclared(), documents(), charsets(), types(), partial(), streams()) {
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
	name   string
	always bool // takes part in each turn
	h2     bool // only for what goes over HTTP/2
	any    bool // delivers a coding undone or not
	fetch  func(t *testing.T, path string) outcome
}

// tally counts the samples of a family over all clients.
type tally struct{ cases, fetches, delivered, refused, evaded, wrongly, changed int }

// enough is how long the corpus may take before it says what it has; it takes one or two minutes where nothing is wrong and nothing else goes on.
const enough = 15 * time.Minute

// quick are settings under which an origin that stops does not hold the test up.
var quick = harness.Settings{"web": "reply_timeout = \"5s\"\nstall_timeout = \"5s\"\n"}

func TestCorpusOfAnswers(t *testing.T) {
	all := samples()
	if len(all) < 400 {
		t.Fatalf("the corpus has only %d answers", len(all))
	}
	o := startOrigins(t, all)
	g := harness.Start(t, quick, o.ca.File)
	cs := clients(t, g, o)
	r := newReport(t)
	late := time.Now().Add(enough)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range work {
				for _, c := range turn(cs, i/2) {
					if c.h2 && all[i].raw != "" || time.Now().After(late) {
						continue
					}
					out := c.fetch(t, fmt.Sprintf("/%d", i))
					how := out.readable() // it takes long: not under the report's lock
					r.add(t, all[i].family, func(f *tally) { f.judge(t, &all[i], &c, out, how) })
				}
			}
		})
	}
	for i := range all {
		r.add(t, all[i].family, func(f *tally) { f.cases++ })
		work <- i
	}
	close(work)
	wg.Wait()
	r.print(t, 4)
	if time.Now().After(late) {
		t.Errorf("the corpus was not done after %v", enough)
	}
}

// report is the tallies by family.
type report struct {
	mu       sync.Mutex
	families []string // in the order of their first sample
	tallies  map[string]*tally
}

func newReport(*testing.T) *report { return &report{tallies: map[string]*tally{}} }

// add has count change the tally of a family.
func (r *report) add(t *testing.T, family string, count func(*tally)) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.tallies[family]
	if f == nil {
		f = &tally{}
		r.tallies[family] = f
		r.families = append(r.families, family)
	}
	count(f)
}

// print logs the table. Each case has to have been fetched so many times at least, and not everything may have gone one way.
func (r *report) print(t *testing.T, fetches int) {
	t.Helper()
	sum := &tally{}
	for _, name := range r.families {
		sum.add(r.tallies[name])
	}
	r.tallies["all"] = sum
	var out strings.Builder
	fmt.Fprintf(&out, "%-26s %6s %8s %10s %8s %7s %16s %19s", "family", "cases", "fetches", "delivered", "refused", "evaded", "wrongly refused", "not byte-identical")
	for _, name := range append(r.families, "all") {
		f := r.tallies[name]
		fmt.Fprintf(&out, "\n%-26s %6d %8d %10d %8d %7d %16d %19d", name, f.cases, f.fetches, f.delivered, f.refused, f.evaded, f.wrongly, f.changed)
		if f.fetches < fetches*f.cases {
			t.Errorf("%s was hardly fetched", name)
		}
	}
	t.Log("\n" + out.String())
	if sum.delivered == 0 || sum.refused == 0 {
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
	f.changed += g.changed
}

// judge counts one fetch, and reports what must not be. how is what out.readable says.
func (f *tally) judge(t *testing.T, s *sample, c *client, out outcome, how string) {
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
	if how != "" {
		f.evaded++
		t.Errorf("%s: EVADED, read by: %s; status %s\n%.600q", name, how, out.status, append(out.raw, out.body...))
	}
	if !s.valid || s.infected {
		if s.valid && !refused && len(s.want) > 0 {
			t.Errorf("%s: not refused, status %s, body %.300q", name, out.status, out.body)
		}
		return
	}
	switch {
	case refused:
		f.wrongly++
		t.Errorf("%s: WRONGLY REFUSED: status %q, broken %v, body %.300q", name, out.status, out.broken, out.body)
	case s.same != nil && s.same(out.body):
	case !bytes.Equal(out.body, s.want) && (!c.any || !bytes.Equal(out.body, s.body) && !bytes.Equal(out.body, s.sent)):
		f.changed++
		t.Errorf("%s: NOT BYTE-IDENTICAL: status %q, body %.300q", name, out.status, out.body)
	}
}
