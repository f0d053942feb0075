// Command lazaret is a virus-scanning gateway for the web, and the tools around it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"lazaret/internal/config"
	"lazaret/internal/sandbox"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitOK       = 0
	exitInfected = 1 // scan: something was found; other commands: something is wrong
	exitError    = 2 // scan: something could not be judged; every command: it could not do its work
)

// exitCode is an error that is told already, or needs no telling.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() { os.Exit(lazaretMain()) }

func lazaretMain() int {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		sandbox.SlackenTimers()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return execute(ctx, os.Args[1:])
}

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(os.Stderr, "lazaret: %v\n", err)
	return exitError
}

// flags are what several commands share.
type flags struct {
	config   string
	stateDir string
}

func (f *flags) register(c *cobra.Command) {
	c.Flags().StringVarP(&f.config, "config", "c", "", "settings file (default: none, or /etc/lazaret/lazaret.toml where it exists)")
	c.Flags().StringVar(&f.stateDir, "state-dir", "", "where the gateway keeps its files, instead of the settings' state_dir")
}

// systemConfig is read when no other file is named.
const systemConfig = "/etc/lazaret/lazaret.toml"

// load reads the settings that the flags name, and returns the file that they came from, empty for none.
func (f *flags) load() (*config.Config, string, error) {
	file := f.config
	if file == "" {
		if _, err := os.Stat(systemConfig); err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				return nil, "", fmt.Errorf("settings: %w", err)
			}
			return f.override(config.Default()), "", nil
		}
		file = systemConfig
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, file, err
	}
	return f.override(cfg), file, nil
}

func (f *flags) override(cfg *config.Config) *config.Config {
	if f.stateDir != "" {
		cfg.StateDir = f.stateDir
	}
	return cfg
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "lazaret",
		Short: "A virus-scanning gateway for the web",
		Long: "Lazaret stands between the machines of a network and the web, has every download and every upload scanned,\n" +
			"inside HTTPS too, and lets through only what is clean.\n\n" +
			"Exit codes: 0 all is well; 1 something was found or is wrong; 2 the command could not do its work.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
	}
	root.AddCommand(runCommand(), checkCommand(), configCommand(), scanCommand(), caCommand(), demoCommand(), doctorCommand(), versionCommand(), redirectCommand(), explainCommand(), bypassCommand(), manualCommand(), quarantineCommand(), importCommand())
	root.InitDefaultCompletionCmd()
	strictGroups(root)
	return root
}

// strictGroups makes commands that only have others below them refuse a name that is none of those: help with exit code 0 would
// have a script go on.
func strictGroups(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.HasSubCommands() && !sub.Runnable() {
			sub.Args = cobra.NoArgs
			sub.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
		strictGroups(sub)
	}
}
