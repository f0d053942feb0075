package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"lazaret/internal/config"
	"lazaret/internal/daemon"
	"lazaret/internal/sandbox"

	"github.com/spf13/cobra"
)

func runCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway",
		Long: "Run the gateway until TERM or INT, which let requests under way end; a second one ends at once.\n" +
			"HUP reads the settings again; when they are wrong the gateway says so and goes on with the old ones.\n" +
			"USR2 starts the program anew, a new version too, and hands it the sockets; when it serves, this process ends as by TERM.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), &f) },
	}
	f.register(c)
	return c
}

func run(ctx context.Context, f *flags) error {
	cfg, file, err := f.load()
	if err != nil {
		return err
	}
	if cfg.Sandbox.User != "" && os.Geteuid() == 0 {
		if err := config.Again(file); err != nil {
			return fmt.Errorf("[sandbox] user: the program is started anew as %s: %w", cfg.Sandbox.User, err)
		}
	}
	if err := sandbox.BecomeUser(cfg.Sandbox.User); err != nil {
		return err
	}
	hup, usr2 := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	signal.Notify(usr2, syscall.SIGUSR2)
	defer signal.Stop(usr2)
	d, err := daemon.Start(ctx, daemon.Options{Config: cfg, File: file, StateDir: f.stateDir, Version: version, Stderr: os.Stderr, Sandbox: true})
	if err != nil {
		if ctx.Err() != nil {
			return exitCode(exitOK) // told to end before it had begun
		}
		return err
	}
	for {
		select {
		case <-hup:
			if err := d.Reload(ctx); err != nil {
				d.Log().Error("the settings were not taken over; the old ones stay in force", "file", file, "error", err)
				continue
			}
			d.Log().Info("the settings were read again", "file", file)
		case <-usr2:
			d.Log().Info("the program is started anew, to take over")
			pid, err := d.Upgrade(ctx)
			if err != nil {
				d.Log().Error("nothing has taken over; this process goes on", "error", err)
				continue
			}
			d.Log().Info("another process has taken over; requests under way may end", "pid", pid)
			return closeDaemon(d)
		case err := <-d.Failed():
			return errors.Join(err, closeDaemon(d))
		case <-ctx.Done():
			d.Log().Info("ending; requests under way may end, a second signal ends at once")
			return closeDaemon(d)
		}
	}
}

// closeDaemon drains; a second signal cuts that short.
func closeDaemon(d *daemon.Daemon) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := d.Close(ctx); err != nil {
		return fmt.Errorf("some requests were cut off: %w", err)
	}
	return nil
}

func checkCommand() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the settings",
		Long: "Check the settings: every error of the file in one run, each with line and column. It is the check that run does.\n" +
			"Exit codes: 0 they can be used; 1 they cannot.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, file, err := f.load()
			var errs config.Errors
			if errors.As(err, &errs) {
				fmt.Fprintln(c.ErrOrStderr(), errs)
				fmt.Fprintf(c.ErrOrStderr(), "%d error(s)\n", len(errs))
				return exitCode(exitInfected)
			}
			if err != nil {
				return err
			}
			if err := daemon.Check(cfg); err != nil {
				fmt.Fprintln(c.ErrOrStderr(), err)
				return exitCode(exitInfected)
			}
			if file == "" {
				file = "the built-in settings"
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: can be used\n", file)
			for _, w := range cfg.Warnings {
				fmt.Fprintf(c.OutOrStdout(), "warning: %s\n", w)
			}
			if w := daemon.DescriptorsWarning(cfg); w != "" {
				fmt.Fprintf(c.OutOrStdout(), "warning: %s\n", w)
			}
			return nil
		},
	}
	f.register(c)
	return c
}

func configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print a commented sample of all settings",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(config.Sample())
			return err
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			v := version
			if info, ok := debug.ReadBuildInfo(); ok && v == "unknown" {
				v = info.Main.Version
			}
			fmt.Fprintf(c.OutOrStdout(), "lazaret %s (%s, %s/%s)\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
