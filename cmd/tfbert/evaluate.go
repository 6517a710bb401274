package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/prcurve"
	"github.com/tfbert/go/squad"
)

func newEvaluate() *cobra.Command {
	var version, outFile, naProbFile, imageDir, imageFormat string
	var naProbThresh float64
	cmd := &cobra.Command{
		Use:   "evaluate DATA PREDICTIONS",
		Short: "Score answers as the official SQuAD scripts do",
		Long: `Evaluate prints what evaluate-v1.1.py or evaluate-v2.0.py prints, whichever the
data set's version asks for.`,
		Args: args("DATA", "PREDICTIONS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version != "" && version != "1.1" && version != "2.0" {
				return usagef("--version is 1.1 or 2.0, not %q", version)
			}
			if imageDir != "" && naProbFile == "" {
				return usagef("--out-image-dir needs --na-prob-file")
			}
			if imageFormat != "png" && imageFormat != "svg" {
				return usagef("--out-image-format is png or svg, not %q", imageFormat)
			}
			data, err := readReference(args[0])
			if err != nil {
				return swapped(err)
			}
			switch version = cmp.Or(version, strings.TrimPrefix(data.Version, "v")); {
			case version != "1.1" && version != "2.0" && data.Version == "":
				return fmt.Errorf("%s does not have a version: pass --version 1.1 or 2.0", args[0])
			case version != "1.1" && version != "2.0":
				return fmt.Errorf("the data set's version is %q: pass --version 1.1 or 2.0", data.Version)
			case version == "1.1" && naProbFile != "":
				return usagef("--na-prob-file is for SQuAD 2.0; to score by its rules, pass --version 2.0")
			}
			answers, err := file.Parse(args[1], func(r io.Reader) (map[string]string, error) {
				return squad.ReadAnswers(r, data.has)
			})
			if err != nil {
				return swapped(err)
			}
			opts := squad.EvaluateOptions{Version: version, NAProbThresh: &naProbThresh, Analyze: imageDir != ""}
			if naProbFile != "" {
				opts.NAProbs, err = file.Parse(naProbFile, func(r io.Reader) ([]squad.NAProb, error) {
					return squad.ReadNAProbs(r, data.has)
				})
				if err != nil {
					return err
				}
			}
			report, err := squad.Evaluate(data.Dataset, answers, &opts)
			if read := (*squad.ReadError)(nil); errors.As(err, &read) {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err != nil {
				return err
			}
			data.warn()
			if imageDir != "" && report.Analysis != nil {
				if err := prcurve.Write(imageDir, imageFormat, report.Analysis); err != nil {
					return err
				}
			}
			stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
			if outFile == "" {
				return report.Print(stdout, stderr)
			}
			if err := report.PrintMessages(stdout, stderr); err != nil {
				return err
			}
			return writeReport(outFile, report)
		},
	}
	f := cmd.Flags()
	f.StringVar(&version, "version", "", "rules of SQuAD 1.1 or 2.0 (default: the data set's version)")
	f.StringVarP(&outFile, "out_file", "o", "", "`file` to write the scores to instead of printing them")
	f.StringVarP(&naProbFile, "na_prob_file", "n", "", "`file` with no-answer probabilities, or null_odds.json")
	f.Float64VarP(&naProbThresh, "na_prob_thresh", "t", 1,
		"probability above which a question counts as having no answer")
	f.StringVarP(&imageDir, "out_image_dir", "p", "", "`directory` for precision-recall plots")
	f.StringVar(&imageFormat, "out_image_format", "png", "png or svg")
	return cmd
}

// swapped adds to an error of reading an argument that it may be another one.
func swapped(err error) error {
	if content := (*squad.ContentError)(nil); errors.As(err, &content) {
		return fmt.Errorf("%w: evaluate takes DATA, then PREDICTIONS, and --na_prob_file for null_odds.json", err)
	}
	return err
}

func writeReport(path string, report *squad.Report) (err error) {
	f, err := createOutput(path)
	if err != nil {
		return err
	}
	defer closing(&err, f.Abort) // does nothing once it is committed
	if err := report.WriteJSON(f); err != nil {
		return writing(path, err)
	}
	return writing(path, f.Commit())
}
