package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manualCommand writes the manual pages that packages have. It is hidden: administrators read them with man.
func manualCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "manual FOLDER",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true // packages are to be the same whenever they are built
			epoch := time.Unix(0, 0)
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Lazaret", Manual: "Lazaret", Date: &epoch}, args[0])
		},
	}
}
