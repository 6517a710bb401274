package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/models"
)

func newModel() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "model",
		Short: "Pull, list and remove the models of your cache",
		Long: `Model manages the models in your cache: those that you pull, whose names stand
wherever --model does, and the SavedModels that checkpoints were exported as.`,
		Example: `  tfbert model pull
  tfbert answer --model minilm-squad --question 'Who wrote it?' --context 'It was written by Ada Lovelace.'`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newModelPull(), newModelList(), newModelShow(), newModelPath(), newModelRemove(), newModelPrune())
	return cmd
}

func newModelPull() *cobra.Command {
	var opts models.PullOptions
	cmd := &cobra.Command{
		Use:   "pull [NAME | PATH | URL]",
		Short: "Put a model into your cache",
		Long: `Pull puts a model into your cache and prints its folder. It takes

  ` + bundledName + `   the model that comes with the source (the default). It is a Go module,
                 which comes from the proxy that Go itself would ask (GOPROXY)
                 and whose go.sum hash this program knows
  PATH           a folder or an archive (zip, tar) with a checkpoint or SavedModel
  URL            an archive at an https address, such as that of a model on NGC,
                 whose SHA-256 you know and pass with --sha256

A pull that fails or is interrupted leaves nothing.`,
		Example: `  tfbert model pull
  tfbert model pull results/bert_base.zip --name base
  tfbert model pull https://example.com/bert.zip --sha256 SUM --name bert`,
		Args:              atMostOne,
		ValidArgsFunction: completeNames(func() []string { return []string{bundledName} }),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := models.Open()
			if err != nil {
				return err
			}
			var m *models.Model
			switch source := strings.Join(args, ""); {
			case (source == "" || source == bundledName) && opts.Name == "" && opts.SHA256 == "":
				m, err = pullBundled(cmd.Context(), store, &opts)
			case source == "":
				return usagef("--name and --sha256 are for a path or an address")
			default:
				m, err = pulling(source, &opts, func() (*models.Model, error) {
					return store.Pull(cmd.Context(), source, &opts)
				})
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), m.Path)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Name, "name", "", "`name` of the model in the cache (default: that of the folder or archive)")
	f.StringVar(&opts.SHA256, "sha256", "", "`digest` of the archive, in hexadecimal")
	f.BoolVar(&opts.Overwrite, "overwrite", false, "replace a model of this name")
	return cmd
}

// atMostOne takes one argument or none, which may be an address.
func atMostOne(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("unexpected argument: %s", args[1])
	}
	return nil
}

func pullBundled(ctx context.Context, store *models.Store, opts *models.PullOptions) (*models.Model, error) {
	module := models.Bundled
	return pulling(module.String(), opts, func() (*models.Model, error) { return store.PullModule(ctx, &module, opts) })
}

// pulling shows the progress of a pull. A source that is not downloaded has none.
func pulling(source string, opts *models.PullOptions, pull func() (*models.Model, error)) (*models.Model, error) {
	var bar progress
	opts.Progress = func(done, total int64) {
		if bar == nil {
			say("pulling %s", strings.SplitN(source, "?", 2)[0])
			bar = newProgress("pull", "B", total)
		}
		bar.Set(done)
	}
	m, err := pull()
	if bar != nil {
		bar.Done()
	}
	return m, err
}

