package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"

	"lazaret/internal/daemon"
	"lazaret/internal/redirect"

	"github.com/spf13/cobra"
)

func redirectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "redirect",
		Short: "Lead other machines' traffic into the gateway",
		Long: "Lead other machines' traffic into the gateway, by nftables rules made from the settings' [redirect], [web] transparent\n" +
			"and [pop3] listen. They are in a table of their own, and nothing else is touched.",
	}
	c.AddCommand(redirectPlanCommand(), redirectApplyCommand(), redirectStatusCommand(), redirectRemoveCommand())
	return c
}

// plan reads the settings and makes the plan.
func (f *flags) plan() (*redirect.Plan, error) {
	cfg, _, err := f.load()
	if err != nil {
		return nil, err
	}
	return daemon.RedirectPlan(cfg)
}

func redirectPlanCommand() *cobra.Command {
	var f flags
	var router, iptables bool
	var gateway, iface string
	c := &cobra.Command{
		Use:   "plan",
		Short: "Print the rules as a script to read",
		Long: "Print the rules as a script for nft. With --router print the router's part instead, for networks whose router is another\n" +
			"machine: a shell script that routes the clients' traffic for these ports, and no other, by way of the gateway.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := f.plan()
			if err != nil {
				return err
			}
			if !router {
				if iptables || gateway != "" || iface != "" {
					return errors.New("--gateway, --interface and --iptables go with --router")
				}
				_, err := io.WriteString(c.OutOrStdout(), p.Script())
				return err
			}
			r := redirect.Router{Interface: iface}
			if r.Gateway, err = netip.ParseAddr(gateway); err != nil {
				return fmt.Errorf("--gateway: the address by which the router reaches the gateway: %w", err)
			}
			write := p.RouterScript
			if iptables {
				write = p.RouterIPTables
			}
			script, err := write(r)
			if err == nil {
				_, err = io.WriteString(c.OutOrStdout(), script)
			}
			return err
		},
	}
	f.register(c)
	c.Flags().BoolVar(&router, "router", false, "the router's part, where the gateway is not the router")
	c.Flags().StringVar(&gateway, "gateway", "", "with --router: the gateway's address")
	c.Flags().StringVar(&iface, "interface", "", "with --router: the router's interface that clients and gateway are behind")
	c.Flags().BoolVar(&iptables, "iptables", false, "with --router: for iptables instead of nft")
	return c
}

func redirectApplyCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "apply",
		Short: "Install the rules, in one transaction",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := f.plan()
			if err != nil {
				return err
			}
			for _, w := range p.Warnings {
				fmt.Fprintln(c.ErrOrStderr(), "note:", w)
			}
			if _, err := redirect.Install(p, false); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "the rules are in force; \"lazaret redirect remove\" takes them away. They do not outlive a restart of the machine:")
			fmt.Fprintln(c.OutOrStdout(), "[redirect] automatic = true has the service install them.")
			return nil
		},
	}
	f.register(c)
	return c
}

func redirectStatusCommand() *cobra.Command {
	var f flags
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show which rules are in force, and what they count",
		Long:  "Show which rules are in force, and what they count. Exit codes: 0 as the settings have it; 1 not in force, or different.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := f.plan()
			if err != nil {
				return err
			}
			st, err := redirect.Look(p)
			if err != nil {
				return err
			}
			if err := tellRedirect(c.OutOrStdout(), st, asJSON); err != nil {
				return err
			}
			if !st.Installed || st.Differs != "" {
				return exitCode(exitInfected)
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func tellRedirect(out io.Writer, st redirect.Status, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(st)
	}
	switch {
	case !st.Installed:
		fmt.Fprintln(out, "not in force: \"lazaret redirect apply\" installs the rules")
		return nil
	case st.Differs != "":
		fmt.Fprintf(out, "in force, but different from the settings: %s: \"lazaret redirect apply\" replaces them\n", st.Differs)
	case st.Owned:
		fmt.Fprintln(out, "in force until the gateway ends")
	default:
		fmt.Fprintln(out, "in force")
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range st.Rules {
		fmt.Fprintf(table, "%d packets\t%d bytes\t  %s: %s\n", r.Packets, r.Bytes, r.Chain, r.Rule)
	}
	return table.Flush()
}

func redirectRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove",
		Short: "Take the rules away",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			found, err := redirect.Remove()
			if err != nil {
				return err
			}
			if !found {
				fmt.Fprintln(c.OutOrStdout(), "there was nothing to take away")
				return nil
			}
			fmt.Fprintln(c.OutOrStdout(), "the rules are gone")
			return nil
		},
	}
}
