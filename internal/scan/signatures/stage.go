package signatures

// stage is an index of parts that are looked for together.
type stage struct {
	tiers  [tiers]*tier
	threes *threes // nil: there are no grams of three bytes or more that are looked for at every byte
	pairs  *pairs  // nil: there are no grams of two
}

// The tiers of the index. A run of 9 fixed bytes has a gram of 6 at every fourth byte, however it lies in the text. What has
// no such run, or none with rare grams, is known by one gram of 6 or of 3, and failing that by a pair, looked for at every byte:
// to look at every second byte would ask for two grams in a row, of which the commoner one counts.
const (
	longTier = iota
	sixTier
	midTier
	shortTier
	tiers // their number
)

const (
	longGram  = 6
	longStep  = 4
	midGram   = 3
	shortGram = 2
)

// tierKinds says of each tier how long its grams are, and at every which byte they are looked for. The shorter the gram, the
// more often it is where the part is not: it must be rarer by the handicap to be preferred.
var tierKinds = [tiers]struct {
	gram, step int
	handicap   int32
}{
	{longGram, longStep, 0},
	{longGram, 1, 2 * costScale},
	{midGram, 1, 4 * costScale},
	{shortGram, 1, 1 << 20},
}

// anchors are those of a stage, by their tiers.
type anchors [tiers][]anchor

// newStage makes the index of the parts whose anchors are given.
func (db *database) newStage(all *anchors) stage {
	var s stage
	db.addTier(&s, longTier, all[longTier])
	if len(all[sixTier])+len(all[midTier]) > 0 {
		s.threes = &threes{}
		db.addTier(&s, sixTier, all[sixTier])
		db.addTier(&s, midTier, all[midTier])
	}
	if len(all[shortTier]) > 0 {
		s.pairs = &pairs{}
		db.addTier(&s, shortTier, all[shortTier])
	}
	return s
}

// addTier makes a tier of the parts whose anchors are given. A part is known by as many grams, one byte apart, as there are
// bytes in a step, so that one of them stands at a place that is looked at.
func (db *database) addTier(s *stage, tier int, anchors []anchor) {
	if len(anchors) == 0 {
		return
	}
	gram, step := tierKinds[tier].gram, tierKinds[tier].step
	all := make([]keyed, 0, step*len(anchors))
	for _, a := range anchors {
		p := &db.parts[a.part]
		p.anchor = uint16(a.elem)
		m := &p.elems[a.elem].masked
		at := len(db.runs)
		db.runs = append(db.runs, m.value...)
		for k := range step {
			e := newKeyed(m, a.off+k, gram)
			e.part, e.run, e.size, e.masked = a.part, uint32(at), uint16(len(m.value)), m.mask != nil
			switch tier {
			case sixTier, midTier:
				s.threes.add(e.gram)
			case shortTier:
				s.pairs.add(&e)
			}
			all = append(all, e)
		}
	}
	s.tiers[tier] = newTier(gram, all)
}

// finds is what a pass found of a stage's grams in one block.
type finds [tiers][]survivor

// find finds the survivors from <= i < to of the window.
func (p *pass) find(s *stage, from, to int, out *finds) {
	for i := range out {
		out[i] = out[i][:0]
	}
	if t := s.tiers[longTier]; t != nil {
		p.lookUp(t, from, &p.hits, t.filter(p.text, from, to, &p.hits), &out[longTier])
	}
	if s.threes != nil {
		n := s.threes.filter(p.text, from, to, &p.hits)
		p.lookCloser(s.tiers[sixTier], from, n, &out[sixTier])
		p.lookCloser(s.tiers[midTier], from, n, &out[midTier])
	}
	if s.pairs != nil {
		p.lookCloser(s.tiers[shortTier], from, s.pairs.filter(p.text, from, to, &p.hits), &out[shortTier])
	}
}

// lookCloser finds the survivors of a tier among the n hits of a filter that knows less of its grams than the tier.
func (p *pass) lookCloser(t *tier, from, n int, out *[]survivor) {
	if t != nil {
		p.lookUp(t, from, &p.narrowed, t.narrow(p.text, from, &p.hits, n, &p.narrowed), out)
	}
}

// lookUp finds the survivors of a tier among n hits of the block that begins at from.
func (p *pass) lookUp(t *tier, from int, h *hits, n int, out *[]survivor) {
	if n == 0 || p.work < 0 {
		return
	}
	var list []survivor
	list, p.work = t.lookUp(p.text, from, h, n, *out, p.work)
	// What the anchor's bytes are not at is left out here, where one comparison need not wait for another.
	kept := list[:0]
	for _, s := range list {
		e := s.entry
		p.work -= costRun + int64(e.size)/8
		at := from + int(s.at) - int(e.off)
		if at < 0 || at+int(e.size) > len(p.text) {
			continue
		}
		if e.masked || string(p.text[at:at+int(e.size)]) == string(p.db.runs[e.run:e.run+uint32(e.size)]) {
			kept = append(kept, s)
		}
	}
	*out = kept
}

// earliest returns the list that has the survivor which comes first in the text, or nil.
func (f *finds) earliest() *[]survivor {
	var next *[]survivor
	for i := range f {
		if list := &f[i]; len(*list) > 0 && (next == nil || (*list)[0].at < (*next)[0].at) {
			next = list
		}
	}
	return next
}

// skip drops what lies up to the place at.
func (f *finds) skip(at int32) {
	for i := range f {
		for len(f[i]) > 0 && f[i][0].at <= at {
			f[i] = f[i][1:]
		}
	}
}
