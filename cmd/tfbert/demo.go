package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

const (
	demoQuestion = "How many panes does the lantern have?"
	demoPassage  = "The lantern of the Skarvholm light was cast in Bergen in 1871. It has twenty-four panes, " +
		"of which two were broken in the storm of 1904 and never replaced with glass of the same tint."
)

func newDemo() *cobra.Command {
	var outputDir, question, passage string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Export, predict, evaluate and answer with the bundled model",
		Long: `Demo runs the whole way from a TF1 checkpoint to answers and scores with what
comes with the source, and prints the command of each step.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			models, err := bundledDir(cmd.Context())
			if err != nil {
				return err
			}
			model, questions := filepath.Join(outputDir, "model"), filepath.Join(models, demoFile)
			for _, step := range [][]string{
				{"export", filepath.Join(models, bundledName), model, "--overwrite"},
				{"predict", "--model", model, "--predict_file", questions, "--output_dir", outputDir},
				{"evaluate", questions, filepath.Join(outputDir, "predictions.json")},
				{"answer", "--model", model, "--question", question, "--context", passage},
			} {
				say("\n$ tfbert %s", commandLine(step))
				root := newRoot()
				root.SetArgs(step)
				root.SetOut(cmd.OutOrStdout())
				if err := root.ExecuteContext(cmd.Context()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&outputDir, "output_dir", "tfbert-demo", "`directory` for the model and the prediction files")
	f.StringVar(&question, "question", demoQuestion, "the question to answer last")
	f.StringVar(&passage, "context", demoPassage, "the passage to answer it from")
	return cmd
}

// commandLine writes arguments as one would type them.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " '\"?*$\\") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}
