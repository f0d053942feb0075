package clamd

import (
	"context"
	"encoding/binary"
	"io"

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

// Streamed is an object that is sent by INSTREAM while it comes.
type Streamed struct {
	s   *session
	ctx context.Context
}

// Begin begins one over the transport's address, with a connection of its own.
func (tr *Transport) Begin(ctx context.Context) (*Streamed, error) {
	e, err := parseEndpoint(tr.Address)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, e, 0)
	if err != nil {
		return nil, err
	}
	s.id++
	_, err = io.WriteString(s.conn, "zINSTREAM\x00")
	return &Streamed{s, ctx}, err
}

// Write sends a chunk.
func (st *Streamed) Write(p []byte) (int, error) {
	frame := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(p)), uint32(len(p))), p...)
	if _, err := st.s.conn.Write(frame); err != nil {
		return 0, err
	}
	return len(p), nil
}

// End returns the verdict.
func (st *Streamed) End() (scan.Verdict, error) {
	defer st.s.close()
	if _, err := st.s.conn.Write(make([]byte, 4)); err != nil {
		return scan.Verdict{}, err
	}
	line, err := st.s.readReply(st.ctx)
	if err != nil {
		return scan.Verdict{}, err
	}
	r, err := parseScan(line, st.s.id)
	return r.verdict("clamd", ""), err
}
