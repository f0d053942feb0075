package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/daemon"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/scan/clamd"
	"lazaret/internal/units"
)

// trial is a body that the gate is asked about.
type trial struct {
	what     string
	body     func() io.Reader
	outcomes []scan.Outcome // any of them is well
}

// trials are what every combination of engines must get right, EICAR at and beyond the size limits included.
func trials(cfg *config.Config) []trial {
	late := func(size int64) func() io.Reader {
		return func() io.Reader {
			return io.MultiReader(io.LimitReader(filler{}, size-int64(len(scan.EICAR()))), bytes.NewReader(scan.EICAR()))
		}
	}
	caught := []scan.Outcome{scan.Infected}
	notPassed := []scan.Outcome{scan.Infected, scan.Incomplete}
	out := []trial{
		{"a harmless text", func() io.Reader { return bytes.NewReader([]byte("Is this harmless text clean?\n")) }, []scan.Outcome{scan.Clean}},
		{"EICAR", func() io.Reader { return bytes.NewReader(scan.EICAR()) }, caught},
		{"EICAR in a zip", func() io.Reader { return bytes.NewReader(zipped("eicar.com", scan.EICAR())) }, caught},
		{"EICAR in a zip in a zip", func() io.Reader {
			return bytes.NewReader(zipped("inner.zip", zipped("eicar.com", scan.EICAR())))
		}, caught},
		{"EICAR at the end of 20 MiB", late(20 << 20), notPassed},
		{"EICAR at the end of 130 MiB", late(130 << 20), notPassed},
	}
	for _, s := range cfg.Scanners {
		if c, ok := s.Settings.(clamd.Config); ok && c.MaxScanSize > 0 && c.MaxScanSize < units.GiB {
			out = append(out, trial{fmt.Sprintf("EICAR at the end of max_scan_size (%v)", c.MaxScanSize), late(int64(c.MaxScanSize)), notPassed},
				trial{"EICAR just beyond it", late(int64(c.MaxScanSize) + 1), notPassed})
		}
	}
	return out
}

// filler is text without end.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	const line = "Nothing is to be found in this line of text.\n"
	for i := range p {
		p[i] = line[i%len(line)]
	}
	return len(p), nil
}

// try has the gate judge one trial.
func (d *doctor) try(ctx context.Context, j *daemon.Judge, t trial) {
	what := "tried: " + t.what
	n, err := j.Read(ctx, t.body(), "trial")
	if err != nil {
		d.note(what, levelFail, err.Error(), "look at the disk and the spool")
		return
	}
	seen := n.Verdict.Outcome.String()
	if n.Verdict.Outcome == scan.Incomplete {
		seen += " (" + string(n.Verdict.Reason) + ")"
	}
	for _, ok := range t.outcomes {
		if n.Verdict.Outcome != ok {
			continue
		}
		if ok == scan.Incomplete && d.cfg.Policy.Decide(policy.Facts{}, n.Verdict).Action == policy.Pass {
			d.note(what, levelWarn, seen+", and passes by ["+"policy]", "it was not looked at: see whether you want that")
			return
		}
		d.note(what, levelOK, seen, "")
		return
	}
	d.note(what, levelFail, seen, "an infected file of this kind would come through, or a clean one would not: see the scanner's settings and signatures")
}

// tryScanner looks at what one engine says of itself.
func (d *doctor) tryScanner(ctx context.Context, s scan.Scanner) {
	what := "scanner " + s.Name()
	if c, ok := s.(*clamd.Scanner); ok {
		if err := c.Ping(ctx); err != nil {
			d.note(what, levelFail, err.Error(), "see that clamd runs there (systemctl status clamav-daemon)")
			return
		}
		d.clamdAdvice(what, c)
	}
	v, ok := scan.Version{}, false
	if vr, is := s.(scan.Versioner); is {
		v, ok = vr.Version()
	}
	switch {
	case !ok:
		d.note(what, levelWarn, "its version is not known", "verdicts are not remembered, which costs speed; set version_command for a command")
	case v.Updated.IsZero():
		d.note(what, levelOK, v.Engine+", signatures "+v.Signatures+", which do not say how old they are", "")
	case d.cfg.ClamAV.MaxAge > 0 && time.Since(v.Updated) > d.cfg.ClamAV.MaxAge.Std():
		d.note(what, levelWarn, signaturesWords(v), "they are old: see that freshclam runs (systemctl status clamav-freshclam, or the gateway's log)")
	default:
		d.note(what, levelOK, signaturesWords(v), "")
	}
}

// signaturesWords says what signatures an engine has, and how old they are.
func signaturesWords(v scan.Version) string {
	return fmt.Sprintf("%s, signatures %s of %s, %d hours old", v.Engine, v.Signatures, v.Updated.Format("2006-01-02 15:04"), int(time.Since(v.Updated).Hours()))
}
