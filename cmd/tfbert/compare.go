package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/squad/compare"
)

func newCompare() *cobra.Command {
	var predictFile, version string
	var logits []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Show what differs between two folders of predictions",
		Long: `Compare counts the questions whose answers, whose five best texts and whose
n-best lists differ between two folders that 'tfbert predict' or run_squad.py
wrote, and prints the answers that differ with their probabilities. If both
folders have a logits.npy, it compares the logits that both hold.`,
		Args: args("A", "B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version != "" && version != "1.1" && version != "2.0" {
				return usagef("--version is 1.1 or 2.0, not %q", version)
			}
			if len(logits) != 0 && len(logits) != 2 {
				return usagef("--logits takes two files: A.npy,B.npy")
			}
			if logits == nil {
				for _, dir := range args {
					if path := filepath.Join(dir, "logits.npy"); exists(path) {
						logits = append(logits, path)
					}
				}
			}
			c, err := compare.Folders(args[0], args[1])
			if err != nil {
				return err
			}
			if len(logits) == 2 {
				if c.Logits, err = compare.Logits(logits[0], logits[1]); err != nil {
					return err
				}
			}
			if predictFile != "" {
				data, err := readReference(predictFile)
				if err != nil {
					return err
				}
				data.Version = cmp.Or(version, data.Version)
				missing, err := c.Score(data.Dataset)
				if err != nil {
					return fmt.Errorf("%s: %w", predictFile, err)
				}
				data.warn()
				if missing > 0 {
					warn("%d questions of the data set have no prediction", missing)
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), c)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), comparisonText(c))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&predictFile, "predict_file", "", "SQuAD `file` to score both folders against")
	f.StringVar(&version, "version", "", "rules of SQuAD 1.1 or 2.0 to score by (default: the data set's version)")
	f.StringSliceVar(&logits, "logits", nil,
		"two `files` of --save_logits to compare (default: logits.npy of both folders)")
	f.BoolVar(&asJSON, "json", false, "print the comparison as JSON")
	return cmd
}

// comparisonText returns the counts and then the answers that differ, each on a line.
func comparisonText(c *compare.Comparison) string {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	line("%d questions", c.Questions)
	line("%d answers differ", c.Answers)
	line("%d lists of the five best texts differ", c.TopFive)
	line("%d n-best lists differ", c.NBest)
	if c.NullOdds != nil {
		line("null odds differ by at most %.1e (%d compared)", c.NullOdds.Largest, c.NullOdds.Compared)
	}
	if c.Logits != nil {
		line("logits differ by at most %.1e (%d compared)", c.Logits.Largest, c.Logits.Compared)
	}
	if r := c.Scores; r != nil {
		line("EM %.2f and %.2f (%+.2f), F1 %.2f and %.2f (%+.2f)",
			r.A.ExactMatch, r.B.ExactMatch, r.B.ExactMatch-r.A.ExactMatch, r.A.F1, r.B.F1, r.B.F1-r.A.F1)
	}
	for _, d := range c.Different {
		line("%s\t%s\t%s", d.ID, answerText(d.A), answerText(d.B))
	}
	return s.String()
}

func answerText(a compare.Answer) string {
	text := fmt.Sprintf("%q %.4f", a.Answer, a.Probability)
	if a.Score != nil {
		text += fmt.Sprintf(" (EM %.0f, F1 %.1f)", a.ExactMatch, a.F1)
	}
	return text
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
