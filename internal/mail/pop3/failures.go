package pop3

// maxFailures is of how many messages a session knows that they could not be given.
const maxFailures = 10_000

// failures are the messages that could not be given in a session, with their references. A program that deletes what it believes
// to have fetched must not lose them.
type failures struct {
	refs map[int]string
	more string // the reference of one of those that found no place any more; empty: there are none
}

// add notes a message.
func (f *failures) add(number int, reference string) {
	if f.refs == nil {
		f.refs = map[int]string{}
	}
	if _, known := f.refs[number]; !known && len(f.refs) >= maxFailures {
		f.more = reference
		return
	}
	f.refs[number] = reference
}

// remove notes that a message was given after all.
func (f *failures) remove(number int) { delete(f.refs, number) }

// of says whether a message could not be given, and the reference. Where there are too many to be told apart, it says so of each.
func (f *failures) of(number int) (reference string, failed bool) {
	if ref, ok := f.refs[number]; ok {
		return ref, true
	}
	return f.more, f.more != ""
}
