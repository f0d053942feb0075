package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"text/tabwriter"

	"lazaret/internal/config"
	"lazaret/internal/p3scan"

	"github.com/spf13/cobra"
)

func importCommand() *cobra.Command {
	var onlyReport, asJSON bool
	c := &cobra.Command{
		Use:   "import P3SCAN.CONF",
		Short: "Turn P3Scan's settings into Lazaret's",
		Long: "Turn a p3scan.conf, of 2.3.2 or of the 3.0 forks, into a settings file, which is printed; a report on standard error says\n" +
			"what was taken over, mapped to something else, or refused, and why. - is standard input.\n" +
			"Exit codes: 0 converted; 1 the file has errors, which are told with their lines; 2 it could not be read.",
		Example: "  lazaret import /etc/p3scan/p3scan.conf > lazaret.toml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			settings, err := readP3Scan(c.InOrStdin(), args[0])
			var wrong *p3scan.Error
			if errors.As(err, &wrong) {
				fmt.Fprintf(c.ErrOrStderr(), "%s is not what P3Scan would read:\n%v\n", shown(args[0], 200), err)
				return exitCode(exitInfected)
			}
			if err != nil {
				return err
			}
			toml, report := p3scan.Convert(settings, p3scan.Options{Source: args[0], Knows: config.Has, Exists: isFile, User: isUser})
			if _, err := config.Parse("converted", toml); err != nil {
				return fmt.Errorf("the conversion cannot be used, which is a fault of this program:\n%w", err)
			}
			return tellImport(c, toml, report, onlyReport, asJSON)
		},
	}
	c.Flags().BoolVar(&onlyReport, "report", false, "print the report instead of the settings")
	c.Flags().BoolVar(&asJSON, "json", false, "print settings and report as JSON")
	return c
}

func readP3Scan(stdin io.Reader, path string) ([]p3scan.Setting, error) {
	if path == "-" {
		return p3scan.Parse(stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	return p3scan.Parse(f)
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func isUser(name string) bool {
	_, err := user.Lookup(name)
	return err == nil
}

func tellImport(c *cobra.Command, toml []byte, report []p3scan.Item, onlyReport, asJSON bool) error {
	out := c.OutOrStdout()
	if asJSON {
		all := struct {
			Settings string        `json:"settings,omitempty"`
			Report   []p3scan.Item `json:"report"`
		}{string(toml), report}
		if onlyReport {
			all.Settings = ""
		}
		return json.NewEncoder(out).Encode(all)
	}
	if onlyReport {
		return tellReport(out, report)
	}
	if _, err := out.Write(toml); err != nil {
		return err
	}
	return tellReport(c.ErrOrStderr(), report)
}

func tellReport(out io.Writer, report []p3scan.Item) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, i := range report {
		key := i.Key
		if i.Target != "" {
			key += " -> " + i.Target
		}
		fmt.Fprintf(table, "line %d\t%s\t%s\t%s\n", i.Line, i.Status, shown(key, 80), shown(i.Note, 400))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, p3scan.Summary(report))
	return err
}
