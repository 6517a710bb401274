package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/squad"
)

func newPredict() *cobra.Command {
	var model modelFlags
	var windows featureFlags
	var decoder decoderFlags
	var outputDir, saveLogits, evalScript string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "predict --model M --predict_file F --output_dir D",
		Short: "Answer the questions of a SQuAD file",
		Long: `Predict answers every question of a SQuAD file and writes predictions.json,
nbest_predictions.json and, with --version_2_with_negative, null_odds.json to
--output_dir, as run_squad.py does. The files appear when all are complete.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if outputDir == "" {
				return usagef("--output_dir is required")
			}
			if model.model == "" && model.initCheckpoint == "" {
				return usagef("--model is required")
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
			m, a, err := model.answerer(cmd, &windows, &decoder)
			if err != nil {
				return err
			}
			defer closing(&err, m.Close)
			a.BatchSize = windows.predictBatchSize
			p := prediction{answerer: *a, outputDir: outputDir, saveLogits: saveLogits, questions: questions}
			report, err := p.run(ctx, windows)
			if err != nil {
				return err
			}
			if evalScript != "" {
				hint("--eval_script is not run; for the scores, run: tfbert %s",
					commandLine([]string{"evaluate", windows.predictFile, filepath.Join(outputDir, squad.PredictionsFile)}))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			say("%d questions, %d windows in %.1f s (%.1f windows/s): %s",
				report.Questions, report.Windows, report.Seconds, float64(report.Windows)/max(report.Seconds, 1e-9), outputDir)
			return nil
		},
	}
	f := cmd.Flags()
	model.add(f)
	windows.add(f)
	decoder.add(f)
	f.StringVar(&outputDir, "output_dir", "", "`directory` for the prediction files")
	f.StringVar(&saveLogits, "save_logits", "", "`file` (.npy) to write the logits to: float32 [windows, 2, length], start and end")
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

// predictionReport says what a pass did.
type predictionReport struct {
	Questions int     `json:"questions"`
	Windows   int     `json:"windows"`
	Warnings  int     `json:"warnings"` // questions without any text to choose
	Seconds   float64 `json:"seconds"`
}

func (p *prediction) run(ctx context.Context, windows featureFlags) (report predictionReport, err error) {
	files, err := squad.CreateFiles(p.outputDir, p.answerer.Decoder.WithNegative)
	if err != nil {
		return report, err
	}
	defer closing(&err, files.Abort) // does nothing once they are committed
	var logits *logitsFile
	if p.saveLogits != "" {
		if logits, err = createLogits(p.saveLogits, windows.maxSeqLength); err != nil {
			return report, err
		}
		defer closing(&err, logits.abort)
	}
	p.answerer.OnBatch = func(features []squad.Feature, results []squad.RawResult) error {
		report.Windows += len(features)
		if logits != nil {
			if err := logits.write(results); err != nil {
				return writing(p.saveLogits, err)
			}
		}
		return nil
	}

	start := time.Now()
	bar := newProgress("predict", "questions", int64(p.questions))
	defer bar.Done()
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
		bar.Set(int64(report.Questions))
	}
	report.Seconds = time.Since(start).Seconds()
	if p.complete != nil {
		if err := p.complete(); err != nil {
			return report, err
		}
	}
	if logits != nil {
		if err := logits.commit(); err != nil {
			return report, writing(p.saveLogits, err)
		}
	}
	return report, files.Commit()
}

// logitsFile is the file of --save_logits, under a temporary name until it is complete.
type logitsFile struct {
	temporary
	w *npy.Writer
}

func createLogits(path string, length int) (*logitsFile, error) {
	t, err := newTemporary(path)
	if err != nil {
		return nil, err
	}
	w, err := npy.Create(t.name, npy.Float32, 2, length)
	if err != nil {
		return nil, errors.Join(err, t.abort())
	}
	return &logitsFile{t, w}, nil
}

func (l *logitsFile) write(results []squad.RawResult) error {
	for _, r := range results {
		if err := l.w.WriteFloat32s(r.StartLogits); err != nil {
			return err
		}
		if err := l.w.WriteFloat32s(r.EndLogits); err != nil {
			return err
		}
	}
	return nil
}

func (l *logitsFile) commit() error {
	if err := l.w.Close(); err != nil {
		return err
	}
	return l.temporary.commit()
}

func (l *logitsFile) abort() error {
	_ = l.w.Close() // closed already where it was committed
	return l.temporary.abort()
}
