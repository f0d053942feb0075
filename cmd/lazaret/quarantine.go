package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"lazaret/internal/daemon"
	"lazaret/internal/notice"
	"lazaret/internal/quarantine"
	"lazaret/internal/units"

	"github.com/spf13/cobra"
)

func quarantineCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "quarantine",
		Short: "Look at what was stopped, and give it away or delete it",
		Long: "Look at what was stopped, and give it away or delete it. It works beside a running gateway. Whatever is done is recorded\n" +
			"in <state_dir>/quarantine/audit.log, with who did it. Entries are named by the reference number that people were told.",
	}
	c.AddCommand(quarantineListCommand(), quarantineShowCommand(), quarantineExportCommand(), quarantineReleaseCommand(),
		quarantineDeleteCommand(), quarantinePurgeCommand())
	return c
}

// ward is an open quarantine, and who works with it.
type ward struct {
	flags
	identity string
	store    *quarantine.Store
	cfg      quarantine.Config
	who      string
}

func (w *ward) registerIdentity(c *cobra.Command) {
	c.Flags().StringVar(&w.identity, "identity", "", "file of the secret age key (default: as the settings say)")
}

// with opens the quarantine for f.
func (w *ward) with(ctx context.Context, f func() error) (err error) {
	cfg, _, err := w.load()
	if err != nil {
		return err
	}
	w.cfg, w.who = cfg.Quarantine, operator()
	w.store, err = quarantine.Open(ctx, cfg.Quarantine, daemon.QuarantineDir(cfg), quarantine.Options{})
	if errors.Is(err, quarantine.ErrNone) {
		return fmt.Errorf("%w: nothing was ever kept, or --config or --state-dir should name another place", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.store.Close()) }()
	return f()
}

// operator says who runs this command, and as whom where that differs.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if sudo := os.Getenv("SUDO_USER"); sudo != "" && sudo != name {
		return sudo + " as " + name
	}
	return name
}

// act records an action on an entry before and after it is done. Without a record it is not done.
func (w *ward) act(a quarantine.Action, do func() error) error {
	a.Who, a.Outcome = w.who, "begun"
	if err := w.store.Record(a); err != nil {
		return err
	}
	err := do()
	a.Time, a.Outcome = time.Time{}, "done"
	if err != nil {
		a.Outcome = "failed: " + err.Error()
	}
	return errors.Join(err, w.store.Record(a))
}

// actOn is act with what is known of the entry.
func (w *ward) actOn(ctx context.Context, action, id, detail string, do func(quarantine.Entry) error) error {
	e, err := w.store.Get(ctx, id)
	if err != nil {
		return err
	}
	a := quarantine.Action{Action: action, Reference: e.ID, Signature: e.Signature, SHA256: e.SHA256, Detail: detail}
	return w.act(a, func() error { return do(e) })
}

// filterFlags choose entries.
type filterFlags struct {
	since, until, client string
	f                    quarantine.Filter
}

func (x *filterFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&x.since, "since", "", "seen since then: an age such as 24h or 7d, a date, or a time such as 2026-01-31T08:00")
	c.Flags().StringVar(&x.until, "until", "", "last seen before then, written likewise")
	c.Flags().StringVar(&x.f.Signature, "signature", "", "a part of the signature's name")
	c.Flags().StringVar(&x.client, "client", "", "the client's address, or a network such as 192.168.0.0/24")
	c.Flags().StringVar(&x.f.User, "user", "", "the user")
	c.Flags().StringVar(&x.f.Protocol, "protocol", "", "the protocol: http, https, pop3 and so on")
	c.Flags().StringVar(&x.f.Address, "address", "", "a part of a mail's sender or recipient")
	c.Flags().StringVar(&x.f.SHA256, "sha256", "", "the digest of the original")
}

func (x *filterFlags) filter(c *cobra.Command) (f quarantine.Filter, err error) {
	for _, name := range []string{"since", "until", "signature", "client", "user", "protocol", "address", "sha256"} {
		if set := c.Flags().Lookup(name); set.Changed && strings.TrimSpace(set.Value.String()) == "" {
			// A variable of somebody's script is empty: without the flag everything would be chosen.
			return f, fmt.Errorf("--%s is empty: leave it out, or write what is to be chosen", name)
		}
	}
	f = x.f
	f.Protocol = strings.ToLower(f.Protocol)
	if f.Limit < 0 {
		return f, errors.New("--limit must not be negative")
	}
	if f.Since, err = moment(x.since); err != nil {
		return f, fmt.Errorf("--since: %w", err)
	}
	if f.Until, err = moment(x.until); err != nil {
		return f, fmt.Errorf("--until: %w", err)
	}
	if x.client != "" {
		if a, aerr := netip.ParseAddr(x.client); aerr == nil {
			f.Client = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		} else if f.Client, err = netip.ParsePrefix(x.client); err != nil {
			return f, fmt.Errorf("--client: %q is neither an address nor a network", x.client)
		}
	}
	return f, nil
}

// moment reads a time as people write it; empty: the zero time.
func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := units.ParseDuration(s); err == nil {
		return time.Now().Add(-d.Std()), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write an age such as \"24h\" or \"7d\", or \"2026-01-31\", or \"2026-01-31T08:00\"", s)
}

func quarantineListCommand() *cobra.Command {
	w, x := &ward{}, &filterFlags{}
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List entries, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := x.filter(c)
			if err != nil {
				return err
			}
			return w.with(c.Context(), func() error {
				return w.act(quarantine.Action{Action: "list"}, func() error { return w.list(c.Context(), c.OutOrStdout(), f, asJSON) })
			})
		},
	}
	w.register(c)
	x.register(c)
	c.Flags().IntVar(&x.f.Limit, "limit", 0, "the newest so many; 0: all")
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return c
}

