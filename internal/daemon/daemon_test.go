package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"lazaret/internal/mail/pop3"
)

// A fault of the gateway's own is told as one: the mail server did nothing.
func TestPanicsOfTheEditorAreErrors(t *testing.T) {
	var log strings.Builder
	m := mailEditor{&Daemon{log: slog.New(slog.NewTextHandler(&log, nil))}} // without anything that it needs
	b, err := m.Edit(t.Context(), pop3.Letter{Reference: "ref-1"})
	if b != nil || err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("%v %v", b, err)
	}
	if !strings.Contains(log.String(), "reference=ref-1") || !strings.Contains(log.String(), "stack=") {
		t.Errorf("the log has %s", log.String())
	}
}

// What does not end is left to the end of the process.
func TestTheEndIsHard(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for want, end := range map[error]func(context.Context) error{
		nil:                   func(context.Context) error { return nil },
		errors.ErrUnsupported: func(context.Context) error { return errors.ErrUnsupported },
	} {
		if err := hard(ctx, time.Hour, end); !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
	}
	goesOn, ended := make(chan struct{}), make(chan struct{})
	cancel()
	err := hard(ctx, time.Millisecond, func(context.Context) error {
		defer close(ended)
		<-goesOn
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	close(goesOn)
	<-ended
}
