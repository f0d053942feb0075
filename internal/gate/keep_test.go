package gate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// keeper is a Keeper that does as it is told.
type keeper struct {
	wants, must bool
	id          string
	err         error
	panics      bool

	kept []byte
	ctx  error // of the context that Keep was given
	n    notice.Notice
}

func (k *keeper) Wants(_ policy.Facts, d policy.Decision) bool { return k.wants || d.Quarantine }
func (k *keeper) MustKeep(policy.Facts) bool                   { return k.must }

func (k *keeper) Keep(ctx context.Context, n notice.Notice, o *scan.Object) (string, error) {
	k.ctx, k.n = ctx.Err(), n
	if k.panics {
		panic("no disk")
	}
	if k.err != nil {
		return "", k.err
	}
	var err error
	k.kept, err = io.ReadAll(o.Body.NewReader())
	return k.id, err
}

func TestOriginalsAreKeptBeforeAnybodyIsTold(t *testing.T) {
	broken := errors.New("the disk is full")
	for _, c := range []struct {
		name   string
		keeper keeper
		want   policy.Action
		id     string
	}{
		{"kept", keeper{wants: true, must: true, id: "KEPT-1"}, policy.Block, "KEPT-1"},
		{"not wanted", keeper{id: "KEPT-1"}, policy.Block, ""},
		{"cannot be kept, and need not", keeper{wants: true, err: broken}, policy.Block, ""},
		{"cannot be kept, and must", keeper{wants: true, must: true, err: broken}, policy.Defer, ""},
		{"panics", keeper{wants: true, must: true, panics: true}, policy.Defer, ""},
		{"gives no reference", keeper{wants: true, must: true}, policy.Defer, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			k := c.keeper
			f.opt.Keeper = &k
			d, n, _ := f.pass(t, bytes.NewReader(scan.EICAR()), Intake{Name: "eicar.com"})
			if d.Action != c.want || n.Decision != d || n.Quarantine != c.id || n.Kind != notice.Infected {
				t.Errorf("%+v %+v", d, n)
			}
			if len(f.sink.records) != 1 || f.sink.records[0].Quarantine != c.id || f.sink.records[0].Decision != d {
				t.Fatalf("%+v", f.sink.records)
			}
			if failed := k.err != nil || k.panics; failed && !strings.Contains(f.sink.records[0].Detail, "could not be kept") {
				t.Errorf("the record says nothing of it: %+v", f.sink.records[0])
			}
			if c.id != "" && (!bytes.Equal(k.kept, scan.EICAR()) || k.n.Reference != n.Reference || k.n.Verdict.Outcome != scan.Infected) {
				t.Errorf("kept %q of %+v", k.kept, k.n)
			}
		})
	}
}

// TestRulesHaveOriginalsKept: by policy, whatever passes and whatever does not.
func TestRulesHaveOriginalsKept(t *testing.T) {
	for outcome, content := range map[string][]byte{"clean": []byte("nothing bad"), "infected": scan.EICAR()} {
		action := policy.Block
		if outcome == "clean" {
			action = policy.Pass
		}
		f := newFixture(t, nil)
		k := &keeper{id: "KEPT-1"}
		f.opt.Keeper = k
		p := policy.Default()
		p.Rules = []policy.Rule{{Name: "keep", Outcome: []string{outcome}, Action: action, Quarantine: true}}
		f.Use(f.Engines(), p, false)
		d, n, body := f.pass(t, bytes.NewReader(content), Intake{Name: "x"})
		if d.Action != action || n.Quarantine != "KEPT-1" || !bytes.Equal(k.kept, content) || !bytes.Equal(body, content) {
			t.Errorf("%s: %+v %+v, kept %q", outcome, d, n, k.kept)
		}
		// That it cannot be kept does not stop what is clean.
		k.err = errors.New("full")
		if d, n, _ := f.pass(t, bytes.NewReader(content), Intake{Name: "x"}); d.Action != action || n.Quarantine != "" {
			t.Errorf("%s: %+v %+v", outcome, d, n)
		}
	}
}

// TestWhatWasNotHeldCannotBeKept: too large for the spool, it is deferred where nobody may have another copy.
func TestWhatWasNotHeldCannotBeKept(t *testing.T) {
	for must, want := range map[bool]policy.Action{true: policy.Defer, false: policy.Block} {
		f := newFixture(t, nil)
		f.opt.Keeper = &keeper{wants: true, must: must, id: "KEPT-1"}
		d, n, _ := f.pass(t, strings.NewReader("larger"), Intake{Limit: 3})
		if d.Action != want || n.Quarantine != "" || n.Verdict.Reason != scan.TooLarge {
			t.Errorf("%v: %+v %+v", must, d, n)
		}
	}
}

// TestClientsThatLeaveDoNotPreventKeeping: the context of Keep is not that of the connection.
func TestClientsThatLeaveDoNotPreventKeeping(t *testing.T) {
	f := newFixture(t, nil)
	k := &keeper{wants: true, id: "KEPT-1"}
	f.opt.Keeper = k
	o, err := f.Take(bytes.NewReader(scan.EICAR()), Intake{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeBody(o)
	ctx, cancel := context.WithCancel(t.Context())
	f.engine.before = func(context.Context) error { cancel(); return nil }
	_, n := f.Judge(ctx, policy.Facts{Protocol: "test"}, o)
	if n.Quarantine != "KEPT-1" || k.ctx != nil {
		t.Errorf("%+v, %v", n, k.ctx)
	}
}
