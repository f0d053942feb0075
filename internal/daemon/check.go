package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"lazaret/internal/config"
	"lazaret/internal/egress"
	"lazaret/internal/intercept"
	"lazaret/internal/notice"
)

// checkParts tries what a start would read besides the settings: templates, lists, root certificates, signature files.
func checkParts(cfg *config.Config) error {
	var errs []error
	note := func(section string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("[%s]: %w", section, err))
		}
	}
	_, err := notice.New(cfg.Notice)
	note("notice", err)
	if err == nil {
		if _, err := newMailParts(cfg, "", nil); err != nil {
			errs = append(errs, err)
		}
	}
	dialer, err := egress.New(cfg.Egress, egress.Options{})
	note("egress", err)
	if dialer != nil {
		note("web.tls", checkInterceptor(cfg, dialer))
	}
	note("web", cfg.Web.CheckFiles())
	for i, c := range cfg.Scanners {
		s, err := build(c, slog.New(slog.DiscardHandler))
		if err != nil {
			note(fmt.Sprintf("scanner %d", i+1), err)
			continue
		}
		closeScanner(s)
	}
	return errors.Join(errs...)
}

func checkInterceptor(cfg *config.Config, dialer *egress.Dialer) error {
	store, err := CAStore(cfg)
	if err != nil {
		return err
	}
	if w := store.Warning(); w != "" {
		cfg.Warnings = append(cfg.Warnings, &config.Error{Message: w})
	}
	ca, err := store.Load()
	if errors.Is(err, intercept.ErrNoPassphrase) {
		// Whoever checks need not know it. The start does.
		cfg.Warnings = append(cfg.Warnings, &config.Error{Message: "the CA's key is encrypted, and its passphrase is not given here: it was not tried"})
		ca, err = store.Read()
	}
	if errors.Is(err, os.ErrNotExist) {
		// None yet: the first start makes one. One that lasts as long as this check will do.
		dir, err := os.MkdirTemp("", "lazaret-check-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		store.Dir = dir + "/ca"
		if ca, err = store.Init(); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	_, err = intercept.New(cfg.Web.TLS, ca, dialer, intercept.Options{Logger: slog.New(slog.DiscardHandler)})
	return err
}
