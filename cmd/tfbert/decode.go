package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/squad"
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
place of padding stands for logits that were not computed. It needs no
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
			stored, err := openLogits(logitsFile)
			if err != nil {
				return err
			}
			defer closing(&err, stored.f.Close)
			if stored.length != windows.maxSeqLength {
				return fmt.Errorf("%s holds logits of windows of %d, not of %d: check --max_seq_length",
					logitsFile, stored.length, windows.maxSeqLength)
			}
			p := prediction{outputDir: outputDir, questions: questions}
			if windows.numEvalIterations == 0 { // else they may be those of the whole data set
				p.complete = stored.end
			}
			p.answerer = squad.Answerer{Featurizer: featurizer, Predictor: stored, Decoder: decoder.Decoder, BatchSize: windows.predictBatchSize}
			report, err := p.run(cmd.Context(), windows)
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

// storedLogits is a squad.Predictor that reads what a model said before.
type storedLogits struct {
	path   string
	f      *os.File
	r      *npy.Reader
	length int
	left   int // windows
}

func openLogits(path string) (_ *storedLogits, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}()
	r, err := npy.NewReader(f)
	if err != nil {
		return nil, err
	}
	if r.DType != npy.Float32 || len(r.Shape) != 3 || r.Shape[1] != 2 {
		return nil, fmt.Errorf("want float32 [windows, 2, length], got %s %v", r.DType, r.Shape)
	}
	return &storedLogits{path: path, f: f, r: r, length: r.Shape[2], left: r.Shape[0]}, nil
}

// next gives the next window's logits, starts before ends.
func (s *storedLogits) next() ([]float32, error) {
	both := make([]float32, 2*s.length)
	if err := s.r.ReadFloat32s(both); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	s.left--
	return both, nil
}

// Predict gives the next windows' logits. It relies on being asked in their order.
func (s *storedLogits) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.left < len(features) {
		return nil, s.mismatch("fewer")
	}
	results := make([]squad.RawResult, len(features))
	for i := range results {
		both, err := s.next()
		if err != nil {
			return nil, err
		}
		start, end := computed(both[:s.length], features[i].Len), computed(both[s.length:], features[i].Len)
		for row, logits := range [][]float32{start, end} {
			for at, x := range logits {
				if x != x || x > math.MaxFloat32 { // the decoder would say so too, but not of which file
					return nil, fmt.Errorf("%s: window %d, logit %d is %v: what made it is broken or overflows in its precision; try it in float32",
						s.path, s.r.Shape[0]-s.left-1, row*s.length+at, x)
				}
			}
		}
		results[i] = squad.RawResult{UniqueID: features[i].UniqueID, StartLogits: start, EndLogits: end}
	}
	return results, nil
}

// computed cuts a row where nothing but NaN follows, at the end of the window's tokens at the earliest.
func computed(row []float32, tokens int) []float32 {
	n := len(row)
	for n > tokens && row[n-1] != row[n-1] {
		n--
	}
	return row[:n]
}

// end checks that there were no logits but those of the data set.
func (s *storedLogits) end() error {
	if s.left > 0 {
		return s.mismatch("more")
	}
	return nil
}

func (s *storedLogits) mismatch(how string) error {
	return fmt.Errorf("%s holds the logits of %d windows, %s than the data set has: check --predict_file, --doc_stride and --max_query_length",
		s.path, s.r.Shape[0], how)
}
