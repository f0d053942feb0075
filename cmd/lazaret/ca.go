package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"lazaret/internal/daemon"
	"lazaret/internal/intercept"

	"github.com/spf13/cobra"
)

func caCommand() *cobra.Command {
	c := &cobra.Command{Use: "ca", Short: "The gateway's certificate authority"}
	c.AddCommand(caInit(), caShow(), caExport(), caRotate(), caInstall(), caUninstall(), caPassphrase())
	return c
}

// caStore returns where the CA is, with its passphrase where one is given.
func (f *flags) caStore() (intercept.CAStore, error) {
	cfg, _, err := f.load()
	if err != nil {
		return intercept.CAStore{}, err
	}
	return daemon.CAStore(cfg)
}

// withCA gives a command the shared flags and the CA's place.
func withCA(use, short, long string, do func(c *cobra.Command, store intercept.CAStore) error) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := f.caStore()
			if err != nil {
				return err
			}
			return do(c, store)
		},
	}
	f.register(c)
	return c
}

// permitFlags keep a new CA to some names.
type permitFlags struct {
	domains  []string
	networks []string
}

func (f *permitFlags) register(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.domains, "permit-domain", nil, "keep it to this domain and all below it, by name constraints; may be repeated (default: the settings' permit_domains)")
	c.Flags().StringArrayVar(&f.networks, "permit-network", nil, "and to the addresses of this network; may be repeated")
}

// apply puts what the flags say in the place of what the settings say.
func (f *permitFlags) apply(store *intercept.CAStore) error {
	if len(f.domains) == 0 && len(f.networks) == 0 {
		return nil
	}
	store.Permit = intercept.Permit{Domains: f.domains}
	for _, s := range f.networks {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--permit-network: %w", err)
		}
		store.Permit.Networks = append(store.Permit.Networks, n)
	}
	return nil
}

func caInit() *cobra.Command {
	var permit permitFlags
	c := withCA("init", "Make a certificate authority", "Make a certificate authority where there is none. It never overwrites one: use rotate.\n"+passphraseLong,
		func(c *cobra.Command, store intercept.CAStore) error {
			if err := permit.apply(&store); err != nil {
				return err
			}
			ca, err := store.Init()
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%w: use \"lazaret ca rotate\" for a new one", err)
			}
			if err != nil {
				return err
			}
			return showCA(c, store, ca)
		})
	permit.register(c)
	return c
}

func caShow() *cobra.Command {
	return withCA("show", "Show the certificate authority", "", func(c *cobra.Command, store intercept.CAStore) error {
		ca, err := readCA(store)
		if err != nil {
			return err
		}
		return showCA(c, store, ca)
	})
}

func caRotate() *cobra.Command {
	var permit permitFlags
	c := withCA("rotate", "Make a new certificate authority in the place of the old one",
		"Make a new certificate authority, kept to the same names as the old one unless told otherwise. The old certificate is kept\n"+
			"beside it, for clients to trust both meanwhile; give clients the new one, then restart the gateway, which signs with the new\n"+
			"one from then on.\n"+passphraseLong,
		func(c *cobra.Command, store intercept.CAStore) error {
			if err := permit.apply(&store); err != nil {
				return err
			}
			ca, err := store.Rotate()
			if err != nil {
				return err
			}
			if err := showCA(c, store, ca); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "Restart the gateway when your clients trust the new one.")
			return nil
		})
	permit.register(c)
	return c
}

// readCA returns the CA without its key.
func readCA(store intercept.CAStore) (*intercept.CA, error) {
	ca, err := store.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noCA(store.Dir)
	}
	return ca, err
}

func noCA(dir string) error {
	return fmt.Errorf("there is no certificate authority in %s: \"lazaret ca init\" makes one, and so does the first start", dir)
}

func showCA(c *cobra.Command, store intercept.CAStore, ca *intercept.CA) error {
	w := c.OutOrStdout()
	cert := ca.Certificate()
	fmt.Fprintf(w, "Certificate  %s\nSubject      %s\nValid        %s to %s\nSHA-256      %s\n", filepath.Join(store.Dir, "ca.pem"),
		cert.Subject, cert.NotBefore.Format("2006-01-02"), cert.NotAfter.Format("2006-01-02"), intercept.Fingerprint(cert))
	permitted := ca.Permitted()
	for _, d := range permitted.Domains {
		fmt.Fprintf(w, "Kept to      %s and all below it\n", d)
	}
	for _, n := range permitted.Networks {
		fmt.Fprintf(w, "Kept to      %s\n", n)
	}
	encrypted, err := store.Encrypted()
	if err != nil {
		return err // nobody is to believe that such a CA can be used
	}
	fmt.Fprintf(w, "Key          %s\n", map[bool]string{true: "encrypted", false: "not encrypted; readable by its owner alone"}[encrypted])
	for _, old := range ca.Trusted()[1:] {
		fmt.Fprintf(w, "Former       %s, valid until %s, SHA-256 %s\n", old.Subject, old.NotAfter.Format("2006-01-02"), intercept.Fingerprint(old))
	}
	return nil
}

func caExport() *cobra.Command {
	var form, out, passwordFile string
	var withKey bool
	c := withCA("export", "Write the certificate for clients, in the form that they want",
		"Write the certificate: pem (most systems), der (Windows, Android), p12 (a trust store; Java).\n"+
			"With --with-key, p12 holds the private key as well, to move the authority to another gateway: whoever has that file and\n"+
			"its password can read the traffic of every client that trusts it.",
		func(c *cobra.Command, store intercept.CAStore) error {
			ca, err := readCA(store)
			if err == nil && withKey {
				ca, err = store.Load()
			}
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
		secret, err := firstLine(passwordFile)
		if err != nil {
			return nil, fmt.Errorf("--password-file: %w", err)
		}
		password := string(secret)
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