func newModelList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the models of your cache",
		Long: `List shows the models that were pulled, and then the SavedModels that checkpoints
were exported as, which 'tfbert model prune' frees.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := models.Open()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]models.Model{}, list...))
			}
			if len(list) == 0 {
				say("tfbert: there are no models in your cache; 'tfbert model pull' gets %s", bundledName)
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "name\tform\tgraph\tprecision\tsize\tsource")
			for _, m := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n",
					m.Name, formText(&m), cmp.Or(m.Graph, "-"), cmp.Or(m.Precision, "-"), bytesText(m.Size), m.Source)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func formText(m *models.Model) string {
	if m.Exported {
		return "export"
	}
	return m.Form
}

// bytesText returns a number of bytes as a person reads it.
func bytesText(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func newModelShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show what is known of a model",
		Args:              args("NAME"),
		ValidArgsFunction: completeNames(modelNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := getModel(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m)
			}
			return printModel(cmd.OutOrStdout(), m)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printModel(out io.Writer, m *models.Model) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	time, when := m.Time.Local().Format(time.DateTime), "pulled"
	if m.Exported {
		when = "last used"
	}
	for _, row := range [][2]string{
		{"name", m.Name}, {"form", formText(m)}, {"graph", m.Graph}, {"precision", m.Precision},
		{"size", fmt.Sprintf("%s (%d bytes)", bytesText(m.Size), m.Size)},
		{"source", m.Source}, {"verified by", m.Sum}, {when, time}, {"path", m.Path},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
	return w.Flush()
}

func newModelPath() *cobra.Command {
	return &cobra.Command{
		Use:               "path [NAME]",
		Short:             "Print the folder of a model",
		Args:              atMostOne,
		ValidArgsFunction: completeNames(modelNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := getModel(cmp.Or(strings.Join(args, ""), bundledName))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), m.Path)
			return err
		},
	}
}

func getModel(name string) (*models.Model, error) {
	store, err := models.Open()
	if err != nil {
		return nil, err
	}
	return store.Get(name)
}

func newModelRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove models from your cache",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("missing argument: NAME")
			}
			for _, name := range args {
				if err := file.CheckLocal(name); err != nil {
					return usagef("NAME: %w", err)
				}
			}
			return nil
		},
		ValidArgsFunction: completeNames(modelNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := models.Open()
			if err != nil {
				return err
			}
			for _, name := range args {
				m, err := store.Remove(cmd.Context(), name)
				if err != nil {
					return err
				}
				say("removed %s: %s", m.Name, bytesText(m.Size))
			}
			return nil
		},
	}
}

func newModelPrune() *cobra.Command {
	var unused time.Duration
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Free what exports left in your cache",
		Long: `Prune removes the SavedModels that checkpoints were exported as, which the next
use of the checkpoint makes again, and what interrupted exports and pulls left.
Models that were pulled stay.`,
		Args: args(),
		RunE: func(_ *cobra.Command, _ []string) error {
			if unused < 0 {
				return usagef("--unused_for must not be negative")
			}
			store, err := models.Open()
			if err != nil {
				return err
			}
			left, err := store.Leftovers(unused)
			if err != nil {
				return err
			}
			var sum int64
			for _, l := range left {
				if dryRun {
					say("would remove %s: %s", l.Path, bytesText(l.Size))
				} else if err := store.Free(l); err != nil {
					return err
				} else {
					say("removed %s: %s", l.Path, bytesText(l.Size))
				}
				sum += l.Size
			}
			if dryRun {
				say("this would free %s", bytesText(sum))
				return nil
			}
			say("freed %s", bytesText(sum))
			return nil
		},
	}
	f := cmd.Flags()
	f.DurationVar(&unused, "unused_for", 0, "leave what was used within this `time`, such as 720h")
	f.BoolVar(&dryRun, "dry_run", false, "say what would be removed, and remove nothing")
	return cmd
}

// modelNames returns the names of the models in the cache, for completion.
func modelNames() (names []string) {
	store, err := models.Open()
	if err != nil {
		return nil
	}
	list, err := store.List()
	if err != nil {
		return nil
	}
	for _, m := range list {
		names = append(names, m.Name)
	}
	return names
}

// completeNames completes names, besides the paths that a shell knows.
func completeNames(names func() []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, prefix string) (found []cobra.Completion, _ cobra.ShellCompDirective) {
		for _, name := range names() {
			if strings.HasPrefix(name, prefix) {
				found = append(found, name)
			}
		}
		return found, cobra.ShellCompDirectiveDefault
	}
}
