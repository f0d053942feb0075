package policy

import (
	"strings"
	"testing"

	"lazaret/internal/scan"
)

func TestOnlyCleanPassesByDefault(t *testing.T) {
	c := Default()
	if d := c.Decide(Facts{}, scan.CleanVerdict()); d.Action != Pass {
		t.Errorf("clean: %+v", d)
	}
	if d := c.Decide(Facts{}, scan.InfectedVerdict("e", "s", "")); d.Action != Block || d.Rule != "policy.infected" {
		t.Errorf("infected: %+v", d)
	}
	reasons := scan.Reasons()
	if len(reasons) < 10 {
		t.Fatalf("only %d reasons: nothing is tested", len(reasons))
	}
	for _, r := range reasons {
		d := c.Decide(Facts{}, scan.IncompleteVerdict(r, "x"))
		if d.Action == Pass != (r == scan.Streamed) { // its pieces have verdicts of their own
			t.Errorf("%s: %v by default", r, d.Action)
		}
		if d.Rule == "policy.unscanned" {
			t.Errorf("%s has no setting", r)
		}
	}
}

func TestUnknownThingsAreBlocked(t *testing.T) {
	everythingPasses := Config{
		Infected: Block, Encrypted: Pass, TooLarge: Pass, TooDeep: Pass, TooMany: Pass, Bomb: Pass, Undecodable: Pass,
		Timeout: Pass, ScannerDown: Pass, EngineError: Pass, SpoolFull: Pass, Streamed: Pass,
	}
	for _, v := range []scan.Verdict{{}, {Outcome: scan.Incomplete}, {Outcome: scan.Incomplete, Reason: "new"}, {Outcome: 99}} {
		if d := everythingPasses.Decide(Facts{}, v); d.Action != Block {
			t.Errorf("%+v: %+v", v, d)
		}
	}
	if (Decision{}).Action != Block || Action(99).String() != "block" {
		t.Error("the zero or an unknown action does not block")
	}
	if d := (Config{}).Decide(Facts{}, scan.IncompleteVerdict(scan.Timeout, "")); d.Action != Block {
		t.Errorf("unset settings: %+v", d)
	}
}

func TestQuarantine(t *testing.T) {
	c := Default()
	c.Quarantine = []string{"infected", "encrypted"}
	if !c.Decide(Facts{}, scan.InfectedVerdict("e", "s", "")).Quarantine {
		t.Error("infected is not kept")
	}
	if c.Decide(Facts{}, scan.IncompleteVerdict(scan.TooLarge, "")).Quarantine {
		t.Error("too large is kept")
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	c := Default()
	c.Infected = Pass
	c.Quarantine = []string{"virus"}
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), "infected: ") || !strings.Contains(err.Error(), `quarantine: "virus"`) {
		t.Errorf("got %v", err)
	}
	var a Action
	if err := a.UnmarshalText([]byte("allow")); err == nil {
		t.Error("an unknown action was read")
	}
	for _, want := range []Action{Block, Defer, Pass} {
		text, _ := want.MarshalText()
		if err := a.UnmarshalText(text); err != nil || a != want {
			t.Errorf("%s: %v, %v", text, a, err)
		}
	}
}
