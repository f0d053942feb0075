package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/daemon"
	"lazaret/internal/web"

	"github.com/spf13/cobra"
)

func demoCommand() *cobra.Command {
	var f flags
	var verbose bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the gateway at work, against a site of its own",
		Long: "Start a web site with a certificate authority of its own and a gateway in front of it, both on free loopback ports,\n" +
			"fetch clean and infected files in many disguises through the gateway, and print what was expected and what was seen.\n" +
			"Nothing else needs to be installed, and nothing is left behind.\n" +
			"Exit codes: 0 everything was as expected; 1 something was not; 2 it could not be tried.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log := io.Discard
			if verbose {
				log = c.ErrOrStderr()
			}
			return demo(c.Context(), &f, c.OutOrStdout(), log)
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the gateway's log")
	return c
}

// demoTime bounds the whole demonstration.
const demoTime = 5 * time.Minute

func demo(ctx context.Context, f *flags, out, log io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "lazaret-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	site, err := newDemoSite(dir)
	if err != nil {
		return err
	}
	defer site.close()
	cfg, _, err := f.load()
	if err != nil {
		return err
	}
	demoSettings(cfg, dir, site.rootFile)
	d, err := daemon.Start(ctx, daemon.Options{Config: cfg, Version: version, Stderr: log})
	if err != nil {
		return err
	}
	defer func() { _ = d.Close(context.Background()) }() // the demonstration has been told already
	fmt.Fprintf(out, "The site       %s and %s\nThe gateway    http://%s\nJudged by      %s\n\n", site.secure.URL, site.plain.URL, d.ProxyAddr(), d.Engines())

	roots := x509.NewCertPool()
	for _, c := range d.CA().Trusted() {
		roots.AddCert(c)
	}
	failed := 0
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tEXPECTED\tSEEN\t")
	for _, row := range site.rows() {
		seen := row.try(ctx, d.ProxyAddr(), roots)
		mark := "ok"
		if seen != row.expected {
			mark = "DIFFERS"
			failed++
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row.what, row.expected, seen, mark)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		fmt.Fprintf(out, "\n%d of %d differ from what was expected\n", failed, len(site.rows()))
		return exitCode(exitInfected)
	}
	fmt.Fprintf(out, "\nAll %d as expected\n", len(site.rows()))
	return nil
}

// demoSettings has a gateway with these settings serve the demonstration and nothing else.
func demoSettings(cfg *config.Config, dir, root string) {
	cfg.StateDir = filepath.Join(dir, "state")
	cfg.Spool.Dir, cfg.Audit.Overflow, cfg.Audit.File = "", "", ""
	cfg.Web.Listen, cfg.Web.Transparent = []string{"127.0.0.1:0"}, nil
	cfg.Web.AllowClients = web.Default().AllowClients
	cfg.Web.AllowPrivateDestinations = true
	cfg.Web.ConnectPorts = web.PortRanges{{First: 1, Last: 65535}}
	cfg.Web.AuthFile = ""
	cfg.Web.TLS.ExtraRoots = append(cfg.Web.TLS.ExtraRoots, root)
	cfg.Web.TLS.Tunnel, cfg.Web.TLS.TunnelFile, cfg.Web.TLS.TunnelClients = nil, "", nil
	cfg.Egress.Parent = ""
	cfg.POP3.Listen, cfg.POP3.ListenTLS = nil, nil // another gateway may run on this machine
	cfg.Redirect.Automatic = false
	cfg.Admin.Listen = "127.0.0.1:0"
}

// The outcomes of a row.
const (
	delivered = "delivered, unchanged"
	blocked   = "blocked (403), explained"
	explained = "not opened (502), explained"
)

// demoRow is one line of the table.
type demoRow struct {
	what, expected string
	method         string
	base           *httptest.Server
	path           string
	body           []byte // of an upload
	chunked        bool
	header         http.Header
	http2          bool
	want           []byte // what is to be delivered
	reached        func() int
}

// try does what the row says through the gateway, and says what came of it.
func (r *demoRow) try(ctx context.Context, proxy string, roots *x509.CertPool) string {
	tr := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}),
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: r.http2, DisableCompression: true,
	}
	defer tr.CloseIdleConnections()
	var body io.Reader = http.NoBody
	if r.body != nil {
		body = bytes.NewReader(r.body)
		if r.chunked {
			body = io.MultiReader(body) // of a length that is not known
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, r.base.URL+r.path, body)
	if err != nil {
		return err.Error()
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	before := r.reached()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "failed: " + err.Error()
	}
	got, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	ref := resp.Header.Get("X-Lazaret-Reference")
	switch {
	case err != nil:
		return "cut off: " + err.Error()
	case r.http2 && resp.ProtoMajor != 2:
		return "answered by " + resp.Proto
	case resp.StatusCode/100 == 2 && bytes.Equal(got, r.want):
		return delivered
	case resp.StatusCode == http.StatusForbidden && ref != "" && r.body != nil && r.reached() != before:
		return "blocked, but it had reached the site"
	case resp.StatusCode == http.StatusForbidden && ref != "":
		return blocked
	case resp.StatusCode == http.StatusBadGateway && ref != "" && r.reached() == before:
		return explained
	}
	return fmt.Sprintf("status %d, %d bytes", resp.StatusCode, len(got))
}
