// Package scan says what an object, a scanner and a verdict are, and asks several scanners as one.
//
// The zero Verdict is Unscanned, which nothing lets through. A scanner that errs, stalls, panics or says something
// unknown has produced a Verdict too: Incomplete, with the Reason. Only an explicit "clean" is Clean.
package scan

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"lazaret/internal/spool"
)

// Outcome is what is known of an object.
type Outcome uint8

// The outcomes. Their order is not their rank: see Verdict.Merge.
const (
	Unscanned  Outcome = iota // zero value: nobody looked
	Incomplete                // error, timeout, limit reached, encrypted: with a Reason
	Clean                     // every required engine said so
	Infected                  // outranks Incomplete
)

var outcomeNames = [...]string{"unscanned", "incomplete", "clean", "infected"}

// String returns the outcome's name in lower case, "unscanned" for anything unknown.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return outcomeNames[Unscanned]
}

// MarshalJSON writes the name.
func (o Outcome) MarshalJSON() ([]byte, error) { return json.Marshal(o.String()) }

// Reason says why a verdict is Incomplete. It is a short fixed word: policy rules, metrics and logs use it.
type Reason string

// The reasons.
const (
	NoReason    Reason = ""
	Timeout     Reason = "timeout"      // the scanner did not answer in time
	Cancelled   Reason = "cancelled"    // nobody waits for the verdict any more
	Unavailable Reason = "scanner-down" // no scanner could be reached, or none is there
	EngineError Reason = "engine-error" // the scanner said that it failed, or crashed
	Unknown     Reason = "unknown-reply"
	TooLarge    Reason = "too-large" // above a limit of the spool, the unpacker or the engine
	TooDeep     Reason = "too-deep"  // nested more deeply than is looked into
	TooMany     Reason = "too-many"  // more members than are looked into
	Bomb        Reason = "bomb"      // expands beyond the ratio that is looked into
	Encrypted   Reason = "encrypted"
	Undecodable Reason = "undecodable" // broken, or in a form that cannot be read
	SpoolFull   Reason = "spool-full"
	Streamed    Reason = "streamed" // an answer without an end, which would flow on before anybody has seen the whole
)

// Reasons lists every reason that a Verdict can carry, for policy and documentation.
func Reasons() []Reason {
	return []Reason{
		Timeout, Cancelled, Unavailable, EngineError, Unknown, TooLarge, TooDeep, TooMany, Bomb, Encrypted,
		Undecodable, SpoolFull, Streamed,
	}
}

// Finding is one signature that matched.
type Finding struct {
	Engine    string `json:"engine"`
	Signature string `json:"signature"`
	Path      string `json:"path,omitempty"` // where inside, "mail.eml/part 2/a.zip/b.exe"; empty: the object itself
}

// Verdict is what one engine, or all of them together, found out.
type Verdict struct {
	Outcome  Outcome   `json:"outcome"`
	Reason   Reason    `json:"reason,omitempty"`   // set when Outcome is Incomplete
	Detail   string    `json:"detail,omitempty"`   // for the log: what exactly went wrong, and where
	Findings []Finding `json:"findings,omitempty"` // set when Outcome is Infected
}

// CleanVerdict returns the verdict of an engine that looked at everything and found nothing.
func CleanVerdict() Verdict { return Verdict{Outcome: Clean} }

// InfectedVerdict returns the verdict of an engine that found one signature.
func InfectedVerdict(engine, signature, path string) Verdict {
	return Verdict{Outcome: Infected, Findings: []Finding{{Engine: engine, Signature: signature, Path: path}}}
}

// IncompleteVerdict returns a verdict that lets nothing through by itself; detail is written like fmt.Sprintf.
func IncompleteVerdict(r Reason, detail string, args ...any) Verdict {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return Verdict{Outcome: Incomplete, Reason: r, Detail: detail}
}

// Merge returns what is known from v and w together: Infected outranks Incomplete, that outranks Unscanned, and Clean is
// left only where both are Clean. Of two reasons the first stays.
func (v Verdict) Merge(w Verdict) Verdict {
	switch {
	case v.Outcome == Infected && w.Outcome == Infected:
		v.Findings = append(append([]Finding(nil), v.Findings...), w.Findings...)
		return v
	case v.Outcome == Infected:
		return v
	case w.Outcome == Infected:
		return w
	case v.Outcome == Incomplete:
		return v
	case w.Outcome == Incomplete:
		return w
	case v.Outcome == Clean && w.Outcome == Clean:
		return v
	}
	return Verdict{}
}

// Object is something to be scanned.
type Object struct {
	// Body is the content. Whoever made the Object owns the reference, and keeps it until the scan has returned.
	Body *spool.Blob
	// Name is what the object is called, for logs and findings: a file name, never a path of this machine.
	Name string
	// Path says where inside a larger object this one was found; empty for the whole.
	Path string
	// Type is the media type that the sender declared, without parameters; it proves nothing.
	Type string
	// TransferEncoding is the Content-Transfer-Encoding (RFC 2045, 6) that the sender declared; Body still has it.
	TransferEncoding string
	// Piece says that Body may be a piece of a file, as applications cut files into messages. That the beginning or the end of an
	// archive is missing in it means nothing then.
	Piece bool
	// Took is how long it took to take the object in.
	Took time.Duration
	// Known is what was found out while the object was taken in: that it could not be decoded, or was too large. Body may
	// then be nil. The zero value says that nothing is known yet.
	Known Verdict
}

// Scanner is an engine that can judge an object.
//
// Scan returns a Verdict, or an error, which counts as Incomplete. It honours ctx: when that ends it returns soon. It
// never changes the object, and may be called by many goroutines at once.
type Scanner interface {
	// Name is the engine's name in findings and logs.
	Name() string
	Scan(ctx context.Context, o *Object) (Verdict, error)
}

// Punctual is implemented by scanners that return soon after the end of their context whatever their engine does, because all that they
// wait for ends with it (sockets with deadlines, as clamd's). Ask then needs no goroutine to be able to leave without them, which for a
// small object costs more than the asking. A scanner that computes, or waits for a process, is none.
type Punctual interface {
	Punctual() bool
}

// Unpacker is implemented by scanners that open archives by themselves (ClamAV does). Others are given every member that
// the gate could unpack as an object of its own.
type Unpacker interface {
	Unpacks() bool
}

// Overlooker is implemented by scanners that open archives by themselves, but pass over some members in silence. They are
// asked about those as about objects of their own. It answers from memory, without waiting.
type Overlooker interface {
	// Overlooks says whether o, inside an archive, could be passed over. Only the size and the first bytes of o count.
	Overlooks(o *Object) bool
}

// MailReader is implemented by scanners that decode the attachments of mails by themselves (ClamAV does).
type MailReader interface {
	// ReadsMail says whether it was seen to find what a mail has attached. It answers from memory, without waiting.
	ReadsMail() bool
}

// Version says what a scanner would judge with now.
type Version struct {
	Engine     string    `json:"engine"`               // "ClamAV 1.4.3"
	Signatures string    `json:"signatures,omitempty"` // changes whenever a verdict could: "27453", a digest
	Updated    time.Time `json:"updated,omitzero"`     // when the signatures were made; zero: unknown
}

// Versioner is implemented by scanners that know their version. Verdicts are remembered only for those, and only while
// the version stays. It answers from memory, without waiting; ok is false while the version is unknown.
type Versioner interface {
	Version() (v Version, ok bool)
}

// Closer is implemented by scanners that hold connections, processes or files.
type Closer interface {
	Close() error
}
