package signatures

import (
	"log/slog"
	"time"
)

// Bounds of what is told about lines that cannot be used. The counts are exact.
const (
	maxSkips       = 1000 // in a report
	maxSkipsLogged = 20   // in the log
)

// Loaded says what a load found.
type Loaded struct {
	At      time.Time     // when it was loaded
	Took    time.Duration // how long that took
	Updated time.Time     // the newest file's time of change; zero without files
	Digest  string        // changes whenever a file does

	Digests int // signatures of whole files
	Bodies  int // body signatures, with the one that is built in
	Allowed int // entries of allow-lists
	Ignored int // signatures left out because an ignore-list names them

	Files   []LoadedFile
	Skipped int            // lines and files that are not used
	Reasons map[string]int // the same by reason
	Skips   []Skip         // the first maxSkips of them
}

// LoadedFile is one file, or one member of a container.
type LoadedFile struct {
	Path    string
	Used    int // lines that are used
	Skipped int // lines that are not
}

// Skip is something that is not used, and why.
type Skip struct {
	File   string
	Line   int // 0: the file as a whole
	Reason string
}

func (l *Loaded) skip(file string, line int, reason string) {
	l.Skipped++
	if l.Reasons == nil {
		l.Reasons = map[string]int{}
	}
	l.Reasons[reason]++
	if len(l.Skips) < maxSkips {
		l.Skips = append(l.Skips, Skip{File: file, Line: line, Reason: reason})
	}
}

// log writes the report.
func (l *Loaded) log(log *slog.Logger) {
	log.Info("signatures loaded", "digests", l.Digests, "bodies", l.Bodies, "allowed", l.Allowed, "ignored", l.Ignored,
		"files", len(l.Files), "skipped", l.Skipped, "took", l.Took.Round(time.Millisecond), "digest", l.Digest)
	for i, s := range l.Skips {
		if i == maxSkipsLogged {
			log.Warn("further signatures are not used", "number", l.Skipped-i, "reasons", l.Reasons)
			return
		}
		log.Warn("signature not used", "file", s.File, "line", s.Line, "reason", s.Reason)
	}
}
