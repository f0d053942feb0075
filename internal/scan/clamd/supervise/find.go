// Package supervise finds a clamd that runs on this machine, and runs one where none does: with a configuration in which
// it reports what it does not look at, started again when it ends, and ended with us.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"lazaret/internal/scan/clamd"
)

// pingTime is how long a clamd at one of the usual places has to answer.
const pingTime = 2 * time.Second

// UsualAddresses returns where clamd listens as distributions configure it: Debian, Ubuntu, Fedora and its relatives, Arch,
// openSUSE, Alpine, FreeBSD, and the original sources.
func UsualAddresses() []string {
	return []string{
		"unix:/run/clamav/clamd.ctl",
		"unix:/run/clamav/clamd.sock",
		"unix:/run/clamav/clamd.socket",
		"unix:/run/clamd.scan/clamd.sock",
		"unix:/run/clamav/clamd",
		"unix:/var/run/clamav/clamd.ctl",
		"unix:/var/run/clamav/clamd.sock",
		"unix:/var/run/clamd.scan/clamd.sock",
		"unix:/var/lib/clamav/clamd-socket",
		"unix:/tmp/clamd.socket",
		"unix:/tmp/clamd.sock",
		"unix:/tmp/clamd",
		"tcp:127.0.0.1:3310",
	}
}

// Find returns those of the given addresses ("unix:/path", "tcp:host:port") at which a clamd answers PING, in their
// order, each clamd once. It takes two seconds at most.
func Find(ctx context.Context, addresses []string) []string {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	answers := make([]bool, len(addresses))
	var wg sync.WaitGroup
	for i, a := range addresses {
		wg.Go(func() {
			got, err := clamd.Command(ctx, a, "PING")
			answers[i] = err == nil && got == "PONG"
		})
	}
	wg.Wait()
	var found []string
	seen := map[string]bool{}
	for i, a := range addresses {
		if answers[i] && !seen[resolved(a)] {
			seen[resolved(a)] = true
			found = append(found, a)
		}
	}
	return found
}

// resolved returns an address with symbolic links resolved: /var/run is /run nearly everywhere.
func resolved(address string) string {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return address
	}
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return "unix:" + p
	}
	return address
}

// ErrNoProgram says that there is no clamd on this machine.
var ErrNoProgram = errors.New("no clamd program was found: install ClamAV's daemon (Debian: apt install clamav-daemon clamav-freshclam), or name the program")

// FindProgram returns the path of the clamd program, or ErrNoProgram. The directories for system programs are looked into
// even where PATH does not have them.
func FindProgram() (string, error) {
	if p := find("clamd"); p != "" {
		return p, nil
	}
	return "", ErrNoProgram
}

// UsualDatabase is where freshclam puts the signatures.
const UsualDatabase = "/var/lib/clamav"

// databaseSuffixes are the names of files that have signatures.
var databaseSuffixes = []string{
	".cvd", ".cld", ".cud", ".hdb", ".hsb", ".hdu", ".hsu", ".mdb", ".msb", ".mdu", ".msu", ".ndb", ".ndu", ".ldb", ".ldu",
	".yar", ".yara", ".cdb", ".pdb", ".wdb", ".imp",
}

// ErrNoSignatures says that clamd has nothing to find viruses by.
var ErrNoSignatures = errors.New("there are no signatures")

// CheckDatabase returns an error that says what to do when dir has no signatures; it is then an ErrNoSignatures.
func CheckDatabase(dir string) error {
	_, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the signature directory %s does not exist: install freshclam (Debian: apt install clamav-freshclam) and run it once, or name another directory", ErrNoSignatures, dir)
	case err != nil:
		return fmt.Errorf("the signature directory %s cannot be read: %w", dir, err)
	}
	if len(signatureFiles(dir)) > 0 {
		return nil
	}
	return fmt.Errorf("%w: the signature directory %s is empty: run freshclam once (systemctl start clamav-freshclam), or name another directory", ErrNoSignatures, dir)
}
