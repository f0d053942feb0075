package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lazaret/internal/mail/submit"
	"lazaret/internal/quarantine"

	"github.com/spf13/cobra"
)

// smtpTime is how long a mail may take to be sent.
const smtpTime = 5 * time.Minute

func quarantineExportCommand() *cobra.Command {
	w := &ward{}
	var raw bool
	var output string
	c := &cobra.Command{
		Use:   "export REFERENCE",
		Short: "Write an original as an encrypted zip file, for analysis",
		Long: "Write an original as a zip file encrypted with the password \"" + quarantine.ZipPassword + "\", as samples are passed on by convention. With --raw\n" +
			"it is written as it is: other scanners may take it away, and a click may run it.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return w.with(c.Context(), func() error {
				detail := "zip"
				if raw {
					detail = "raw"
				}
				return w.actOn(c.Context(), "export", args[0], detail, func(e quarantine.Entry) error {
					path := output
					if path == "" && raw {
						path = e.ID + ".raw"
					} else if path == "" {
						path = e.ID + ".zip"
					}
					return w.write(c, e.ID, path, func(out io.Writer, r io.Reader) error {
						if raw {
							_, err := io.Copy(out, r)
							return err
						}
						return quarantine.WriteZip(out, fileName(e), e.Time, quarantine.ZipPassword, r)
					})
				})
			})
		},
	}
	w.register(c)
	w.registerIdentity(c)
	c.Flags().BoolVar(&raw, "raw", false, "as it is, neither packed nor encrypted")
	c.Flags().StringVarP(&output, "output", "o", "", "the file; - is standard output (default: the reference with .zip or .raw)")
	return c
}

func quarantineReleaseCommand() *cobra.Command {
	w := &ward{}
	var output string
	d := submit.Delivery{Timeout: smtpTime}
	c := &cobra.Command{
		Use:   "release REFERENCE",
		Short: "Give an original to whom it was meant for",
		Long: "Give an original to whom it was meant for: as a file (a mail as .eml, anything else under its own name), or with --smtp by\n" +
			"sending the mail again. The entry stays until it is deleted. A mail that is sent to a mailbox which is read through the\n" +
			"gateway is judged again there.",
		Example: "  lazaret quarantine release 4FJ2-9QX0-K7 -o mail.eml\n" +
			"  lazaret quarantine release 4FJ2-9QX0-K7 --smtp localhost:25 --to alice@example.org",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if (d.Server != "") != (len(d.To) > 0) || d.Server != "" && output != "" {
				return errors.New("write --output FILE, or --smtp HOST:PORT together with --to ADDRESS")
			}
			if d.Server == "" && (d.From != "" || d.NoTLS) {
				return errors.New("--from and --no-starttls are about --smtp, which is missing")
			}
			return w.with(c.Context(), func() error {
				detail := "to a file"
				if d.Server != "" {
					detail = "by " + d.Server + " to " + strings.Join(d.To, ", ")
				}
				return w.actOn(c.Context(), "release", args[0], detail, func(e quarantine.Entry) error {
					if d.Server != "" {
						return w.send(c.Context(), c.OutOrStdout(), d, e)
					}
					path := output
					if path == "" {
						path = fileName(e)
					}
					return w.write(c, e.ID, path, func(out io.Writer, r io.Reader) error {
						_, err := io.Copy(out, w.marked(e, r))
						return err
					})
				})
			})
		},
	}
	w.register(c)
	w.registerIdentity(c)
	c.Flags().StringVarP(&output, "output", "o", "", "the file; - is standard output (default: the reference with the original's ending)")
	c.Flags().StringVar(&d.Server, "smtp", "", "the mail server: host:25, or smtps://host:465. STARTTLS is used where it is offered, with a valid certificate")
	c.Flags().StringSliceVar(&d.To, "to", nil, "with --smtp: the recipient; may be repeated")
	c.Flags().StringVar(&d.From, "from", "", "with --smtp: the envelope's sender (default: none, so that nothing bounces)")
	c.Flags().BoolVar(&d.NoTLS, "no-starttls", false, "with --smtp: do without STARTTLS")
	return c
}

func (w *ward) send(ctx context.Context, out io.Writer, d submit.Delivery, e quarantine.Entry) error {
	if !isMail(e) {
		return fmt.Errorf("%s is no mail: release it to a file", e.ID)
	}
	_, r, err := w.store.Original(ctx, e.ID, w.identity)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Send(ctx, w.marked(e, r)), r.Close()); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: sent to %s\n", e.ID, shown(strings.Join(d.To, ", "), 200))
	return nil
}

// marked puts the configured header field before a mail.
func (w *ward) marked(e quarantine.Entry, r io.Reader) io.Reader {
	if w.cfg.ReleaseHeader == "" || !isMail(e) {
		return r
	}
	field := w.cfg.ReleaseHeader + ": " + e.ID + "; " + time.Now().Format(time.RFC1123Z) + "\r\n"
	return io.MultiReader(strings.NewReader(field), r)
}

func isMail(e quarantine.Entry) bool { return e.Type == "message/rfc822" }

// fileName is what an original is called outside: the reference, with the ending of its own name where that is harmless.
func fileName(e quarantine.Entry) string {
	if isMail(e) {
		return e.ID + ".eml"
	}
	ext := filepath.Ext(e.Name)
	if len(ext) < 2 || len(ext) > 10 || strings.ContainsFunc(ext[1:], func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return e.ID + ".bin"
	}
	return e.ID + ext
}

// write has f write an original to a new file, for its owner alone. A file that is not whole is removed.
func (w *ward) write(c *cobra.Command, id, path string, f func(io.Writer, io.Reader) error) (err error) {
	_, r, err := w.store.Original(c.Context(), id, w.identity)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if path == "-" {
		return f(c.OutOrStdout(), r)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already; name another file with --output", path)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(f(out, r), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: written to %s\n", id, path)
	return nil
}
