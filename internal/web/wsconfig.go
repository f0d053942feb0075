package web

import (
	"fmt"
	"time"

	"lazaret/internal/units"
)

// Sockets is the [web.websocket] section.
type Sockets struct {
	MaxMessage  units.Size     `toml:"max_message" doc:"the largest message, when its compression is undone; of a larger one policy.too_large decides, and it is never delivered"`
	Concurrent  int            `toml:"concurrent" doc:"messages of one connection and direction that may wait for their verdicts; the peer waits when there are more"`
	MessageTime units.Duration `toml:"message_time" doc:"how long one message may take to arrive, from its first frame"`
}

func defaultWebSocket() Sockets {
	return Sockets{MaxMessage: 64 * units.MiB, Concurrent: 4, MessageTime: units.Duration(5 * time.Minute)}
}

// problems returns what cannot be used in c, one error for each key.
func (c Sockets) problems() []error {
	var errs []error
	if c.MaxMessage < units.KiB {
		errs = append(errs, fmt.Errorf("websocket.max_message: %v is too small for any use: write at least 1 KiB", c.MaxMessage))
	}
	if c.Concurrent <= 0 || c.Concurrent > 64 {
		errs = append(errs, fmt.Errorf("websocket.concurrent: %d is out of range: write a number from 1 to 64", c.Concurrent))
	}
	if c.MessageTime <= 0 {
		errs = append(errs, fmt.Errorf("websocket.message_time: must be greater than zero, such as \"5m\""))
	}
	return errs
}
