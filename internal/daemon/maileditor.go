package daemon

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"lazaret/internal/mail/attachment"
	"lazaret/internal/mail/pop3"
	"lazaret/internal/notice"
	"lazaret/internal/policy"
	"lazaret/internal/scan"
	"lazaret/internal/spam"
	"lazaret/internal/spool"
)

// mailEditor applies [mail.attachments], [mail.spam] and [mail.html], in this order, by what is in force at the moment.
type mailEditor struct{ d *Daemon }

// Edit implements pop3.Editor. A panic is an error like others: the mail is deferred, with a reference, and nobody else is blamed.
func (m mailEditor) Edit(ctx context.Context, l pop3.Letter) (*spool.Blob, error) {
	return guarded(m.d.log, l.Reference, func() (*spool.Blob, error) { return m.edit(ctx, l) })
}

// guarded returns what edit does, and a panic of it as an error.
func guarded(log *slog.Logger, reference string, edit func() (*spool.Blob, error)) (b *spool.Blob, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("editing a mail panicked", "reference", reference, "panic", p, "stack", string(debug.Stack()))
			b, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return edit()
}

func (m mailEditor) edit(ctx context.Context, l pop3.Letter) (*spool.Blob, error) {
	parts := m.d.mail.Load()
	body, err := m.attachments(ctx, parts, l)
	if err != nil {
		return body, err
	}
	ended := false
	defer func() {
		if !ended && body != l.Body { // a panic
			_ = body.Close() // the room is given back
		}
	}()
	then := func(next *spool.Blob) {
		if next != body && body != l.Body {
			_ = body.Close() // the room is given back
		}
		body = next
	}
	if l.Clean {
		then(m.spam(ctx, parts, l, body))
	}
	harmless, err := m.html(ctx, parts, l, body)
	then(harmless)
	ended = true
	return body, err
}

// html returns body with its HTML disarmed.
func (m mailEditor) html(ctx context.Context, parts *mailParts, l pop3.Letter, body *spool.Blob) (*spool.Blob, error) {
	d, err := parts.html.Apply(ctx, m.tools(parts, l), body)
	if err != nil {
		return nil, fmt.Errorf("disarming its HTML: %w", err)
	}
	if d.Body == nil || len(d.Stripped) > 0 {
		if err := m.keep(ctx, l, "mail.html"); err != nil {
			if d.Body != nil && d.Body != body {
				_ = d.Body.Close() // the room is given back
			}
			return nil, err
		}
	}
	if d.Body == nil {
		return nil, &pop3.Unwanted{What: "HTML", Detail: "[mail.html]: " + d.Why}
	}
	if d.Parts > 0 {
		m.d.log.Info("the HTML of a mail was disarmed", "reference", l.Reference, "parts", d.Parts, "client", l.Facts.Client,
			"server", l.Facts.Host, "user", l.Facts.User)
	}
	m.tell(l, "taken out", d.Stripped)
	return d.Body, nil
}

// tools are what attachments and HTML are worked on with.
func (m mailEditor) tools(parts *mailParts, l pop3.Letter) attachment.Tools {
	return attachment.Tools{
		Pool: m.d.pool, Limits: parts.limits,
		Note: func(h attachment.Hit) string {
			n := notice.Notice{Reference: l.Reference, Facts: l.Facts}
			return parts.notices.Removed(headOf(l.Body), n, h.Name, h.Rule)
		},
	}
}

// tell has the log say what was done to attachments.
func (m mailEditor) tell(l pop3.Letter, did string, hits []attachment.Hit) {
	for _, h := range hits {
		m.d.log.Warn("an attachment was "+did, "reference", l.Reference, "name", notice.Clean(h.Name, 100), "rule", h.Rule,
			"client", l.Facts.Client, "server", l.Facts.Host, "user", l.Facts.User)
	}
}

