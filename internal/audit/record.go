// Package audit keeps the records: one structured line for every decision, and the metrics that sum them up. A record
// never has a body, a cookie or a password in it.
package audit

import (
	"time"

	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// Event is what a record is about.
type Event string

// The events.
const (
	Object Event = "object" // something was judged
	Exempt Event = "exempt" // something passed that cannot be held or opened: a tunnel, an upgrade, an event stream
	Refuse Event = "refuse" // something was turned away before there was an object
)

// Record is one decision.
type Record struct {
	Time       time.Time
	Event      Event
	Kind       string // Exempt: what passed, "tunnel", "upgrade"; Refuse: why, a notice.Kind. A fixed word: metrics count by it
	Reference  string
	Facts      policy.Facts
	Verdict    scan.Verdict
	Decision   policy.Decision
	Size       int64
	SHA256     string        // lower-case hexadecimal; empty: not known
	Cached     bool          // the verdict was remembered
	Receive    time.Duration // from the first byte asked for to the last one held
	Scan       time.Duration // the engines' time
	Quarantine string        // the reference under which the original is kept; empty: it is not
	Detail     string        // for the operator: what exactly happened
}

// Sink takes records. It does not block for long and does not fail.
type Sink interface {
	Record(r Record)
}
