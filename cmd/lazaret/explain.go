package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"lazaret/internal/daemon"
	"lazaret/internal/intercept"

	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	var f flags
	var asJSON, offline bool
	var client string
	c := &cobra.Command{
		Use:   "explain URL",
		Short: "Say what would happen to a request, and why",
		Long: "Say what would happen to a request for URL: whether the proxy would refuse it, whether TLS would be inspected, passed through\n" +
			"or refused and by which rule, what the origin shows, and which rules of [policy] could decide about its content. The origin is\n" +
			"connected to, and no request is sent; nothing is learned or changed, and the gateway need not run.\n" +
			"Exit codes: 0 it would pass or be scanned; 1 it would be refused; 2 the question could not be answered.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !strings.Contains(args[0], "://") {
				args[0] = "https://" + args[0]
			}
			u, err := url.Parse(args[0])
			if err != nil {
				return err
			}
			var from netip.Addr
			if client != "" {
				if from, err = netip.ParseAddr(client); err != nil {
					return fmt.Errorf("--client: %w", err)
				}
			}
			cfg, _, err := f.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
			defer cancel()
			x, err := daemon.Explain(ctx, cfg, u, from, !offline)
			if err != nil {
				return err
			}
			told := tellable(x)
			if asJSON {
				err = json.NewEncoder(c.OutOrStdout()).Encode(told)
			} else {
				err = told.write(c.OutOrStdout())
			}
			if err == nil && told.Outcome == "refused" {
				return exitCode(exitInfected)
			}
			return err
		},
	}
	f.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().BoolVar(&offline, "offline", false, "do not connect to the origin: what the settings and the learned hosts say")
	c.Flags().StringVar(&client, "client", "", "the address of the client who asks (default: any client)")
	return c
}

// explanation is what explain tells.
type explanation struct {
	URL      string          `json:"url"`
	Outcome  string          `json:"outcome"` // scanned, tunnelled, refused
	Rule     string          `json:"rule,omitempty"`
	Why      string          `json:"why"`
	Address  string          `json:"address,omitempty"`
	TLS      string          `json:"tls,omitempty"`
	Protocol string          `json:"protocol,omitempty"`
	Chain    []string        `json:"chain,omitempty"`
	Fault    string          `json:"fault,omitempty"`
	Kind     string          `json:"fault_kind,omitempty"`
	Excused  []string        `json:"excused,omitempty"`
	Asks     bool            `json:"client_certificate,omitempty"`
	Policy   []explainedRule `json:"policy"`
}

type explainedRule struct {
	Rule   string `json:"rule"`
	Action string `json:"action"`
	When   string `json:"when,omitempty"`
}

func tellable(x *daemon.Explanation) *explanation {
	e := &explanation{URL: x.URL.Redacted(), Outcome: "scanned", Why: "every object is judged"}
	for _, c := range x.Rules {
		e.Policy = append(e.Policy, explainedRule{Rule: c.Rule, Action: c.Action.String(), When: c.When})
	}
	if x.Refused != "" {
		e.Outcome, e.Why, e.Policy = "refused", x.Refused, nil
		return e
	}
	if x.TLS == nil {
		return e
	}
	t := x.TLS
	e.Rule, e.Why = string(t.Decision.Rule), t.Decision.Reason
	if e.Why == "" {
		e.Why = "nothing says otherwise: TLS is opened, and every object is judged"
	}
	e.Protocol, e.Asks = t.Proto, t.ClientCertificate
	if t.Address.IsValid() {
		e.Address = t.Address.String()
	}
	if t.Version != 0 {
		e.TLS = tls.VersionName(t.Version)
	}
	for _, c := range t.Chain {
		e.Chain = append(e.Chain, fmt.Sprintf("%s, by %s, valid until %s", c.Subject, c.Issuer, c.NotAfter.Format(time.DateOnly)))
	}
	for _, f := range t.Excused {
		e.Excused = append(e.Excused, f.Error())
	}
	switch t.Decision.Mode {
	case intercept.Tunnel:
		e.Outcome, e.Policy = "tunnelled", nil
	case intercept.Refuse:
		e.Outcome, e.Policy = "refused", nil
	case intercept.Inspect, intercept.Plain:
	}
	if t.Fault != nil {
		e.Fault, e.Kind = t.Fault.Detail, string(t.Fault.Kind)
		if e.Outcome == "scanned" {
			// The decision's rule would have had it scanned: it is the fault that refuses.
			e.Outcome, e.Policy, e.Rule, e.Why = "refused", nil, "", "the site is at fault: "+e.Fault
		}
	}
	return e
}

func (e *explanation) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", what, value)
		}
	}
	line("URL", e.URL)
	line("outcome", e.Outcome)
	line("rule", e.Rule)
	line("why", e.Why)
	if e.Kind != "" {
		line("fault", fmt.Sprintf("%s: %s", e.Kind, e.Fault))
	}
	line("address", e.Address)
	line("TLS", strings.TrimSpace(e.TLS+" "+e.Protocol))
	for i, c := range e.Chain {
		line([]string{"certificates", ""}[min(i, 1)], c)
	}
	for _, x := range e.Excused {
		line("excused", x)
	}
	if e.Asks {
		line("asks for", "a client certificate")
	}
	for i, r := range e.Policy {
		when := r.When
		if when == "" {
			when = "anything else"
		}
		line([]string{"policy", ""}[min(i, 1)], fmt.Sprintf("%s: %s, when %s", r.Rule, r.Action, when))
	}
	return w.Flush()
}
