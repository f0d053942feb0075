package web

import (
	"fmt"
	"log/slog"
)

// CheckFiles reads the files that c names, as a start does, and returns what cannot be used in them.
func (c Config) CheckFiles() error {
	if c.AuthFile == "" {
		return nil
	}
	if _, err := openUsers(c.AuthFile, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("auth_file: %w", err)
	}
	return nil
}
