package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/corpus"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

func newBatch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "batch",
		Short: "Answer the questions of a corpus, in parts that may be killed",
		Long: `Batch answers the questions of files that are too many for one run. It divides
them into chunks; each chunk's answers appear whole, and a record says that they
are done. A run that is killed goes on where it was, several runs can share a
corpus, and the answers are the same however it was run.

Inputs are JSON lines (.jsonl, with id, question and context), CSV with these
columns, or SQuAD files (.json), each also packed (.gz, .zst). A line that is not
a question is counted, and its record says what is wrong with it.`,
		Example: `  tfbert batch run --input 'in/*.jsonl' --output out --model model
  tfbert batch status --output out
  tfbert batch merge --output out answers.jsonl`,
	}
	cmd.AddCommand(newBatchPlan(), newBatchRun(), newBatchStatus(), newBatchMerge())
	return cmd
}

// corpusFlags name a corpus.
type corpusFlags struct {
	inputs []string
	output string
	chunk  int
}

func (f *corpusFlags) add(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.inputs, "input", nil, "`files` with the questions, also as patterns such as 'in/*.jsonl'")
	flags.StringVar(&f.output, "output", "", "`directory` for the answers, which all runs of the corpus share")
	flags.IntVar(&f.chunk, "chunk", corpus.DefaultChunk, "questions of a chunk")
}

// paths returns the files that the patterns name, in the order of the patterns and then of their names.
func (f *corpusFlags) paths() ([]string, error) {
	var all []string
	for _, pattern := range f.inputs {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, usagef("--input %s: %v", pattern, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("--input %s: there is no such file", pattern)
		}
		for _, path := range found {
			if !slices.Contains(all, path) {
				all = append(all, path)
			}
		}
	}
	return all, nil
}

// plan returns the plan in the folder of the output, which it makes if inputs are given or none is there.
func (f *corpusFlags) plan(ctx context.Context) (*corpus.Plan, error) {
	if f.output == "" {
		return nil, usagef("--output is required")
	}
	if f.chunk < 1 {
		return nil, usagef("--chunk must be positive")
	}
	if len(f.inputs) == 0 {
		p, err := corpus.ReadPlan(f.output)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s has no plan: name the files with --input", f.output)
		}
		return p, err
	}
	paths, err := f.paths()
	if err != nil {
		return nil, err
	}
	p, err := corpus.MakePlan(ctx, paths, f.chunk)
	if err != nil {
		return nil, err
	}
	return p, p.Write(f.output)
}

