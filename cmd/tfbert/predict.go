package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
)

func newPredict() *cobra.Command {
	var model modelFlags
	var windows featureFlags
	var decoder decoderFlags
	var outputDir, saveLogits, evalScript string
	var maxBatchTokens int
	var padToMax, asJSON bool
	cmd := &cobra.Command{
		Use:   "predict --model M --predict_file F --output_dir D",
		Short: "Answer the questions of a SQuAD file",
		Long: `Predict answers every question of a SQuAD file and writes predictions.json,
nbest_predictions.json and, with --version_2_with_negative, null_odds.json to
--output_dir, as run_squad.py does. The files appear when all are complete.

Windows are batched by length and padded to the longest of their batch, and the
padding is not ranked. With --pad_to_max the batches and the files are those of
run_squad.py: in the file's order, padded to --max_seq_length, padding ranked
too.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if outputDir == "" {
				return usagef("--output_dir is required")
			}
			if model.model == "" && model.initCheckpoint == "" {
				return usagef("--model or --init_checkpoint is required")
			}
			switch {
			case maxBatchTokens < 0:
				return usagef("--max_batch_tokens must not be negative")
			case maxBatchTokens > 0 && padToMax:
				return usagef("--max_batch_tokens and --pad_to_max exclude each other")
			}
			if err := model.check(); err != nil {
				return err
			}
			if err := windows.check(); err != nil {
				return err
			}
			if err := decoder.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			questions, err := windows.count(ctx)
			if err != nil {
				return err
			}
			model.trimPadding = !padToMax
			start := time.Now()
			m, a, err := model.answerer(cmd, &windows, &decoder)
			if err != nil {
				return err
			}
			defer closing(&err, m.Close)
			// This comes before the clock starts, since it is a run and TensorFlow prepares a session in its first one.
			precision, err := m.Precision(ctx)
			if err != nil {
				return err
			}
			opened := time.Since(start)
			a.BatchSize, a.MaxTokens = windows.predictBatchSize, maxBatchTokens
			p := prediction{answerer: *a, outputDir: outputDir, saveLogits: saveLogits, questions: questions}
			report, err := p.run(ctx, windows)
			if err != nil {
				return err
			}
			if evalScript != "" {
				hint("--eval_script is not run; for the scores, run: tfbert %s",
					commandLine([]string{"evaluate", windows.predictFile, filepath.Join(outputDir, squad.PredictionsFile)}))
			}
			report.OpenSeconds, report.Precision = opened.Seconds(), precision
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			seconds := max(report.Seconds, 1e-9)
			say("%d questions, %d windows in %.1f s (%.1f windows/s, %.0f tokens/s): %s", report.Questions, report.Windows,
				report.Seconds, float64(report.Windows)/seconds, float64(report.Tokens)/seconds, outputDir)
			say("precision: %v", report.Precision)
			return nil
		},
	}
	f := cmd.Flags()
	model.add(f)
	windows.add(f)
	decoder.add(f)
	f.StringVar(&outputDir, "output_dir", "", "`directory` for the prediction files")
	f.IntVar(&maxBatchTokens, "max_batch_tokens", 0,
		"tokens of a batch, at most: its windows times the longest (0: no limit)")
	f.BoolVar(&padToMax, "pad_to_max", false, "batches, padding and files exactly as run_squad.py has them; slower")
	f.StringVar(&saveLogits, "save_logits", "",
		"`file` (.npy) to write the logits to: float32 [windows, 2, length], start and end; NaN where padding was cut off")
	f.BoolVar(&asJSON, "json", false, "report as JSON")
	addRunSquadFlags(f)
	f.StringVar(&evalScript, "eval_script", "", "")
	f.Lookup("eval_script").Hidden = true
	return cmd
}

// prediction is one pass over a data set that writes prediction files.
type prediction struct {
	answerer   squad.Answerer
	outputDir  string
	saveLogits string // "" for nowhere
	questions  int
	complete   func() error // nil, or a last check before the files appear
}

// predictionReport describes a finished pass.
type predictionReport struct {
	Questions int     `json:"questions"`
	Windows   int     `json:"windows"`
	Tokens    int     `json:"tokens"`   // without padding
	Warnings  int     `json:"warnings"` // questions without any text to choose
	Seconds   float64 `json:"seconds"`

	// The time until a model was ready to predict, and the types that it ran in.
	OpenSeconds float64                     `json:"open_seconds,omitempty"`
	Precision   *savedmodel.PrecisionReport `json:"precision,omitempty"`
}

func (p *prediction) run(ctx context.Context, windows featureFlags) (report predictionReport, err error) {
	files, err := squad.CreateFiles(p.outputDir, p.answerer.Decoder.WithNegative)
	if err != nil {
		return report, err
	}
	defer closing(&err, files.Abort) // does nothing once they are committed
	var saved *logitsFile
	if p.saveLogits != "" {
		if saved, err = createLogits(p.saveLogits, windows.maxSeqLength); err != nil {
			return report, err
		}
		defer closing(&err, saved.abort)
	}
	p.answerer.OnExample = func(w *squad.Windows, results []squad.RawResult) error {
		report.Windows += len(w.Features)
		for i := range w.Features {
			report.Tokens += w.Features[i].Len
		}
		if saved != nil {
			return writing(p.saveLogits, saved.Write(results))
		}
		return nil
	}

	start := time.Now()
	bar := newProgress("predict", "questions", int64(p.questions))
	defer bar.Done()
	p.answerer.Predictor = &observed{Predictor: p.answerer.Predictor, bar: bar}
	for answer, err := range p.answerer.AnswerAll(ctx, windows.examples()) {
		if err != nil {
			return report, err
		}
		if answer.Warning != "" {
			report.Warnings++
			warn("question %s: %s", answer.ID, answer.Warning)
		}
		if err := files.Write(&answer); err != nil {
			return report, err
		}
		report.Questions++
	}
	report.Seconds = time.Since(start).Seconds()
	if p.complete != nil {
		if err := p.complete(); err != nil {
			return report, err
		}
	}
	if saved != nil {
		if err := saved.commit(); err != nil {
			return report, writing(p.saveLogits, err)
		}
	}
	return report, files.Commit()
}

// observed is a Predictor that shows progress. It counts the questions whose first window has run, because answers
// come many at a time where windows are batched by length.
type observed struct {
	squad.Predictor
	bar progress

	mu   sync.Mutex
	done int64
}

func (o *observed) Predict(ctx context.Context, features []squad.Feature) ([]squad.RawResult, error) {
	results, err := o.Predictor.Predict(ctx, features)
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range features {
		if features[i].DocSpanIndex == 0 {
			o.done++
		}
	}
	o.bar.Set(o.done)
	return results, err
}

// logitsFile is the file of --save_logits, under a temporary name until it is complete.
type logitsFile struct {
	*logits.Writer
	out *file.Pending
}

func createLogits(path string, length int) (*logitsFile, error) {
	out, err := createOutput(path)
	if err != nil {
		return nil, err
	}
	w, err := logits.Create(out.Name(), length)
	if err != nil {
		return nil, errors.Join(err, out.Abort())
	}
	return &logitsFile{w, out}, nil
}

func (l *logitsFile) commit() error {
	if err := l.Close(); err != nil {
		return err
	}
	return l.out.Commit()
}

func (l *logitsFile) abort() error {
	_ = l.Close() // closed already where it was committed
	return l.out.Abort()
}
