package gate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
)

// Keeper keeps originals: the quarantine. It is called by many goroutines.
type Keeper interface {
	// Wants says whether the original of an object is to be kept about which d was decided.
	Wants(f policy.Facts, d policy.Decision) bool
	// Keep keeps the object's body, and returns under which reference. It does not return before that is durable.
	Keep(ctx context.Context, n notice.Notice, o *scan.Object) (reference string, err error)
	// MustKeep says whether an object that should be blocked, but could not be kept, is to be deferred instead, because
	// nobody may have another copy.
	MustKeep(f policy.Facts) bool
}

// keep has the original kept where that is wanted, before anybody is told, and notes it in n. Where it fails, something that
// should be blocked is not delivered either; it may be deferred.
func (g *Gate) keep(ctx context.Context, n *notice.Notice, o *scan.Object) (detail string) {
	k := g.opt.Keeper
	if k == nil || !k.Wants(n.Facts, n.Decision) {
		return ""
	}
	n.Decision.Quarantine = true
	// That nobody waits for the answer any more is no reason to keep nothing; the Keeper has a limit of its own.
	id, err := guarded(context.WithoutCancel(ctx), k, *n, o)
	if err == nil {
		n.Quarantine = id
		return ""
	}
	g.opt.Log.Error("an original could not be kept", "reference", n.Reference, "error", err)
	if a := n.Decision.Action; (a == policy.Block || a == policy.Replace) && k.MustKeep(n.Facts) {
		n.Decision.Action = policy.Defer
	}
	return "the original could not be kept: " + err.Error()
}

func guarded(ctx context.Context, k Keeper, n notice.Notice, o *scan.Object) (id string, err error) {
	defer func() {
		if p := recover(); p != nil {
			id, err = "", fmt.Errorf("the quarantine panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if o.Body == nil {
		return "", errors.New("it was not held")
	}
	if id, err = k.Keep(ctx, n, o); err == nil && id == "" {
		err = errors.New("the quarantine gave no reference")
	}
	return id, err
}