func (w *ward) list(ctx context.Context, out io.Writer, f quarantine.Filter, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		return w.store.List(ctx, f, func(e quarantine.Entry) error { return enc.Encode(e) })
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n := 0
	err := w.store.List(ctx, f, func(e quarantine.Entry) error {
		if n++; n == 1 {
			fmt.Fprintln(table, "REFERENCE\tSEEN\tPROTOCOL\tCLIENT\tUSER\tFOUND\tSIZE\tWHAT")
		}
		what := e.Name
		if e.From != "" || e.Subject != "" {
			what = e.From + ": " + e.Subject
		}
		if e.State == quarantine.Missing {
			what = "(its file is gone) " + what
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, e.LastSeen.Local().Format("2006-01-02 15:04:05"), shown(e.Protocol, 10),
			shown(e.Client, 40), shown(e.User, 24), shown(found(e), 40), units.Size(e.Size), shown(what, 60))
		return err
	})
	if err == nil && n == 0 {
		fmt.Fprintln(table, "nothing is kept that would match")
	}
	return errors.Join(err, table.Flush())
}

// found says in one word why an entry is kept.
func found(e quarantine.Entry) string {
	switch {
	case e.Signature != "":
		return e.Signature
	case e.Reason != "":
		return e.Reason
	}
	return e.Rule
}

// shown makes a text from outside fit for a terminal and for a table.
func shown(s string, n int) string {
	if s = strings.ReplaceAll(notice.Clean(s, n), "\t", " "); s == "" {
		return "-"
	}
	return s
}

func quarantineShowCommand() *cobra.Command {
	w := &ward{}
	var asJSON bool
	c := &cobra.Command{
		Use:   "show REFERENCE",
		Short: "Show what is known of an entry",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return w.with(c.Context(), func() error {
				return w.actOn(c.Context(), "show", args[0], "", func(e quarantine.Entry) error { return tellEntry(c.OutOrStdout(), e, asJSON) })
			})
		},
	}
	w.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func tellEntry(out io.Writer, e quarantine.Entry, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(e)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"reference", e.ID},
		{"time", e.Time.Local().Format(time.RFC3339)},
		{"last seen", fmt.Sprintf("%s (%d times in all)", e.LastSeen.Local().Format(time.RFC3339), e.Seen)},
		{"state", string(e.State)},
		{"outcome", e.Outcome},
		{"reason", e.Reason},
		{"signature", e.Signature},
		{"engine", e.Engine},
		{"found in", e.Path},
		{"rule", e.Rule},
		{"action", e.Action},
		{"protocol", e.Protocol},
		{"direction", e.Direction},
		{"client", e.Client},
		{"user", e.User},
		{"server", e.Server},
		{"url", e.URL},
		{"from", e.From},
		{"to", e.To},
		{"subject", e.Subject},
		{"date", e.Date},
		{"name", e.Name},
		{"type", e.Type},
		{"size", strconv.FormatInt(e.Size, 10)},
		{"sha256", e.SHA256},
	} {
		if row[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", row[0], shown(row[1], 2000))
		}
	}
	return table.Flush()
}

func quarantineDeleteCommand() *cobra.Command {
	w := &ward{}
	c := &cobra.Command{
		Use:   "delete REFERENCE...",
		Short: "Delete entries for good",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return w.with(c.Context(), func() error {
				for _, id := range args {
					err := w.actOn(c.Context(), "delete", id, "", func(e quarantine.Entry) error { return w.store.Delete(c.Context(), e.ID) })
					if err != nil {
						return err
					}
					fmt.Fprintf(c.OutOrStdout(), "%s: deleted\n", shown(strings.ToUpper(id), 40))
				}
				return nil
			})
		},
	}
	w.register(c)
	return c
}

func quarantinePurgeCommand() *cobra.Command {
	w, x := &ward{}, &filterFlags{}
	var all, dry bool
	c := &cobra.Command{
		Use:   "purge",
		Short: "Delete many entries for good",
		Long:  "Delete every entry that the flags choose, for good. With --dry-run they are only counted.",
		Example: "  lazaret quarantine purge --until 30d\n" +
			"  lazaret quarantine purge --all",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := x.filter(c)
			if err != nil {
				return err
			}
			if f == (quarantine.Filter{}) && !all {
				return errors.New("say which entries, such as --until 30d, or --all")
			}
			return w.with(c.Context(), func() error { return w.purge(c.Context(), c.OutOrStdout(), f, dry) })
		},
	}
	w.register(c)
	x.register(c)
	c.Flags().BoolVar(&all, "all", false, "every entry")
	c.Flags().BoolVar(&dry, "dry-run", false, "say how many there are, and delete none")
	return c
}

func (w *ward) purge(ctx context.Context, out io.Writer, f quarantine.Filter, dry bool) error {
	if dry {
		n := 0
		err := w.store.List(ctx, f, func(quarantine.Entry) error { n++; return nil })
		fmt.Fprintf(out, "%d entries would be deleted\n", n)
		return err
	}
	n, err := w.store.Purge(ctx, f, func(id string) error {
		return w.store.Record(quarantine.Action{Who: w.who, Action: "purge", Reference: id, Outcome: "begun"})
	})
	fmt.Fprintf(out, "%d entries deleted\n", n)
	outcome := "done"
	if err != nil {
		outcome = "failed: " + err.Error()
	}
	return errors.Join(err, w.store.Record(quarantine.Action{Who: w.who, Action: "purge", Detail: strconv.Itoa(n) + " entries", Outcome: outcome}))
}
