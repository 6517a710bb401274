// Command tfbert runs TF1 BERT checkpoints for question answering: it exports them as SavedModels,
// answers SQuAD files and single questions with them, and scores the answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/file"
)

// Exit statuses.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once, in the middle of whatever TensorFlow does.
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(positiveFlags(root, args))
	cmd, err := root.ExecuteContextC(ctx)
	switch usage := (*usageError)(nil); {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		printError(err)
		hint("run '%s --help' for what it takes", cmd.CommandPath())
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		printError(errors.New("interrupted"))
	default:
		printError(err)
	}
	return exitFailure
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tfbert",
		Short: "Run TF1 BERT checkpoints for question answering",
		Long: `tfbert runs NVIDIA's and Google's TF1 BERT checkpoints for question answering:
it exports a checkpoint as a SavedModel, runs it through libtensorflow, and
turns logits into the answers, files and scores of the reference scripts.

Flags have the names and defaults of run_squad.py; '-' and '_' are the same in
them. Results go to standard output or to --output_dir, everything else to
standard error.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		Args:              noCommand,
		PersistentPreRunE: checkPaths,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVarP(&verbose, "verbose", "v", verbose, "show what TensorFlow logs")
	root.SetUsageTemplate(usageTemplate)
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "-", "_"))
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{flagError(err)} })
	root.AddCommand(
		newLib(), newModel(), newInspect(), newExport(), newConvert(), newTokenize(), newFeatures(), newPredict(), newBatch(),
		newDecode(), newEvaluate(), newCompare(), newAnswer(), newServe(), newDemo(), newBench(), newHealth(), newVersion(),
	)
	return root
}

// args makes a command take exactly the named arguments, which are paths.
func args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		for i, path := range args[:min(len(args), len(names))] {
			if err := file.CheckLocal(path); err != nil {
				return usagef("%s: %w", names[i], err)
			}
		}
		switch {
		case len(args) > len(names):
			return usagef("unexpected argument: %s", args[len(names)])
		case len(args) < len(names):
			return usagef("missing argument: %s", strings.Join(names[len(args):], " "))
		}
		return nil
	}
}

// noCommand refuses the arguments of a command that only has others below it.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("no such command: %s", args[0])
	cmd.SuggestionsMinimumDistance = 2 // letters
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
	}
	return &usageError{err}
}

// flagError says in terms of the command line what pflag says in terms of Go.
func flagError(err error) error {
	if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) {
		if instead := replacement(strings.ReplaceAll(unknown.GetSpecifiedName(), "-", "_")); instead != "" {
			return fmt.Errorf("%w: %s", err, instead)
		}
		return err
	}
	invalid, number := (*pflag.InvalidValueError)(nil), (*strconv.NumError)(nil)
	if !errors.As(err, &invalid) {
		return err
	}
	flag := invalid.GetFlag()
	if !errors.As(err, &number) {
		return fmt.Errorf("--%s: %w", flag.Name, invalid.Unwrap())
	}
	want := map[string]string{
		"int":      "a whole number",
		"int64":    "a whole number",
		"intSlice": "whole numbers, as in 1,8",
		"float64":  "a number",
		"bool":     "true or false",
	}[flag.Value.Type()]
	return fmt.Errorf("--%s takes %s, not %q", flag.Name, want, invalid.GetValue())
}

// positiveFlags rewrites --noNAME to --NAME=false where NAME is a boolean flag of the command, as
// the reference's flags library understands it.
func positiveFlags(root *cobra.Command, arguments []string) []string {
	cmd, _, err := root.Find(arguments)
	if err != nil {
		return arguments
	}
	out := make([]string, len(arguments))
	for i, a := range arguments {
		out[i] = a
		if a == "--" {
			copy(out[i:], arguments[i:])
			break
		}
		name, ok := strings.CutPrefix(a, "--no")
		if !ok || cmd.Flags().Lookup("no"+name) != nil {
			continue
		}
		if f := cmd.Flags().Lookup(name); f != nil && f.Value.Type() == "bool" {
			out[i] = "--" + name + "=false"
		}
	}
	return out
}
