package quarantine

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Entry describes an original. It never has a password in it.
type Entry struct {
	ID        string    `json:"id"`   // the reference number that people were told
	Time      time.Time `json:"time"` // of the decision
	LastSeen  time.Time `json:"last_seen"`
	Seen      int64     `json:"seen"` // how often the same thing came on the same way
	Protocol  string    `json:"protocol,omitempty"`
	Direction string    `json:"direction,omitempty"`
	Client    string    `json:"client,omitempty"` // address
	Server    string    `json:"server,omitempty"` // as the client named it
	User      string    `json:"user,omitempty"`
	URL       string    `json:"url,omitempty"` // without userinfo

	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Subject string `json:"subject,omitempty"`
	Date    string `json:"date,omitempty"` // as the mail says

	Outcome   string `json:"outcome,omitempty"`
	Reason    string `json:"reason,omitempty"` // why it could not be judged
	Signature string `json:"signature,omitempty"`
	Engine    string `json:"engine,omitempty"`
	Path      string `json:"path,omitempty"` // where inside
	Rule      string `json:"rule,omitempty"`
	Action    string `json:"action,omitempty"`

	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"`
	Size   int64  `json:"size"`   // of the original, in bytes
	SHA256 string `json:"sha256"` // of the original, lower-case hexadecimal

	Stored int64 `json:"stored"`          // bytes on disk
	State  State `json:"state,omitempty"` // of entries that are listed: Stored or Missing
}

// State is how far an entry is.
type State string

// The states. Writing and Deleting are those of entries that nobody sees.
const (
	Stored   State = "stored"
	Missing  State = "missing" // in the index, but its file is gone
	writing  State = "writing"
	deleting State = "deleting"
)

// columns are those of the index, in the order of Entry.fields.
var columns = []string{
	"id", "time", "last_seen", "seen", "protocol", "direction", "client", "server", "user", "url", "sender", "recipient", "subject",
	"date", "outcome", "reason", "signature", "engine", "path", "rule", "action", "name", "type", "size", "sha256", "stored", "state",
}

// fields returns pointers to what the columns hold, to be read from and written to.
func (e *Entry) fields() []any {
	return []any{
		&e.ID, (*stamp)(&e.Time), (*stamp)(&e.LastSeen), &e.Seen, &e.Protocol, &e.Direction, &e.Client, &e.Server, &e.User, &e.URL,
		&e.From, &e.To, &e.Subject, &e.Date, &e.Outcome, &e.Reason, &e.Signature, &e.Engine, &e.Path, &e.Rule, &e.Action,
		&e.Name, &e.Type, &e.Size, &e.SHA256, &e.Stored, (*string)(&e.State),
	}
}

// stamp is a time in the index: milliseconds since 1970.
type stamp time.Time

// Value implements driver.Valuer.
func (s *stamp) Value() (driver.Value, error) { return time.Time(*s).UnixMilli(), nil }

// Scan implements sql.Scanner.
func (s *stamp) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("the index has %T for a time", v)
	}
	*s = stamp(time.UnixMilli(n))
	return nil
}

var validID = regexp.MustCompile(`^[0-9A-Z]+(-[0-9A-Z]+)*$`)

// maxID bounds an ID, which is a file's name as well.
const maxID = 40

// ParseID returns the ID that s means, as people write it: in lower case, with blanks around it.
func ParseID(s string) (string, error) {
	id := strings.ToUpper(strings.TrimSpace(s))
	if len(id) > maxID || !validID.MatchString(id) {
		return "", fmt.Errorf("%.60q is no reference number: they look like 4FJ2-9QX0-K7", s)
	}
	return id, nil
}

const (
	maxText = 1000
	maxURL  = 2048
)

// prepare checks e and bounds its texts.
func (e *Entry) prepare() error {
	id, err := ParseID(e.ID)
	if err != nil {
		return err
	}
	e.ID = id
	if e.Size < 0 {
		return errors.New("an entry needs its size")
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.LastSeen, e.Seen = e.Time, 1
	e.URL = withoutUserinfo(e.URL)
	for _, f := range e.fields() {
		if s, ok := f.(*string); ok && s != &e.URL {
			*s = bound(*s, maxText)
		}
	}
	e.URL = bound(e.URL, maxURL)
	return nil
}

// withoutUserinfo removes what may be a password from a URL.
func withoutUserinfo(s string) string {
	u, err := url.Parse(s)
	if err == nil && u.User == nil && u.Opaque == "" {
		return s
	}
	if err == nil && u.Opaque == "" {
		u.User = nil
		return u.String()
	}
	// What is no URL may hold anything before an at sign.
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return s[i+1:]
	}
	return s
}

// bound returns s as valid UTF-8 without NUL, cut to at most n bytes.
func bound(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
