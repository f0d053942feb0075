package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// readyTimeout is how long the check of readiness may take.
const readyTimeout = 3 * time.Second

// check runs Sources.Ready, once at a time: one that hangs is waited for, not started again.
type check struct {
	mu      sync.Mutex
	running chan struct{} // closed when the run has ended; nil: none is under way
	result  []string      // of the run that has ended
}

// Problems returns what keeps the gateway from judging now.
func (s *Server) Problems(ctx context.Context) []string {
	problems := []string{}
	up := 0
	for _, sc := range s.scanners() {
		switch {
		case sc.Up:
			up++
		case sc.Required:
			problems = append(problems, fmt.Sprintf("scanner %s is down: %s", sc.Name, sc.Problem))
		}
	}
	if up == 0 {
		problems = append(problems, "no scanner is up")
	}
	if c := s.certificate(); c == nil {
		problems = append(problems, "the CA is not loaded")
	} else if time.Now().After(c.NotAfter) {
		problems = append(problems, "the CA's certificate has expired: make a new one with lazaret ca rotate")
	}
	if s.src.Ready != nil {
		problems = append(problems, s.check.wait(ctx, s.src.Ready)...)
	}
	return problems
}

func (c *check) wait(ctx context.Context, ready func(context.Context) []string) []string {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	c.mu.Lock()
	done := c.running
	if done == nil {
		done = make(chan struct{})
		c.running = done
		go c.run(context.WithoutCancel(ctx), done, ready)
	}
	c.mu.Unlock()
	select {
	case <-done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.result
	case <-ctx.Done():
		return []string{"the check of readiness does not come to an end"}
	}
}

// run is apart from any request, so that one whose client goes away spoils nothing for the others.
func (c *check) run(ctx context.Context, done chan struct{}, ready func(context.Context) []string) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	result := []string{"the check of readiness failed"}
	defer func() {
		if p := recover(); p != nil {
			result = []string{fmt.Sprintf("the check of readiness panicked: %v", p)}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.result, c.running = result, nil
		close(done)
	}()
	result = ready(ctx)
}

// ready answers 200 where the gateway can judge now, 503 otherwise. The reasons are for insiders.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	problems := s.Problems(r.Context())
	status := http.StatusOK
	if len(problems) > 0 {
		status = http.StatusServiceUnavailable
	}
	state := struct {
		Ready    bool     `json:"ready"`
		Problems []string `json:"problems,omitempty"`
	}{Ready: len(problems) == 0}
	if s.insider(r) {
		state.Problems = problems
	}
	body, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		panic(err) // a bool and strings can always be written
	}
	answer(w, r, status, "application/json", append(body, '\n'))
}
