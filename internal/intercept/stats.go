package intercept

import "sync/atomic"

// counters are what is counted. The maps have every key from the start, and are not written to.
type counters struct {
	minted, exceptions, resumed atomic.Int64
	decisions                   map[decisionKey]*atomic.Int64
	faults                      map[FaultKind]*atomic.Int64
}

type decisionKey struct {
	mode Mode
	rule Rule
}

func (c *counters) init() {
	c.decisions, c.faults = map[decisionKey]*atomic.Int64{}, map[FaultKind]*atomic.Int64{}
	for r, modes := range ruleModes {
		for _, m := range modes {
			c.decisions[decisionKey{m, r}] = &atomic.Int64{}
		}
	}
	for _, k := range faultKinds {
		c.faults[k] = &atomic.Int64{}
	}
}

// decided counts a decision by what it is and why.
func (c *counters) decided(d Decision) {
	if n := c.decisions[decisionKey{d.Mode, d.Rule}]; n != nil {
		n.Add(1)
	}
}

// outcome counts how a connection went that Accept has ended with.
func (c *counters) outcome(s *Session, err error) {
	if s == nil || err != nil {
		return
	}
	c.decided(s.Decision)
	if s.Fault != nil {
		if n := c.faults[s.Fault.Kind]; n != nil {
			n.Add(1)
		}
	}
}

// DecisionCount is how many connections had one outcome for one sort of reason.
type DecisionCount struct {
	Mode  Mode
	Rule  Rule
	Count int64
}

// Stats are counts since the start, and sizes at the moment.
type Stats struct {
	Minted       int64 // leaf certificates signed
	Certificates int   // kept in memory
	Exceptions   int64 // faults that an exception let pass
	Resumed      int64 // sessions that both sides resumed
	Sessions     int   // kept in memory, to be resumed
	Learned      int   // hosts, or pairs of client and host, that are passed through for what they did

	// Decisions has an entry for each mode and rule, and Faults one for each kind, so that metrics know all of them from
	// the start. A connection counts once, by its last decision; one that failed before it was decided does not.
	Decisions []DecisionCount
	Faults    map[FaultKind]int64 // of origins, as they were shown to clients
	Zones     ZoneStats

	Revocation RevocationStats
}

// Stats returns the counts.
func (i *Interceptor) Stats() Stats {
	st := Stats{
		Minted: i.counts.minted.Load(), Certificates: i.leaves.cache.size(), Exceptions: i.counts.exceptions.Load(),
		Resumed: i.counts.resumed.Load(), Sessions: i.sessions.store.size(), Learned: i.learned.hosts.size(),
		Zones: i.zones.stats(), Revocation: i.crls.stats(), Faults: make(map[FaultKind]int64, len(faultKinds)),
	}
	for _, r := range rules {
		for _, m := range ruleModes[r] {
			st.Decisions = append(st.Decisions, DecisionCount{m, r, i.counts.decisions[decisionKey{m, r}].Load()})
		}
	}
	for k, n := range i.counts.faults {
		st.Faults[k] = n.Load()
	}
	return st
}
