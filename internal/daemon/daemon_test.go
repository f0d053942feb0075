package daemon

import (
	"context"
	"errors"
	"testing"
	"time"
)

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
