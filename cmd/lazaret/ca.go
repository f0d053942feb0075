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
	"lazaret/internal/units"

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
	var (
		permit  permitFlags
		overlap string
		finish  bool
	)
	c := withCA("rotate", "Make a new certificate authority in the place of the old one",
		"Make the next certificate authority, kept to the same names as the one in use unless told otherwise. The one in use goes on\n"+
			"signing for the time of --overlap, over restarts. Give clients the next certificate meanwhile (\"lazaret ca export --next\", the\n"+
			"page at http://lazaret.internal/, \"lazaret ca install\"). Then the gateway signs with the next one, by itself; --finish does it\n"+
			"earlier, at the gateway's next start. Where the key of the one in use is in wrong hands, --overlap 0 replaces it at once.\n"+passphraseLong,
		func(c *cobra.Command, store intercept.CAStore) error {
			if err := permit.apply(&store); err != nil {
				return err
			}
			var ca *intercept.CA
			if finish {
				var err error
				if ca, err = store.FinishRotation(); err != nil {
					return err
				}
			} else {
				last, err := units.ParseDuration(overlap)
				if err != nil {
					return fmt.Errorf("--overlap: %w", err)
				}
				if ca, err = store.Rotate(last.Std()); err != nil {
					return err
				}
			}
			if err := showCA(c, store, ca); err != nil {
				return err
			}
			if ca.Rotation() == nil {
				fmt.Fprintln(c.OutOrStdout(), "Restart the gateway now: it signs with this one from then on, which clients have to trust.")
			} else {
				fmt.Fprintln(c.OutOrStdout(), "Give clients the next one until then. The gateway need not be restarted.")
			}
			return nil
		})
	permit.register(c)
	c.Flags().StringVar(&overlap, "overlap", units.Duration(intercept.DefaultOverlap).String(), "how long the one in use goes on signing; at most a year; 0: no longer than to the next start")
	c.Flags().BoolVar(&finish, "finish", false, "end the rotation that is under way, as all clients trust the next one")
	c.MarkFlagsMutuallyExclusive("overlap", "finish")
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
	if r := ca.Rotation(); r != nil {
		fmt.Fprintf(w, "Rotation     under way; the one above signs until %s, then:\nNext         %s\nValid        %s to %s\nSHA-256      %s\n",
			r.Until.Format("2006-01-02 15:04 MST"), r.Next.Subject, r.Next.NotBefore.Format("2006-01-02"), r.Next.NotAfter.Format("2006-01-02"), intercept.Fingerprint(r.Next))
	}
	return nil
}

func caExport() *cobra.Command {
	var form, out, passwordFile string
	var withKey, next bool
	c := withCA("export", "Write the certificate for clients, in the form that they want",
		"Write the certificate: pem (most systems), der (Windows, Android), p12 (a trust store, of the next one, too, while a rotation\n"+
			"lasts; Java).\n"+
			"With --with-key, p12 holds the private key as well, to move the authority to another gateway: whoever has that file and\n"+
			"its password can read the traffic of every client that trusts it.",
		func(c *cobra.Command, store intercept.CAStore) error {
			ca, err := readCA(store)
			if err == nil && withKey {
				ca, err = store.Load()
			}
			if err == nil && next {
				ca, err = ca.Next()
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
	c.Flags().BoolVar(&next, "next", false, "the certificate that a rotation under way has made, instead of the one in use")
	c.Flags().BoolVar(&withKey, "with-key", false, "p12 only: with the private key")
	c.MarkFlagsMutuallyExclusive("next", "with-key")
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
