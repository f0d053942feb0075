package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"lazaret/internal/config"
	"lazaret/internal/daemon"
	"lazaret/internal/intercept"

	"github.com/spf13/cobra"
)

// level is how bad a finding is.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
)

// examination is one thing that the doctor looked at.
type examination struct {
	What  string `json:"what"`
	Level level  `json:"level"`
	Seen  string `json:"seen"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// doctor collects examinations.
type doctor struct {
	cfg  *config.Config
	file string
	all  []examination
}

func (d *doctor) note(what string, l level, seen, do string) {
	d.all = append(d.all, examination{What: what, Level: l, Seen: seen, Do: do})
}

func doctorCommand() *cobra.Command {
	var f flags
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with an installation, and say what to do",
		Long: "Look at the settings, the certificate authority, each scanner (does it really catch EICAR: plain, zipped, at its size\n" +
			"limit and beyond?), the age of the signatures, the disk, and the listeners of the running gateway.\n" +
			"Exit codes: 0 all is well, or there are warnings; 1 something is wrong; 2 the doctor could not work.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d := &doctor{}
			d.examine(c.Context(), &f)
			return d.tell(c.OutOrStdout(), asJSON)
		},
	}
	f.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func (d *doctor) examine(ctx context.Context, f *flags) {
	cfg, file, err := f.load()
	if file == "" {
		file = "built-in"
	}
	if err != nil {
		d.note("settings", levelFail, err.Error(), "correct the file; \"lazaret config\" prints a sample")
		return
	}
	d.cfg, d.file = cfg, file
	// The check reads the CA, too: a fault of the CA is not one of the settings.
	if d.authority() {
		if err := daemon.Check(cfg); err != nil {
			d.note("settings", levelFail, err.Error(), "correct "+file)
			return
		}
	}
	d.note("settings", levelOK, file, "")
	d.disk()
	d.files()
	d.clock()
	d.scanners(ctx)
	d.listeners(ctx)
}

// authority looks at the CA's validity, its key, and who can read it. It says whether the CA can be used, or made.
func (d *doctor) authority() bool {
	const what = "certificate authority"
	dir := filepath.Join(d.cfg.StateDir, "ca")
	store, err := daemon.CAStore(d.cfg)
	if err != nil {
		d.note(what, levelFail, err.Error(), "as it says")
		return false
	}
	if w := store.Warning(); w != "" {
		d.note(what, levelWarn, w, "as it says")
	}
	ca, err := store.Load()
	switch {
	case errors.Is(err, intercept.ErrNoPassphrase):
		d.note(what, levelWarn, "the key is encrypted, and its passphrase is not given here: it was not tried", "the gateway says at its start whether it has it")
		if ca, err := store.Read(); err == nil && ca.Rotation() != nil {
			d.rotation(ca.Rotation())
		}
		return true
	case errors.Is(err, fs.ErrNotExist):
		d.note(what, levelWarn, "there is none in "+dir, "start the gateway once, or run \"lazaret ca init\"; or name the right --state-dir")
		return true
	case err != nil:
		d.note(what, levelFail, err.Error(), "as it says; clients see no page over HTTPS meanwhile")
		return false
	}
	cert := ca.Certificate()
	left := time.Until(cert.NotAfter)
	seen := fmt.Sprintf("%s, valid until %s, SHA-256 %s", filepath.Join(dir, "ca.pem"), cert.NotAfter.Format("2006-01-02"), intercept.Fingerprint(cert))
	if r := ca.Rotation(); r != nil {
		d.rotation(r)
	} else if left < 60*24*time.Hour {
		d.note(what, levelWarn, seen, "it ends soon: run \"lazaret ca rotate\", and give clients the new certificate")
		return true
	}
	d.note(what, levelOK, seen, "")
	return true
}

// rotationDue is how long a rotation may last beyond its time: the running gateway looks every few seconds.
const rotationDue = time.Minute

// rotation tells of a rotation that is under way.
func (d *doctor) rotation(r *intercept.Rotation) {
	const what = "rotation of the authority"
	seen := fmt.Sprintf("under way until %s; the next one has SHA-256 %s", r.Until.Format("2006-01-02 15:04 MST"), intercept.Fingerprint(r.Next))
	switch left := time.Until(r.Until); {
	case left < -rotationDue:
		d.note(what, levelFail, seen, "its time is over: the gateway has not run since, or its log says why it goes on; \"lazaret ca rotate --finish\" ends it, or says what is wrong")
	case left < 7*24*time.Hour:
		d.note(what, levelWarn, seen, "it ends soon: every client has to trust the next certificate by then (\"lazaret ca export --next\")")
	default:
		d.note(what, levelOK, seen, "")
	}
}

// disk looks at the room where objects wait.
func (d *doctor) disk() {
	dir := d.cfg.Spool.Dir
	if dir == "" {
		dir = d.cfg.StateDir
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		l := levelFail
		if errors.Is(err, fs.ErrNotExist) {
			l = levelWarn
		}
		d.note("disk", l, fmt.Sprintf("%s: %v", dir, err), "the first start makes it; or name the right --state-dir")
		return
	}
	free := int64(st.Bavail) * st.Bsize
	seen := fmt.Sprintf("%d MiB free at %s", free>>20, dir)
	if free < int64(d.cfg.Spool.MinFree)+int64(d.cfg.Spool.MaxObject) {
		d.note("disk", levelWarn, seen, fmt.Sprintf("an object of max_object (%v) does not fit beside min_free (%v): make room, or lower [spool] max_object",
			d.cfg.Spool.MaxObject, d.cfg.Spool.MinFree))
		return
	}
	d.note("disk", levelOK, seen, "")
}

// files looks at how many files may be open: by whoever runs the doctor, which may be others than the gateway has.
func (d *doctor) files() {
	if w := daemon.DescriptorsWarning(d.cfg); w != "" {
		d.note("open files", levelWarn, w, "as it says, where the gateway is run like the doctor; the unit has a limit of its own (systemctl show -p LimitNOFILE lazaret)")
		return
	}
	d.note("open files", levelOK, "enough for web.max_connections", "")
}

// clock notices a clock that is far off: every certificate would look wrong.
func (d *doctor) clock() {
	now := time.Now()
	exe, err := os.Executable()
	if err != nil {
		return
	}
	st, err := os.Stat(exe)
	if err == nil && now.Before(st.ModTime().Add(-24*time.Hour)) {
		d.note("clock", levelFail, now.Format(time.RFC3339)+", before this program was made", "set the clock (timedatectl, chrony): certificates are judged by it")
		return
	}
	d.note("clock", levelOK, now.Format(time.RFC3339), "")
}

// scanners makes the engines as a start would, and tries them.
func (d *doctor) scanners(ctx context.Context) {
	quiet := slog.New(slog.DiscardHandler)
	j, err := daemon.NewJudge(ctx, d.cfg, quiet)
	if err != nil {
		d.note("scanners", levelFail, err.Error(), "the gateway does not start without; as it says")
		return
	}
	defer j.Close()
	words, degraded := j.Engines()
	if degraded {
		d.note("scanners", levelWarn, words, "the built-in signatures alone know little more than EICAR: install ClamAV (apt-get install clamav-daemon)")
	} else {
		d.note("scanners", levelOK, words, "")
	}
	for _, m := range j.Set().Members() {
		d.tryScanner(ctx, m.Scanner)
	}
	for _, t := range trials(d.cfg) {
		d.try(ctx, j, t)
	}
}

// listeners asks the running gateway about itself.
func (d *doctor) listeners(ctx context.Context) {
	const what = "running gateway"
	if d.cfg.Admin.Listen == "" {
		d.note(what, levelWarn, "[admin] listen is empty, so it cannot be asked", "set [admin] listen = \"127.0.0.1:8128\"")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.cfg.Admin.Listen+"/readyz", http.NoBody)
	if err != nil {
		d.note(what, levelFail, err.Error(), "correct [admin] listen")
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.note(what, levelWarn, "does not answer: "+err.Error(), "start it: \"lazaret run\"")
		return
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		d.note(what, levelFail, err.Error(), "look at its log")
		return
	}
	if resp.StatusCode != http.StatusOK {
		d.note(what, levelFail, "is not ready: "+string(body), "as it says; its log has more")
		return
	}
	d.note(what, levelOK, "ready, asked at "+d.cfg.Admin.Listen, "")
	d.proxies(ctx)
}

// proxies sends each explicit listener a request for itself.
func (d *doctor) proxies(ctx context.Context) {
	for _, addr := range d.cfg.Web.Listen {
		req, err := http.NewRequestWithContext(ctx, http.MethodOptions, "http://"+addr, http.NoBody)
		if err == nil {
			req.URL.Opaque = "*"
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				err = resp.Body.Close()
			}
		}
		if err != nil {
			d.note("proxy "+addr, levelFail, err.Error(), "another gateway may be running with other settings; look at its log")
			continue
		}
		d.note("proxy "+addr, levelOK, "answers", "")
	}
}

func (d *doctor) tell(out io.Writer, asJSON bool) error {
	worst := levelOK
	for _, e := range d.all {
		if e.Level == levelFail || e.Level == levelWarn && worst == levelOK {
			worst = e.Level
		}
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(d.all); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, e := range d.all {
			fmt.Fprintf(table, "%s\t%s\t%s\n", e.Level, e.What, e.Seen)
			if e.Do != "" {
				fmt.Fprintf(table, "\t\t→ %s\n", e.Do)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if worst == levelFail {
		return exitCode(exitInfected)
	}
	return nil
}