func (m mailEditor) attachments(ctx context.Context, parts *mailParts, l pop3.Letter) (*spool.Blob, error) {
	out, err := parts.rules.Apply(ctx, m.tools(parts, l), l.Body)
	if err != nil {
		return nil, err
	}
	if out.Replace != nil || len(out.Stripped) > 0 {
		hits := out.Stripped
		if out.Replace != nil {
			hits = []attachment.Hit{*out.Replace}
		}
		if err := m.keep(ctx, l, "mail.attachments: "+hits[0].Rule); err != nil {
			if out.Body != nil && out.Body != l.Body {
				_ = out.Body.Close() // the room is given back
			}
			return nil, err
		}
	}
	if h := out.Replace; h != nil {
		what := h.Name
		if what == "" {
			what = h.Rule
		}
		return nil, &pop3.Unwanted{What: notice.Clean(what, 100), Detail: "[mail.attachments]: " + notice.Clean(h.Name, 100) + " is " + h.Rule + "; " + out.Why}
	}
	m.tell(l, "renamed", out.Renamed)
	m.tell(l, "taken out", out.Stripped)
	return out.Body, nil
}

// keep has the original kept of a mail that is not delivered as it came, where the quarantine takes such. The error is why
// nothing is delivered: nobody may have another copy.
func (m mailEditor) keep(ctx context.Context, l pop3.Letter, rule string) error {
	k := m.d.keeper
	if k == nil {
		return nil
	}
	n := notice.Notice{
		Reference: l.Reference, Time: time.Now(), Facts: l.Facts, Verdict: scan.CleanVerdict(),
		Decision: policy.Decision{Action: policy.Replace, Rule: rule},
	}
	sum := l.Body.SHA256()
	n.Size, n.SHA256 = l.Body.Size(), hex.EncodeToString(sum[:])
	if !k.Wants(n.Facts, n.Decision) {
		return nil
	}
	log := m.d.log.With("reference", l.Reference, "rule", n.Decision.Rule)
	// That nobody waits any more is no reason to keep nothing.
	id, err := k.Keep(context.WithoutCancel(ctx), n, &scan.Object{Body: l.Body, Type: "message/rfc822"})
	switch {
	case err == nil:
		log.Info("the original of a mail that was changed is kept", "quarantine", id)
	case k.MustKeep(n.Facts):
		return fmt.Errorf("the original could not be kept: %w", err)
	default:
		log.Error("an original could not be kept", "error", err)
	}
	return nil
}

// spam returns body, or one with marks: whatever fails, the mail is delivered.
func (m mailEditor) spam(ctx context.Context, parts *mailParts, l pop3.Letter, body *spool.Blob) *spool.Blob {
	if parts.spam == nil {
		return body
	}
	r := parts.spam.Check(ctx, spam.Message{Body: body, User: l.Facts.User, Reference: l.Reference, Client: l.Facts.Client})
	log := m.d.log.With("reference", l.Reference, "client", l.Facts.Client, "server", l.Facts.Host, "user", l.Facts.User)
	if r.Fault != nil {
		log.Warn("[mail.spam] senders", "error", r.Fault)
	}
	switch {
	case r.Err != nil:
		log.Warn("a mail was not checked for spam, and is delivered without a mark", "error", r.Err, "failed", parts.spam.Stats().Failed)
		return body
	case r.State == spam.NotChecked:
		log.Debug("a mail is not checked for spam", "why", r.Skipped)
		return body
	}
	log.Info("a mail was checked for spam", "spam", r.State == spam.Spam, "score", r.Score, "required", r.Required, "rules", r.Symbols)
	marked, err := parts.spam.Mark(m.d.pool, body, r, l.Fixed)
	if err != nil {
		log.Warn("spam was not marked", "error", err)
		return body
	}
	return marked
}

// headOf returns the beginning of a mail, for what its header says.
func headOf(b *spool.Blob) []byte {
	head := make([]byte, min(b.Size(), 64<<10))
	n, err := b.ReadAt(head, 0)
	if err != nil {
		return head[:n]
	}
	return head
}
