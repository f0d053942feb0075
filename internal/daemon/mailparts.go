package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"lazaret/internal/config"
	"lazaret/internal/content"
	"lazaret/internal/mail/attachment"
	"lazaret/internal/mail/pop3"
	"lazaret/internal/mail/replacement"
	"lazaret/internal/mail/report"
	"lazaret/internal/notice"
	"lazaret/internal/spam"
)

// mailParts is what mail protocols have in common, made from [mail].
type mailParts struct {
	notices *replacement.Maker
	rules   *attachment.Rules // nil: none
	html    *attachment.HTML  // nil: it stays as it is
	report  *report.Reporter  // nil: nobody is mailed
	limits  content.Limits    // of the readings that the rules look at
	spam    *spam.Checker     // nil: nobody is asked
}

// newMailParts makes it, and says what of [mail] cannot be used. Nobody is mailed where log is nil. What it returns is to be closed.
func newMailParts(cfg *config.Config, version string, log *slog.Logger) (*mailParts, error) {
	pages, err := notice.New(cfg.Notice)
	if err != nil {
		return nil, fmt.Errorf("[notice]: %w", err)
	}
	p := &mailParts{limits: cfg.Content}
	if p.notices, err = replacement.New(cfg.Mail.Notice, pages, cfg.Notice.Language, version); err != nil {
		return nil, fmt.Errorf("[mail.notice]: %w", err)
	}
	if p.rules, err = attachment.New(cfg.Mail.Attachments); err != nil {
		return nil, fmt.Errorf("[mail.attachments]: %w", err)
	}
	if p.html, err = attachment.NewHTML(cfg.Mail.HTML); err != nil {
		return nil, fmt.Errorf("[mail.html]: %w", err)
	}
	if p.spam, err = spam.New(cfg.Mail.Spam); err != nil {
		return nil, fmt.Errorf("[mail.spam]: %w", err)
	}
	if log == nil {
		if err := report.Check(cfg.Mail.Report); err != nil {
			return nil, fmt.Errorf("[mail.report]: %w", err)
		}
		return p, nil
	}
	if p.report, err = report.New(cfg.Mail.Report, log); err != nil {
		p.spam.Close()
		return nil, fmt.Errorf("[mail.report]: %w", err)
	}
	return p, nil
}

// close has what waits to be mailed sent until ctx ends, and gives back what is held.
func (p *mailParts) close(ctx context.Context) {
	if p != nil {
		p.report.Close(ctx)
		p.spam.Close()
	}
}

// mailNotices makes notices by what is in force at the moment.
type mailNotices struct{ d *Daemon }

// Replacement implements pop3.Replacer.
func (m mailNotices) Replacement(o pop3.Original, n notice.Notice) []byte {
	return m.d.mail.Load().notices.Make(original(o, n))
}

// Given implements pop3.Replacer: administrators get a copy.
func (m mailNotices) Given(o pop3.Original, n notice.Notice) {
	parts := m.d.mail.Load()
	parts.report.Notice(n.Reference, func(fields []byte) []byte {
		o.Kept = fields
		return parts.notices.Make(original(o, n))
	})
}

func original(o pop3.Original, n notice.Notice) replacement.Mail {
	return replacement.Mail{Head: o.Head, Kept: o.Kept, Client: o.Client, Server: o.Server, Notice: n}
}
