package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"

	"lazaret/internal/intercept"
	"lazaret/internal/trust"

	"github.com/spf13/cobra"
)

// trustFlags are what install and uninstall share.
type trustFlags struct {
	flags
	only        string
	certificate string
}

func (f *trustFlags) register(c *cobra.Command) {
	f.flags.register(c)
	c.Flags().StringVar(&f.only, "only", "", "system or nss: work on these stores alone")
	c.Flags().StringVar(&f.certificate, "certificate", "", "a PEM file with the certificates, instead of those of this machine's gateway")
}

// stores returns what to work on.
func (f *trustFlags) stores() (trust.Stores, error) {
	s := trust.Stores{System: f.only != "nss", NSS: f.only != "system"}
	if f.only != "" && f.only != "nss" && f.only != "system" {
		return s, fmt.Errorf("--only %q is not known: write system or nss", f.only)
	}
	var err error
	if s.User, err = trust.CallingUser(); err != nil && s.NSS {
		var unknown user.UnknownUserIdError
		if !errors.As(err, &unknown) {
			return s, err
		}
	}
	return s, nil
}

// certificates returns what clients are to trust: the CA's certificate, and the next one's while a rotation lasts.
func (f *trustFlags) certificates() ([]*x509.Certificate, error) {
	if f.certificate != "" {
		return readCertificates(f.certificate)
	}
	store, err := f.caStore()
	if err != nil {
		return nil, err
	}
	ca, err := readCA(store)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: use sudo, or download ca.pem from the gateway and name it with --certificate", err)
	case err != nil:
		return nil, err
	}
	return ca.Trusted(), nil
}

// readCertificates returns the certificates of a PEM file. All of them must be authorities'.
func readCertificates(file string) ([]*x509.Certificate, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("--certificate: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("--certificate: %w", err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("--certificate: %s: %w", file, err)
		}
		if !c.IsCA {
			return nil, fmt.Errorf("--certificate: %s: %q is not an authority's certificate", file, c.Subject)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("--certificate: %s: there is no PEM certificate in it", file)
	}
	return certs, nil
}

const trustLong = "The system's store (Debian, Ubuntu, Alpine, Fedora, RHEL, Arch, SUSE) needs root; NSS databases are those of the browsers\n" +
	"(Chromium, Firefox, Thunderbird) of the user who calls, also through sudo. What is in force already stays as it is.\n" +
	"Exit codes: 0 every store there is has been seen to; 1 one could not be; 2 the command could not do its work."

func caInstall() *cobra.Command {
	var f trustFlags
	c := &cobra.Command{
		Use:   "install",
		Short: "Have this machine trust the certificate authority",
		Long: "Put the certificate into this machine's trust stores, and the next one, too, while a rotation lasts; what is left of\n" +
			"rotations that are over is taken out.\n" + trustLong,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			stores, err := f.stores()
			if err != nil {
				return err
			}
			certs, err := f.certificates()
			if err != nil {
				return err
			}
			for _, cert := range certs {
				fmt.Fprintf(c.OutOrStdout(), "%s\n  SHA-256 %s\n", cert.Subject, intercept.Fingerprint(cert))
			}
			reports, err := trust.Install(c.Context(), stores, certs)
			if err != nil {
				return err
			}
			return tellReports(c.OutOrStdout(), reports)
		},
	}
	f.register(c)
	return c
}

func caUninstall() *cobra.Command {
	var f trustFlags
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Have this machine trust the certificate authority no longer",
		Long:  "Take everything out of this machine's trust stores that install has put there.\n" + trustLong,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			stores, err := f.stores()
			if err != nil {
				return err
			}
			certs, err := f.certificates()
			if err != nil && f.certificate != "" {
				return err // without the gateway's certificates, names tell what is ours
			}
			return tellReports(c.OutOrStdout(), trust.Uninstall(c.Context(), stores, certs))
		},
	}
	f.register(c)
	return c
}

// tellReports prints one line for each store, and says by the exit code whether all went well.
func tellReports(w io.Writer, reports []trust.Report) error {
	var failed error
	for _, r := range reports {
		fmt.Fprintf(w, "%-10s %s", r.State, r.Store)
		if r.Place != "" {
			fmt.Fprintf(w, " in %s", r.Place)
		}
		fmt.Fprintf(w, ": %s\n", r.Detail)
		if r.State == trust.Refused {
			failed = exitCode(exitInfected)
		}
	}
	return failed
}
