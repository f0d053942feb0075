package pop3

import (
	"context"
	"errors"
	"net/netip"

	"lazaret/internal/notice"
	"lazaret/internal/policy"
)

// edit has a message that passes changed or kept back by the Editor.
func (x *session) edit(ctx context.Context, l *letter) {
	e := x.s.opt.Editor
	if e == nil || l.body == nil || l.decision.Action != policy.Pass {
		return
	}
	f := l.notice.Facts
	edited, err := e.Edit(ctx, Letter{
		Facts: f, Reference: l.notice.Reference, Body: l.body, Fixed: shared(l.drip.beginning()), Clean: l.decision.Rule == "clean",
	})
	var unwanted *Unwanted
	switch {
	case errors.As(err, &unwanted):
		l.notice = x.s.opt.Gate.Refuse(f, notice.NotAllowed, unwanted.What, unwanted.Detail)
		l.decision = policy.Decision{Action: policy.Replace, Rule: l.notice.Decision.Rule}
	case err != nil:
		l.notice = x.s.opt.Gate.Refuse(f, notice.Unavailable, "", "editing the mail: "+err.Error())
		l.decision = policy.Decision{Action: policy.Defer, Rule: l.notice.Decision.Rule}
	case edited != l.body:
		l.close()
		l.body, l.odd, l.edited = edited, nil, true
	}
}

// serverAddr returns the server's address, as far as it is known: where the client wanted to go, or where the gateway went.
func (x *session) serverAddr() netip.AddrPort {
	if x.original.IsValid() || x.up == nil {
		return x.original
	}
	return addrOf(x.up.conn.RemoteAddr())
}
