package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lazaret/internal/intercept"

	"github.com/spf13/cobra"
)

func caCommand() *cobra.Command {
	c := &cobra.Command{Use: "ca", Short: "The gateway's certificate authority"}
	c.AddCommand(caInit(), caShow(), caExport(), caRotate(), caInstall(), caUninstall())
	return c
}

// caDir returns where the CA is.
func (f *flags) caDir() (string, error) {
	cfg, _, err := f.load()
	if err != nil {
		return "", err
	}
	return filepath.Join(cfg.StateDir, "ca"), nil
}

// withCA gives a command the shared flags and the CA's directory.
func withCA(use, short, long string, do func(c *cobra.Command, dir string) error) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.caDir()
			if err != nil {
				return err
			}
			return do(c, dir)
		},
	}
	f.register(c)
	return c
}

func caInit() *cobra.Command {
	return withCA("init", "Make a certificate authority", "Make a certificate authority where there is none. It never overwrites one: use rotate.",
		func(c *cobra.Command, dir string) error {
			ca, err := intercept.InitCA(dir)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%w: use \"lazaret ca rotate\" for a new one", err)
			}
			if err != nil {
				return err
			}
			showCA(c, dir, ca)
			return nil
		})
}

func caShow() *cobra.Command {
	return withCA("show", "Show the certificate authority", "", func(c *cobra.Command, dir string) error {
		ca, err := loadCA(dir)
		if err != nil {
			return err
		}
		showCA(c, dir, ca)
		return nil
	})
}

func caRotate() *cobra.Command {
	return withCA("rotate", "Make a new certificate authority in the place of the old one",
		"Make a new certificate authority. The old certificate is kept beside it, for clients to trust both meanwhile; give\n"+
			"clients the new one, then restart the gateway, which signs with the new one from then on.",
		func(c *cobra.Command, dir string) error {
			ca, err := intercept.RotateCA(dir)
			if err != nil {
				return err
			}
			showCA(c, dir, ca)
			fmt.Fprintln(c.OutOrStdout(), "Restart the gateway when your clients trust the new one.")
			return nil
		})
}

func loadCA(dir string) (*intercept.CA, error) {
	ca, err := intercept.LoadCA(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noCA(dir)
	}
	return ca, err
}

func noCA(dir string) error {
	return fmt.Errorf("there is no certificate authority in %s: \"lazaret ca init\" makes one, and so does the first start", dir)
}

func showCA(c *cobra.Command, dir string, ca *intercept.CA) {
	cert := ca.Certificate()
	fmt.Fprintf(c.OutOrStdout(), "Certificate  %s\nSubject      %s\nValid        %s to %s\nSHA-256      %s\n", filepath.Join(dir, "ca.pem"),
		cert.Subject, cert.NotBefore.Format("2006-01-02"), cert.NotAfter.Format("2006-01-02"), intercept.Fingerprint(cert))
}

func caExport() *cobra.Command {
	var form, out, passwordFile string
	var withKey bool
	c := withCA("export", "Write the certificate for clients, in the form that they want",
		"Write the certificate: pem (most systems), der (Windows, Android), p12 (a trust store; Java).\n"+
			"With --with-key, p12 holds the private key as well, to move the authority to another gateway: whoever has that file and\n"+
			"its password can read the traffic of every client that trusts it.",
		func(c *cobra.Command, dir string) error {
			ca, err := loadCA(dir)
			if err != nil {
				return err
			}
			data, err := exportCA(ca, form, passwordFile, withKey)
			if err != nil {
				return err
			}
			if out == "" || out == "-" {
				_, err = c.OutOrStdout().Write(data)
				return err
			}
			return writeNew(out, data, withKey)
		})
	c.Flags().StringVar(&form, "format", "pem", "pem, der or p12")
	c.Flags().StringVarP(&out, "output", "o", "", "file to write, which must not be there (default: standard output)")
	c.Flags().StringVar(&passwordFile, "password-file", "", "file whose first line is the password of a p12")
	c.Flags().BoolVar(&withKey, "with-key", false, "p12 only: with the private key")
	return c
}

func exportCA(ca *intercept.CA, form, passwordFile string, withKey bool) ([]byte, error) {
	if withKey && form != "p12" {
		return nil, errors.New("--with-key goes with --format p12 alone: the key never leaves unencrypted")
	}
	switch form {
	case "pem":
		return ca.PEM(), nil
	case "der":
		return ca.DER(), nil
	case "p12":
		if passwordFile == "" {
			return nil, errors.New("a p12 needs a password: name a file with --password-file")
		}
		b, err := os.ReadFile(passwordFile)
		if err != nil {
			return nil, fmt.Errorf("--password-file: %w", err)
		}
		password, _, _ := strings.Cut(string(b), "\n")
		password = strings.TrimSuffix(password, "\r")
		if withKey {
			return ca.PKCS12(password)
		}
		return ca.TrustStore(password)
	}
	return nil, fmt.Errorf("--format %q is not known: write pem, der or p12", form)
}

// writeNew writes a file that must not be there.
func writeNew(name string, data []byte, secret bool) error {
	mode := os.FileMode(0o644)
	if secret {
		mode = 0o600
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
