package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"lazaret/internal/config"
	"lazaret/internal/sandbox"
	"lazaret/internal/scan/clamd/supervise"
	"lazaret/internal/scan/command"

	"golang.org/x/sys/unix"
)

// enterSandbox takes from this process what it does not need from now on. It comes before anything reads what the network
// sends, and before a scanner is started, so that a setting which does not fit into it shows at the start.
func (d *Daemon) enterSandbox(cfg *config.Config) error {
	if !d.opt.Sandbox {
		return nil
	}
	inForce, err := sandbox.Enter(cfg.Sandbox, d.needs(cfg))
	if err != nil {
		return err
	}
	d.sandboxed = cfg.Sandbox.Mode != sandbox.Off
	d.log.Info("sandbox", "in_force", inForce)
	return nil
}

// needs lists what this gateway goes on needing: whatever the settings name.
func (d *Daemon) needs(cfg *config.Config) sandbox.Needs {
	n := sandbox.Needs{
		Write: []string{cfg.StateDir, cfg.Spool.Dir},
		Exec:  []string{os.Args[0]}, // an upgrade starts it anew
	}
	if exe, err := os.Executable(); err == nil {
		n.Exec = append(n.Exec, exe)
		n.Programs = ownFolder(exe)
	}
	for _, file := range []string{cfg.Audit.File, cfg.Audit.Overflow} {
		if file != "" {
			n.Write = append(n.Write, filepath.Dir(file))
		}
	}
	n.Read = append(n.Read, "/var/lib/clamav", "/usr/local/share/clamav")
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		n.Read = append(n.Read, dir)
	}
	if d.opt.File != "" {
		n.Read = append(n.Read, filepath.Dir(d.opt.File))
	}
	paths(reflect.ValueOf(cfg).Elem(), func(path string) {
		if st, err := os.Stat(path); err == nil && !st.IsDir() {
			path = filepath.Dir(path) // a file that is replaced is another file
		}
		n.Read = append(n.Read, path)
	})
	for _, s := range cfg.Scanners {
		if c, ok := s.Settings.(command.Config); ok {
			for _, line := range [][]string{c.Command, c.VersionCommand} {
				if len(line) > 0 {
					n.Exec = append(n.Exec, line[0])
				}
			}
			if c.Dir != "" {
				n.Write = append(n.Write, c.Dir)
			}
		}
	}
	if line := cfg.Mail.Report.Program; len(line) > 0 {
		n.Exec = append(n.Exec, line[0])
	}
	needsOfClamAV(cfg, &n)
	return n
}

// ownFolder returns the folder of the program where it is for the program alone, as the package has it: lazaret/lazaret.
// Landlock knows files, not names: without a folder the new version that an upgrade puts in the old one's place would be a
// program that may not be started. A folder that others have programs in is not given away for that, nor one that this process
// can write to.
func ownFolder(exe string) []string {
	dir := filepath.Dir(exe)
	if filepath.Base(dir) != filepath.Base(exe) || unix.Access(dir, unix.W_OK) == nil && os.Geteuid() != 0 {
		return nil
	}
	return []string{dir}
}

// needsOfClamAV adds what a clamd of ours and its freshclam need; nothing where the settings have none run.
func needsOfClamAV(cfg *config.Config, n *sandbox.Needs) {
	if !runsOwn(cfg) {
		return
	}
	program, err := supervise.FindProgram()
	if cfg.ClamAV.Program != "" {
		program, err = cfg.ClamAV.Program, nil
	}
	if err == nil {
		n.Exec = append(n.Exec, program)
	}
	if cfg.ClamAV.Dir != "" {
		_ = os.MkdirAll(cfg.ClamAV.Dir, 0o700) // inside of the sandbox only what is there can be made usable; starting clamd says what is wrong
		n.Write = append(n.Write, cfg.ClamAV.Dir)
	}
	if cfg.ClamAV.Freshclam.Checks == 0 {
		return
	}
	program, err = supervise.FindFreshclam()
	if cfg.ClamAV.Freshclam.Program != "" {
		program, err = cfg.ClamAV.Freshclam.Program, nil
	}
	if err == nil {
		n.Exec = append(n.Exec, program)
		n.Write = append(n.Write, cfg.ClamAV.Database) // where it is there yet; in state_dir it may be made
	}
}

// paths calls found with every setting that is the name of something in the file system.
func paths(v reflect.Value, found func(path string)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			paths(v.Elem(), found)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				paths(v.Field(i), found)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			paths(v.Index(i), found)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			paths(v.MapIndex(key), found)
		}
	case reflect.String:
		path := v.String()
		if path == "" || path == "." || path == string(filepath.Separator) {
			return
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return
		}
		if _, err := os.Lstat(abs); err == nil {
			found(abs)
		}
	default:
	}
}

// outsideSandbox adds what to do to an error of new settings that name what the sandbox keeps away.
func (d *Daemon) outsideSandbox(err error) error {
	if d.sandboxed && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (it may be outside of the sandbox, which was made for the settings of the start: restart the gateway)", err)
	}
	return err
}
