package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

func newExport() *cobra.Command {
	var opts tfbert.ExportOptions
	var asJSON, lower, allowInt8 bool
	var profile profileValue
	var precision string
	cmd := &cobra.Command{
		Use:   "export CHECKPOINT MODEL_DIR",
		Short: "Export a checkpoint as a SavedModel",
		Long: `Export writes the inference graph and the weights of a BERT checkpoint fine-tuned
on SQuAD as a SavedModel, with the vocabulary and the other files that predicting
needs beside it. CHECKPOINT is a folder, a prefix such as model.ckpt, or an archive:
a zip, as NGC serves it, or a tar (.tar.gz, .tar.bz2). If an archive holds several,
a path in it chooses one, as in models.zip/bert. A folder of Hugging Face's
transformers (model.safetensors, config.json, vocab.txt) is one too. Optimizer
slots are left out. A failed export leaves nothing behind.

The reference graph is that of the scripts, operation for operation. The fused
graph computes the same in a few large operations. On a CPU these are oneDNN's,
in float32 or, if the CPU has units for it, in bfloat16. On a GPU they are plain
ones that XLA fuses (--use_xla), in float32 or float16.

With --precision int8 the products of the layers are in integers of 8 bits. That
is the fastest on a CPU, and some answers are not those of float32. The export
runs the model over the windows of a SQuAD file for the ranges of its numbers,
and is for CPUs like this one.`,
		Args: args("CHECKPOINT", "MODEL_DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked, err := parsePrecision(precision)
			if err != nil {
				return err
			}
			if allowInt8 && asked == tfbert.AutoPrecision {
				if asked, err = preferInt8(); err != nil {
					return err
				}
			}
			if opts.Precision, err = choosePrecision(asked, ""); err != nil {
				return err
			}
			if opts.Calibrate != "" && opts.Precision != savedmodel.INT8 {
				return usagef("--calibrate is for --precision int8")
			}
			opts.Cased, opts.Profile = !lower, profile.Profile
			return export(cmd, args[0], args[1], &opts, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Graph, "graph", tfbert.ReferenceGraph, "`graph` to write: reference, or fused for speed")
	f.StringVar(&precision, "precision", "fp32",
		"`type` of the fused graph: fp32, bf16, fp16 for a GPU, int8 for a CPU, or auto for the fastest on this machine")
	f.BoolVar(&allowInt8, "allow_int8", false, "let --precision auto choose int8, which changes some answers")
	f.StringVar(&opts.Device, "device", "",
		"`device` that the fused graph is for: cpu or gpu (default: gpu for fp16, else cpu)")
	f.StringVar(&opts.Calibrate, "calibrate", "",
		"SQuAD `file` that int8 takes the ranges of the model's numbers from (default: a small set)")
	f.IntVar(&opts.MaxSeqLength, "max_seq_length", 0, "static sequence length of the graph (0: dynamic)")
	f.StringVar(&opts.ConfigFile, "bert_config_file", "",
		"configuration `file` (default: bert_config.json beside the checkpoint)")
	f.StringVar(&opts.VocabFile, "vocab_file", "", "vocabulary `file` (default: vocab.txt beside the checkpoint)")
	f.StringVar(&opts.Head, "head", "",
		"`name` of the layer that answers questions, if the checkpoint has several that could: a variable or its scope")
	f.BoolVar(&lower, "do_lower_case", true, "the model is uncased")
	f.Var(&profile, "profile", "`version` of the scripts to tokenize as: nvidia-19.03, google or nvidia-20.06")
	f.BoolVar(&opts.Overwrite, "overwrite", false, "replace a SavedModel that exists")
	f.BoolVar(&asJSON, "json", false, "report as JSON")
	return cmd
}

func export(cmd *cobra.Command, checkpoint, dir string, opts *tfbert.ExportOptions, asJSON bool) error {
	if err := loadTensorFlow(); err != nil {
		return err
	}
	defer showProgress(opts)()
	report, err := tfbert.Export(cmd.Context(), checkpoint, dir, opts)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), report)
	}
	sayExported(report)
	return nil
}

// showProgress makes an export show its progress, until the function that it returns is called.
func showProgress(opts *tfbert.ExportOptions) (done func()) {
	var bar progress
	opts.Progress = func(done, total int) {
		if bar == nil {
			bar = newProgress("quantize", "products", int64(total))
		}
		bar.Set(int64(done))
	}
	return func() {
		if bar != nil {
			bar.Done()
		}
	}
}

func sayExported(r *tfbert.ExportReport) {
	say("exported %s to %s: %s graph in %v, %d variables (%d converted to float32), %d parameters, %.1f MB; "+
		"%d other variables left out",
		r.Checkpoint, r.Dir, r.Settings.Graph, r.Settings.Precision, r.Variables, r.Cast, r.Parameters,
		float64(r.Bytes)/1e6, r.LeftOut)
	for _, note := range r.Notes {
		say("  %s", note)
	}
	if r.Settings.Int8 != nil {
		sayInt8(r)
	}
}

// sayInt8 says what the integers depend on, and how well each kind of product agrees with float32, so that a
// checkpoint that int8 does not suit shows.
func sayInt8(r *tfbert.ExportReport) {
	s := r.Settings.Int8
	say("  int8: weights in %d bits, attention in %v; ranges from %d windows (%d tokens) of %s",
		s.WeightBits, s.Attention, s.Calibration.Windows, s.Calibration.Tokens,
		cmp.Or(s.Calibration.File, "the bundled set"))
	var names, parts []string
	worst := map[string]tfbert.QuantizedProduct{}
	for _, p := range r.Products {
		w, ok := worst[p.Name]
		if !ok {
			names = append(names, p.Name)
		}
		if !ok || p.Decibels < w.Decibels {
			worst[p.Name] = p
		}
	}
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %.1f (layer %d)", name, worst[name].Decibels, worst[name].Layer))
	}
	say("  signal to noise of the worst products, in dB: %s", strings.Join(parts, ", "))
}

// cachedModel returns the folder of a checkpoint's SavedModel in the user's cache.
func cachedModel(cmd *cobra.Command, path string, opts *tfbert.ExportOptions) (string, error) {
	if err := captureLogs(); err != nil {
		return "", err
	}
	defer showProgress(opts)()
	dir, report, err := tfbert.Cached(cmd.Context(), path, opts)
	if report != nil {
		sayExported(report)
	}
	return dir, err
}
