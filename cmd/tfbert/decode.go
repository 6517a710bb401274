package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
)

func newDecode() *cobra.Command {
	var tokenizer tokenizerFlags
	var windows featureFlags
	var decoder decoderFlags
	var logitsFile, outputDir string
	cmd := &cobra.Command{
		Use:   "decode --vocab_file V --predict_file F --logits L.npy --output_dir D",
		Short: "Turn stored logits into the prediction files",
		Long: `Decode writes the files of 'tfbert predict' from logits that were stored before:
float32 [windows, 2, length], start and end, in the order of the windows. NaN in
place of padding stands for logits that were not computed. Decode needs no
TensorFlow.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if logitsFile == "" || outputDir == "" {
				return usagef("--logits and --output_dir are required")
			}
			if err := windows.check(); err != nil {
				return err
			}
			if err := decoder.check(); err != nil {
				return err
			}
			featurizer, err := tokenizer.featurizer(&windows)
			if err != nil {
				return err
			}
			questions, err := windows.count(cmd.Context())
			if err != nil {
				return err
			}
			stored, err := logits.Open(logitsFile)
			if err != nil {
				return err
			}
			defer closing(&err, stored.Close)
			if stored.Length() != windows.maxSeqLength {
				return fmt.Errorf("%s holds logits of windows of %d, not of %d: check --max_seq_length",
					logitsFile, stored.Length(), windows.maxSeqLength)
			}
			p := prediction{outputDir: outputDir, questions: questions}
			if windows.numEvalIterations == 0 { // otherwise the file may hold the whole data set
				p.complete = stored.Done
			}
			p.answerer = squad.Answerer{
				Featurizer: featurizer,
				Predictor:  stored,
				Decoder:    decoder.Decoder,
				BatchSize:  windows.predictBatchSize,
			}
			report, err := p.run(cmd.Context(), windows)
			if logit := (*squad.LogitError)(nil); errors.As(err, &logit) {
				return fmt.Errorf("%s: %w", logitsFile, err)
			}
			if err != nil {
				return err
			}
			say("%d questions, %d windows in %.1f s: %s", report.Questions, report.Windows, report.Seconds, outputDir)
			return nil
		},
	}
	f := cmd.Flags()
	tokenizer.add(f)
	windows.add(f)
	decoder.add(f)
	f.StringVar(&logitsFile, "logits", "", "`file` (.npy) with the logits")
	f.StringVar(&outputDir, "output_dir", "", "`directory` for the prediction files")
	return cmd
}
