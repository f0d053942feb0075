package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"lazaret/internal/intercept"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const passphraseLong = "The key is encrypted where there is a passphrase: in the systemd credential ca-passphrase, or in the environment variable\n" +
	"LAZARET_CA_PASSPHRASE."

func caPassphrase() *cobra.Command {
	c := &cobra.Command{
		Use:   "passphrase",
		Short: "Encrypt the authority's key, or decrypt it",
		Long: "Encrypt the authority's key with a passphrase (PKCS#8, PBES2 with scrypt and AES-256), change that, or remove it. From the next\n" +
			"start on the gateway needs the passphrase: as the systemd credential ca-passphrase, or in the environment variable\n" +
			"LAZARET_CA_PASSPHRASE. Without it, or with a wrong one, it does not start.",
	}
	c.AddCommand(
		passphraseCommand("set", "Encrypt a key that is not encrypted", false, true),
		passphraseCommand("change", "Encrypt an encrypted key with another passphrase", true, true),
		passphraseCommand("remove", "Decrypt the key", true, false),
	)
	return c
}

// passphraseCommand makes one of them: for a key that is encrypted or not, and will be or not.
func passphraseCommand(use, short string, is, will bool) *cobra.Command {
	var newFile, currentFile string
	c := withCA(use, short, "", func(c *cobra.Command, store intercept.CAStore) error {
		encrypted, err := store.Encrypted()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return noCA(store.Dir)
		case err != nil:
			return err
		case encrypted && !is:
			return errors.New("the key is encrypted already: use \"lazaret ca passphrase change\"")
		case !encrypted && is:
			return errors.New("the key is not encrypted: \"lazaret ca passphrase set\" encrypts it")
		}
		ask := asker{c}
		if is && currentFile != "" {
			if store.Passphrase, err = firstLine(currentFile); err != nil {
				return fmt.Errorf("--current-file: %w", err)
			}
		} else if is && len(store.Passphrase) == 0 {
			if store.Passphrase, err = ask.once("Passphrase of the key: "); err != nil {
				return fmt.Errorf("the current passphrase: %w; or name a file with --current-file", err)
			}
		}
		var next []byte
		if will {
			if next, err = ask.fresh(newFile); err != nil {
				return err
			}
		}
		if err := store.SetPassphrase(next); err != nil {
			return err
		}
		if will {
			fmt.Fprintln(c.OutOrStdout(), "The key is encrypted. At its next start the gateway needs the passphrase: as the systemd credential ca-passphrase, or in LAZARET_CA_PASSPHRASE.")
		} else {
			fmt.Fprintln(c.OutOrStdout(), "The key is not encrypted any more. Its file is readable by its owner alone.")
		}
		return nil
	})
	if will {
		c.Flags().StringVar(&newFile, "new-file", "", "file whose first line is the new passphrase; - for standard input (default: ask)")
	}
	if is {
		c.Flags().StringVar(&currentFile, "current-file", "", "file whose first line is the current passphrase (default: the credential, the environment, or ask)")
	}
	return c
}

// asker asks on the terminal.
type asker struct{ c *cobra.Command }

// once asks without showing what is typed.
func (a asker) once(prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errors.New("there is no terminal to ask on")
	}
	fmt.Fprint(a.c.ErrOrStderr(), prompt)
	p, err := term.ReadPassword(fd)
	fmt.Fprintln(a.c.ErrOrStderr())
	return p, err
}

// fresh returns the new passphrase: of a file, or asked for twice.
func (a asker) fresh(file string) ([]byte, error) {
	if file != "" {
		p, err := firstLine(file)
		if err != nil {
			return nil, fmt.Errorf("--new-file: %w", err)
		}
		return p, intercept.CheckPassphrase(p)
	}
	first, err := a.once("New passphrase: ")
	if err != nil {
		return nil, fmt.Errorf("the new passphrase: %w; or name a file with --new-file", err)
	}
	if err := intercept.CheckPassphrase(first); err != nil {
		return nil, err
	}
	again, err := a.once("Once more: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, again) {
		return nil, errors.New("the two differ; nothing was changed")
	}
	return first, nil
}

// firstLine returns the first line of a file, or of standard input for "-".
func firstLine(name string) ([]byte, error) {
	var r io.Reader = os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("the first line of %s is empty", name)
	}
	return line, nil
}