func newBatchPlan() *cobra.Command {
	var files corpusFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan --input FILES --output DIR",
		Short: "Divide a corpus into chunks",
		Long: `Plan reads the inputs once and writes DIR/plan.jsonl. 'tfbert batch run' does so
too if there is no plan; with many runs it is cheaper to plan once.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files.inputs) == 0 {
				return usagef("--input is required")
			}
			p, err := files.plan(cmd.Context())
			if err != nil {
				return err
			}
			s, err := corpus.Status(cmd.Context(), files.output, p)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			say("%d questions in %d chunks: %s", s.Questions, s.Chunks, files.output)
			return nil
		},
	}
	files.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "report as JSON")
	return cmd
}

// shareFlags say which part of a corpus a run does.
type shareFlags struct{ index, of int }

func (f *shareFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.index, "index", 0,
		"number of this run among --of, from 0 (default: that of the Kubernetes job, the Slurm array or the AWS Batch array)")
	flags.IntVar(&f.of, "of", 1, "number of runs that share the corpus (default: that of the Slurm or AWS Batch array)")
}

// arrays are the variables by which schedulers number the tasks of an array.
var arrays = []struct{ index, first, of string }{
	{"JOB_COMPLETION_INDEX", "", ""}, // Kubernetes, which does not tell how many there are
	{"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"},
	{"AWS_BATCH_JOB_ARRAY_INDEX", "", "AWS_BATCH_JOB_ARRAY_SIZE"},
}

// settle takes what the command line does not say from the environment.
func (f *shareFlags) settle(flags *pflag.FlagSet) error {
	for _, a := range arrays {
		if os.Getenv(a.index) == "" || flags.Changed("index") {
			continue
		}
		number := func(name string) (n int, err error) {
			if value := os.Getenv(name); value != "" {
				if n, err = strconv.Atoi(value); err != nil {
					err = fmt.Errorf("$%s is %q, not a number", name, value)
				}
			}
			return n, err
		}
		index, err := number(a.index)
		first, firstErr := number(a.first)
		of, ofErr := number(a.of)
		if err := errors.Join(err, firstErr, ofErr); err != nil {
			return err
		}
		f.index = index - first
		switch {
		case flags.Changed("of"):
		case of > 0:
			f.of = of
		default:
			return usagef("$%s is set: name the number of runs with --of", a.index)
		}
		break
	}
	if f.of < 1 || f.index < 0 || f.index >= f.of {
		return usagef("--index is %d and --of %d: the index must be from 0 to one less", f.index, f.of)
	}
	return nil
}

func newBatchRun() *cobra.Command {
	var files corpusFlags
	var share shareFlags
	var model modelFlags
	var windows featureFlags
	var decoder decoderFlags
	var metricsPort, maxBatchTokens int
	var nBest, asJSON bool
	cmd := &cobra.Command{
		Use:   "run --output DIR --model M [--input FILES]",
		Short: "Answer the chunks of a corpus that are not done",
		Long: `Run answers the chunks that are not done, or the part of them that is this run's
among several (--index, --of). Ctrl-C ends it after the chunk under way, a second
one at once; the next run goes on.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if model.model == "" && model.initCheckpoint == "" {
				return usagef("--model or --init_checkpoint is required")
			}
			if windows.predictBatchSize <= 0 || maxBatchTokens < 0 {
				return usagef("--predict_batch_size must be positive, and --max_batch_tokens not negative")
			}
			if err := errors.Join(model.check(), decoder.check(), share.settle(cmd.Flags())); err != nil {
				return err
			}
			plan, err := files.plan(cmd.Context())
			if err != nil {
				return err
			}
			chunks, err := plan.Share(share.index, share.of)
			if err != nil {
				return err
			}
			model.trimPadding = true
			began := time.Now()
			m, a, err := model.answerer(cmd, &windows, &decoder)
			if err != nil {
				return err
			}
			defer closing(&err, m.Close)
			a.BatchSize, a.MaxTokens = windows.predictBatchSize, maxBatchTokens
			metrics := newBatchMetrics(time.Since(began))
			if metricsPort > 0 {
				stop, err := metrics.serve(metricsPort)
				if err != nil {
					return err
				}
				defer closing(&err, stop)
			}
			a.Predictor = metrics.observe(a.Predictor)
			fingerprint, err := fingerprintOf(m, &windows, &decoder, maxBatchTokens, nBest)
			if err != nil {
				return err
			}
			w := &corpus.Worker{
				Dir: files.output, Plan: plan, Fingerprint: fingerprint, NBest: nBest, Negative: decoder.WithNegative,
				Answer: a.AnswerAll,
			}
			defer closing(&err, w.Close)
			r, err := runChunks(cmd.Context(), w, chunks)
			if err == nil || r.Done > 0 {
				r.Metrics = metrics.values()
				if asJSON {
					err = errors.Join(err, printJSON(cmd.OutOrStdout(), r))
				} else {
					say("%s", r)
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	files.add(f)
	share.add(f)
	model.add(f)
	windows.addWindow(f)
	f.IntVar(&windows.predictBatchSize, "predict_batch_size", 8, "windows of a batch")
	f.IntVar(&maxBatchTokens, "max_batch_tokens", 0,
		"tokens of a batch, at most: its windows times the longest (0: no limit)")
	decoder.add(f)
	f.BoolVar(&nBest, "keep_n_best", false, "keep the n-best answers, which 'tfbert batch merge --output_dir' needs")
	f.IntVar(&metricsPort, "metrics_port", 0, "port to serve metrics for Prometheus at (0: none)")
	f.BoolVar(&asJSON, "json", false, "report as JSON")
	return cmd
}

// fingerprintOf returns all that the answers depend on.
func fingerprintOf(
	m *tfbert.Model, windows *featureFlags, decoder *decoderFlags, maxTokens int, nBest bool,
) (corpus.Fingerprint, error) {
	model, err := corpus.HashFolder(m.SavedModel().Dir())
	if err != nil {
		return nil, err
	}
	f := corpus.Fingerprint{
		"model": model, "tensorflow": tf.Version(), "precision": m.Choice().Precision.String(),
		"cased":              fmt.Sprint(m.Tokenizer().Cased),
		"profile":            m.Tokenizer().Profile.String(),
		"max_seq_length":     fmt.Sprint(windows.maxSeqLength),
		"doc_stride":         fmt.Sprint(windows.docStride),
		"max_query_length":   fmt.Sprint(windows.maxQueryLength),
		"predict_batch_size": fmt.Sprint(windows.predictBatchSize),
		"max_batch_tokens":   fmt.Sprint(maxTokens),
		"n_best_size":        fmt.Sprint(decoder.NBestSize),
		"max_answer_length":  fmt.Sprint(decoder.MaxAnswerLength),
		"keep_n_best":        fmt.Sprint(nBest),
		"negatives":          fmt.Sprint(decoder.WithNegative),
		"null_threshold":     fmt.Sprint(decoder.NullScoreDiffThreshold),
	}
	if m.Choice().Precision != savedmodel.FP32 { // the bits of smaller types depend on the units that compute them
		host := machine.Diagnose(context.Background())
		var units []string
		for _, unit := range []string{"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2"} {
			if host.CPU.Has(unit) {
				units = append(units, unit)
			}
		}
		f["cpu"] = strings.Join(units, " ")
	}
	return f, nil
}

// batchReport describes what a run did.
type batchReport struct {
	Chunks    int            `json:"chunks"`  // of this run
	Before    int            `json:"before"`  // that were done already
	Done      int            `json:"done"`    // by this run
	Failed    int            `json:"failed"`  // with the model's errors
	Answers   int64          `json:"answers"` // by this run
	Dead      int64          `json:"dead_letters"`
	Seconds   float64        `json:"seconds"`
	Stopped   bool           `json:"stopped"` // by a signal
	Metrics   map[string]any `json:"metrics"`
	questions int64
}

func (r *batchReport) String() string {
	rest := ""
	if left := r.Chunks - r.Before - r.Done; left > 0 {
		rest = fmt.Sprintf("; %d chunks are left: run the same command again", left)
	}
	return fmt.Sprintf("%d answers and %d dead letters of %d chunks in %.1f s (%.1f questions/s), "+
		"%d chunks were done before%s",
		r.Answers, r.Dead, r.Done, r.Seconds, float64(r.questions)/max(r.Seconds, 1e-9), r.Before, rest)
}

// mostFailures one after another are the model's, not those of a chunk.
const mostFailures = 3

// runChunks does chunks until the context ends, and then the one under way.
func runChunks(ctx context.Context, w *corpus.Worker, chunks []corpus.Chunk) (*batchReport, error) {
	r := &batchReport{Chunks: len(chunks)}
	began := time.Now()
	defer func() { r.Seconds = time.Since(began).Seconds() }()
	var todo []corpus.Chunk
	var total int64
	for _, c := range chunks {
		record, err := w.Done(c)
		switch {
		case err != nil:
			return r, err
		case record != nil:
			r.Before++
		default:
			todo = append(todo, c)
			total += int64(c.Count)
		}
	}
	bar := newProgress("batch", "questions", total)
	defer bar.Done()
	defer context.AfterFunc(ctx, func() {
		say("ending after the chunk under way; press Ctrl-C again to stop at once")
	})()
	var failures []error
	inRow := 0
	for _, c := range todo {
		if r.Stopped = ctx.Err() != nil; r.Stopped {
			break
		}
		record, err := w.Do(context.WithoutCancel(ctx), c)
		if err != nil {
			r.Failed++
			failures = append(failures, err)
			if inRow++; inRow == mostFailures || errors.As(err, new(*corpus.FingerprintError)) {
				break
			}
			warn("%v", err)
			continue
		}
		inRow = 0
		r.Done++
		r.Answers += int64(record.Answers)
		r.Dead += int64(len(record.Dead))
		r.questions += int64(c.Count)
		bar.Set(r.questions)
	}
	if len(failures) > 0 {
		return r, fmt.Errorf("%d chunks failed: %w", len(failures), failures[len(failures)-1])
	}
	return r, nil
}

func newBatchStatus() *cobra.Command {
	var output string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --output DIR",
		Short: "Say how much of a corpus is done",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			files := corpusFlags{output: output, chunk: 1}
			p, err := files.plan(cmd.Context())
			if err != nil {
				return err
			}
			s, err := corpus.Status(cmd.Context(), output, p)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			fmt.Fprintf(cmd.OutOrStdout(),
				"%d of %d chunks are done: %d answers, %d with a warning, %d dead letters of %d questions\n",
				s.Done, s.Chunks, s.Answers, s.Warnings, s.Dead, s.Questions)
			if len(s.Missing) > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%v\n", &corpus.IncompleteError{Dir: output, Chunks: s.Chunks, Missing: s.Missing})
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "`directory` of the answers")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func newBatchMerge() *cobra.Command {
	var output, outputDir, deadLetters string
	var negative, asJSON bool
	cmd := &cobra.Command{
		Use:   "merge --output dir [ANSWERS.jsonl]",
		Short: "Write the answers of a corpus in the order of its inputs",
		Long: `Merge checks that all chunks are done and whole, and writes their answers into
one file, in the order of the inputs. With --output_dir it writes the files of
run_squad.py, for which the runs must have had --keep_n_best.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (outputDir != "") {
				return usagef("name either a file for the answers or --output_dir")
			}
			for _, path := range args {
				if err := file.CheckLocal(path); err != nil {
					return usagef("ANSWERS.jsonl: %w", err)
				}
			}
			files := corpusFlags{output: output, chunk: 1}
			p, err := files.plan(cmd.Context())
			if err != nil {
				return err
			}
			var sink corpus.Sink
			if outputDir != "" {
				sink, err = corpus.PredictionFiles(outputDir, negative)
			} else {
				sink, err = corpus.JSONL(args[0])
			}
			if err != nil {
				return err
			}
			s, err := corpus.Merge(cmd.Context(), output, p, sink)
			if incomplete, ok := errors.AsType[*corpus.IncompleteError](err); ok {
				return fmt.Errorf("%w; run: tfbert batch run --output %s --model MODEL", incomplete, output)
			}
			if err == nil && deadLetters != "" {
				err = corpus.WriteDeadLetters(cmd.Context(), output, p, deadLetters)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			say("%d answers, %d with a warning, and %d dead letters of %d questions", s.Answers, s.Warnings, s.Dead, s.Questions)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&output, "output", "", "`directory` of the chunks' answers")
	f.StringVar(&outputDir, "output_dir", "", "`directory` for predictions.json and nbest_predictions.json")
	f.StringVar(&deadLetters, "dead_letters", "", "`file` (.jsonl) for the lines that are not questions")
	f.BoolVar(&negative, "version_2_with_negative", false, "with --output_dir, write null_odds.json too")
	f.BoolVar(&asJSON, "json", false, "report as JSON")
	return cmd
}
