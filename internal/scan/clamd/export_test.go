package clamd

import (
	"context"

	"lazaret/internal/scan"
)

// Transport is a way to ask, for the benchmark that compares them.
type Transport struct {
	Address  string
	HandOver bool // FILDES rather than INSTREAM
	Keep     bool // one session for all, rather than a connection for each

	kept *session
}

// Ask asks about o, and returns what was said.
func (tr *Transport) Ask(ctx context.Context, o *scan.Object) (scan.Verdict, error) {
	s := tr.kept
	if s == nil {
		e, err := parseEndpoint(tr.Address)
		if err != nil {
			return scan.Verdict{}, err
		}
		if s, err = open(ctx, e, 0); err != nil {
			return scan.Verdict{}, err
		}
	}
	if tr.Keep {
		tr.kept = s
	} else {
		defer s.close()
	}
	r, err := s.scan(ctx, o.Body, tr.HandOver)
	return r.verdict("clamd", ""), err
}

// Close ends what was kept.
func (tr *Transport) Close() {
	if tr.kept != nil {
		tr.kept.close()
	}
}
