package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"lazaret/internal/intercept"

	"github.com/spf13/cobra"
)

func bypassCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bypass",
		Short: "Hosts that the gateway has learned to pass through unopened",
		Long: "Hosts that the gateway has learned to pass through unopened: those that asked for a client certificate, and those whose\n" +
			"clients refused the gateway's certificates. What the settings list is not among them.",
	}
	c.AddCommand(bypassListCommand(), bypassForgetCommand())
	return c
}

func bypassListCommand() *cobra.Command {
	var f flags
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Show them, with why and until when",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, _, err := f.load()
			if err != nil {
				return err
			}
			hosts, err := intercept.ReadLearned(cfg.StateDir)
			if err != nil {
				return err
			}
			if asJSON {
				if hosts == nil {
					hosts = []intercept.Learned{}
				}
				return json.NewEncoder(c.OutOrStdout()).Encode(hosts)
			}
			if len(hosts) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no host was learned")
				return nil
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "HOST\tCLIENT\tUNTIL\tWHY")
			for _, h := range hosts {
				client := h.Client
				if client == "" {
					client = "all"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", h.Host, client, h.Until.Local().Format(time.DateTime), h.Reason)
			}
			return w.Flush()
		},
	}
	f.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func bypassForgetCommand() *cobra.Command {
	var f flags
	var all bool
	c := &cobra.Command{
		Use:   "forget HOST...",
		Short: "Forget hosts, so that their connections are opened again",
		Long: "Forget hosts (\"host\" for all its ports, or \"host:port\"), so that their connections are opened again. A running gateway\n" +
			"notices within seconds; what it has learned only just is waited for. Exit codes: 0 forgotten; 1 none of them was learned.",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := f.load()
			if err != nil {
				return err
			}
			switch {
			case all && len(args) > 0:
				return errors.New("name hosts, or write --all")
			case all:
				hosts, err := intercept.ReadLearned(cfg.StateDir)
				if err != nil {
					return err
				}
				for _, h := range hosts {
					args = append(args, h.Host)
				}
			case len(args) == 0:
				return errors.New("name a host as \"lazaret bypass list\" shows it, or write --all")
			}
			forgotten := 0
			for _, host := range args {
				gone, err := intercept.ForgetLately(c.Context(), cfg.StateDir, host)
				if err != nil {
					return err
				}
				for _, h := range gone {
					fmt.Fprintf(c.OutOrStdout(), "forgotten: %s\n", h.Host)
				}
				forgotten += len(gone)
			}
			if forgotten == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nothing was learned of that")
				if !all {
					return exitCode(exitInfected)
				}
			}
			return nil
		},
	}
	f.register(c)
	c.Flags().BoolVar(&all, "all", false, "forget every host")
	return c
}
