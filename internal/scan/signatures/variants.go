package signatures

import "strings"

// group reads (…) or !(…): a class of bytes, or alternatives.
func (p *bodyParser) group() error {
	negated := p.src[p.at] == '!'
	if negated {
		p.at++
	}
	if p.at >= len(p.src) || p.src[p.at] != '(' {
		return errBracket
	}
	if p.at+2 < len(p.src) && p.src[p.at+2] == ')' {
		if k, ok := guardKinds[p.src[p.at+1]]; ok {
			p.at += 3
			p.class(guard{kind: k, negated: negated})
			return nil
		}
	}
	p.at++
	list, err := p.alternatives(0)
	if err != nil {
		return err
	}
	return p.addVariants(list, negated)
}

var guardKinds = map[byte]guardKind{'B': onBoundary, 'L': onLine, 'W': onNonLetter}

// class adds (B), (L) or (W): at an end of the part a condition on what is beside it, inside a byte of the part.
func (p *bodyParser) class(g guard) {
	nothingBefore := p.span == 0 && len(p.elems) == 0 && p.edges.left.kind == noGuard
	switch {
	case p.atPartEnd() || p.rightByteFollows():
		p.edges.right = g
	case nothingBefore:
		p.edges.left = g
	case g.kind == onLine && g.negated:
		p.addElement(element{kind: isNotLine}, 1)
	case g.kind == onLine:
		p.addElement(element{kind: isAny, variants: []masked{{value: []byte("\n")}, {value: []byte("\r\n")}}}, 2)
	default:
		s := nonLetters
		if g.kind == onBoundary {
			s = boundaryWithin
		}
		if g.negated {
			s = s.inverse()
		}
		p.addElement(element{kind: isSet, set: &s}, 1)
	}
}

// rightByteFollows says whether [n-m]aa and the end of the part follow, which do not belong to the part.
func (p *bodyParser) rightByteFollows() bool {
	rest := p.src[p.at:]
	if !strings.HasPrefix(rest, "[") {
		return false
	}
	end := strings.IndexByte(rest, ']')
	if end < 0 || len(rest) < end+3 {
		return false
	}
	return endsPart(rest[end+3:])
}

// variant is one expansion of alternatives while it is being read.
type variant struct{ value, mask []byte }

// alternatives reads a|b|c) and returns what they expand to; nested ones are multiplied out.
func (p *bodyParser) alternatives(depth int) ([]variant, error) {
	if depth > maxNesting {
		return nil, errTooMany
	}
	var done []variant
	current := []variant{{}}
	for p.at < len(p.src) {
		switch p.src[p.at] {
		case '|', ')':
			done = append(done, current...)
			if len(done) > maxVariants {
				return nil, errTooMany
			}
			p.at++
			if p.src[p.at-1] == ')' {
				return done, nil
			}
			current = []variant{{}}
		case '(':
			p.at++
			inner, err := p.alternatives(depth + 1)
			if err != nil {
				return nil, err
			}
			if current, err = p.multiply(current, inner); err != nil {
				return nil, err
			}
		case '{':
			n, err := p.skipInside()
			if err != nil {
				return nil, err
			}
			if current, err = p.multiply(current, []variant{{make([]byte, n), make([]byte, n)}}); err != nil {
				return nil, err
			}
		case '!':
			return nil, errNegated
		case '*', '[':
			return nil, errGapInside
		default:
			v, m, err := p.pair()
			if err != nil {
				return nil, err
			}
			for i := range current {
				current[i].value, current[i].mask = append(current[i].value, v), append(current[i].mask, m)
			}
			if p.expanded += len(current); p.expanded > maxExpanded {
				return nil, errTooMany
			}
		}
	}
	return nil, errBracket
}

// multiply returns every one of a followed by every one of b.
func (p *bodyParser) multiply(a, b []variant) ([]variant, error) {
	if len(a)*len(b) > maxVariants {
		return nil, errTooMany
	}
	out := make([]variant, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			if p.expanded += len(x.value) + len(y.value); p.expanded > maxExpanded {
				return nil, errTooMany
			}
			out = append(out, variant{
				value: append(append([]byte(nil), x.value...), y.value...),
				mask:  append(append([]byte(nil), x.mask...), y.mask...),
			})
		}
	}
	return out, nil
}

// skipInside reads {n} inside of alternatives, where only a short one is allowed.
func (p *bodyParser) skipInside() (int, error) {
	end := strings.IndexByte(p.src[p.at:], '}')
	if end < 0 {
		return 0, errBracket
	}
	from, to, err := parseGap(p.src[p.at+1 : p.at+end])
	p.at += end + 1
	if err != nil {
		return 0, err
	}
	if from != to || from > maxShortGap {
		return 0, errGapInside
	}
	return int(from), nil
}

// addVariants adds alternatives to the part.
func (p *bodyParser) addVariants(list []variant, negated bool) error {
	longest, plain, single := 0, true, true
	for _, v := range list {
		longest = max(longest, len(v.value))
		plain = plain && len(v.value) == len(list[0].value)
		single = single && len(v.value) == 1
		for _, m := range v.mask {
			plain = plain && m == 0xFF
		}
	}
	switch {
	case longest == 0:
		return errEmpty
	case negated && !plain:
		return errNegated
	case single && plain:
		var s byteSet
		for _, v := range list {
			s.add(v.value[0])
		}
		if negated {
			s = s.inverse()
		}
		p.addElement(element{kind: isSet, set: &s}, 1)
		return nil
	}
	e := element{kind: isAny}
	if negated {
		e.kind = isNone
	}
	for _, v := range list {
		e.variants = append(e.variants, newMasked(v.value, v.mask))
	}
	p.addElement(e, longest)
	return nil
}
