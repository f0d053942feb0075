package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// longestLine bounds a line of clamd's log, in bytes; the rest of a longer one is left out.
const longestLine = 4096

// mostSaid is how many errors are kept to explain an end.
const mostSaid = 5

// settleTime is how long after clamd's word new signatures are surely in use.
const settleTime = time.Second

// read carries clamd's log to ours until it ends.
func (s *Supervisor) read(r *os.File) {
	defer func() { _ = r.Close() }()
	b := bufio.NewReaderSize(r, longestLine)
	for {
		line, more, err := b.ReadLine()
		for more && err == nil {
			_, more, err = b.ReadLine()
		}
		if len(line) > 0 {
			s.said(strings.TrimSpace(string(line)))
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.log.Warn("clamd's output cannot be read", "error", err)
				// It must not wait for a reader that is gone.
				_, _ = io.Copy(io.Discard, r)
			}
			return
		}
	}
}

// said takes one line of clamd's log.
func (s *Supervisor) said(line string) {
	level := slog.LevelDebug
	switch {
	case strings.HasPrefix(line, "ERROR:"), strings.HasPrefix(line, "LibClamAV Error:"):
		level = slog.LevelError
	case strings.HasPrefix(line, "WARNING:"), strings.HasPrefix(line, "LibClamAV Warning:"):
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "clamd: "+line)
	s.mu.Lock()
	defer s.mu.Unlock()
	if level == slog.LevelError {
		s.lastSaid = append(s.lastSaid, line)
		s.lastSaid = s.lastSaid[max(0, len(s.lastSaid)-mostSaid):]
	}
	if strings.HasPrefix(line, "Activating the newly loaded database") || strings.HasPrefix(line, "Database correctly reloaded") {
		s.loads++
		// clamd says so just before it does so: what the old signatures judge in between must not be remembered as the new ones'.
		time.AfterFunc(settleTime, func() {
			s.mu.Lock()
			s.loads++
			s.mu.Unlock()
		})
	}
}

// because returns why clamd ended, with what it said of that.
func (s *Supervisor) because(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = errors.New("exit status 0")
	}
	if len(s.lastSaid) == 0 {
		return fmt.Errorf("clamd ended: %w", err)
	}
	return fmt.Errorf("clamd ended: %w; it said: %s", err, strings.Join(s.lastSaid, "; "))
}
