package daemon

import (
	"fmt"

	"lazaret/internal/config"
	"lazaret/internal/content"
	"lazaret/internal/mail/attachment"
	"lazaret/internal/mail/pop3"
	"lazaret/internal/mail/replacement"
	"lazaret/internal/notice"
	"lazaret/internal/spam"
)

// mailParts is what mail protocols have in common, made from [mail].
type mailParts struct {
	notices *replacement.Maker
	rules   *attachment.Rules // nil: none
	limits  content.Limits    // of the readings that the rules look at
	spam    *spam.Checker     // nil: nobody is asked
}

// newMailParts makes it, and says what of [mail] cannot be used.
func newMailParts(cfg *config.Config, version string) (*mailParts, error) {
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
	if p.spam, err = spam.New(cfg.Mail.Spam); err != nil {
		return nil, fmt.Errorf("[mail.spam]: %w", err)
	}
	return p, nil
}

// mailNotices makes notices by what is in force at the moment.
type mailNotices struct{ d *Daemon }

// Replacement implements pop3.Replacer.
func (m mailNotices) Replacement(o pop3.Original, n notice.Notice) []byte {
	return m.d.mail.Load().notices.Make(replacement.Mail{Head: o.Head, Kept: o.Kept, Client: o.Client, Server: o.Server, Notice: n})
}
