package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/tfbert"
)

func newConvert() *cobra.Command {
	var opts tfbert.ConvertOptions
	var asJSON, lower bool
	cmd := &cobra.Command{
		Use:   "convert CHECKPOINT DIR",
		Short: "Convert a checkpoint between TensorFlow 1 and safetensors",
		Long: `Convert writes the weights of a BERT that answers questions in the other of two
forms, so that each side of the world can check the other. CHECKPOINT is what
export takes.

  tf1          model.ckpt, bert_config.json and vocab.txt, for run_squad.py
  safetensors  model.safetensors, config.json and vocab.txt, for transformers

DIR must not exist or be empty. The weights are written in float32, without those
that answering questions does not need.`,
		Example: `  tfbert convert testdata/models/minilm-squad /tmp/minilm-hf
  tfbert convert /tmp/minilm-hf /tmp/minilm-tf1`,
		Args: args("CHECKPOINT", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Cased = !lower
			report, err := tfbert.Convert(cmd.Context(), args[0], args[1], &opts)
			if exists, ok := errors.AsType[*tfbert.ExistsError](err); ok {
				return fmt.Errorf("%s exists: name another directory", exists.Dir) // nothing is overwritten here
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			say("converted %s to %s (%s): %d variables, %d parameters",
				args[0], report.Dir, report.Form, report.Variables, report.Parameters)
			for _, note := range report.Notes {
				say("  %s", note)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Form, "to", "",
		"`form` to write: tf1 or safetensors (default: the one that the checkpoint does not have)")
	f.StringVar(&opts.ConfigFile, "bert_config_file", "",
		"configuration `file` (default: bert_config.json or config.json beside the checkpoint)")
	f.StringVar(&opts.VocabFile, "vocab_file", "", "vocabulary `file` (default: vocab.txt beside the checkpoint)")
	f.StringVar(&opts.Head, "head", "",
		"`name` of the layer that answers questions, if the checkpoint has several that could: a variable or its scope")
	f.BoolVar(&lower, "do_lower_case", true, "the model is uncased")
	f.BoolVar(&asJSON, "json", false, "report as JSON")
	return cmd
}
