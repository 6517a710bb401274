package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/bench"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/internal/probe"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

func newBench() *cobra.Command {
	var b benchmark
	var format, plot string
	cmd := &cobra.Command{
		Use:   "bench (--config base|large|FILE | --init_checkpoint C | --model M | --url U)",
		Short: "Measure latency and throughput of a model or a server",
		Long: `Bench measures a model over every combination of graph, precision, sequence
length and batch size that the flags list, on full windows of random tokens. The
model is a shape with random weights (--config) or a checkpoint
(--init_checkpoint), either of which is exported to a temporary folder for each
graph and precision, or a SavedModel as it is (--model).

The precision of the reference graph, and of any other SavedModel, is that of
TensorFlow's mixed-precision rewrite; that of the fused graph is the type of its
weights.

Batches follow one another; with --request_rate they arrive at that rate whether
or not the model keeps up, and a latency includes the time that a batch waited.

With --url it measures a server ('tfbert serve') in the same ways, by questions
in place of batches: intervals of --measurement_interval, after the warm-up,
until three in a row agree.`,
		Example: `  # the rows of NGC's tables
  tfbert bench --config base --max_seq_length 128,384 --predict_batch_size 1,2,4,8 --precision fp32,bf16

  # the fused graph against the reference graph, for benchstat
  tfbert bench --config base --graph reference,fused --count 6 --format go >new.txt
  benchstat -col /graph new.txt

  # how latency holds up under 20 batches a second that come at random
  tfbert bench --model M --predict_batch_size 1 --request_rate 20 --request_distribution poisson

  # a server, by clients that each ask again as they are answered
  tfbert bench --url http://localhost:8501 --concurrency 1,4,16`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			newWriter := benchFormats[format]
			if newWriter == nil {
				return usagef("--format is table, json, go or nvidia, not %q", format)
			}
			if plot != "" {
				if _, err := bench.PlotFormat(plot); err != nil {
					return usagef("--plot takes a .png or an .svg file, not %q", plot)
				}
				if _, err := os.Stat(filepath.Dir(plot)); err != nil {
					return writing(plot, err)
				}
			}
			if b.server.url != "" {
				return b.runServer(cmd, format)
			}
			if err := b.check(cmd.Context(), cmd.Flags()); err != nil {
				return err
			}
			if format == "nvidia" && b.load.Warmup+b.load.Calls < 2 {
				return usagef("--format nvidia takes two batches at least: the script's formula fails at one")
			}
			b.writer = newWriter(cmd.OutOrStdout())
			return errors.Join(b.run(cmd), b.writer.Close(), b.plotTo(plot))
		},
	}
	f := cmd.Flags()
	b.add(f)
	f.StringVar(&format, "format", "table",
		"`form` of the results: table, json, go (Go's benchmark lines, for benchstat) "+
			"or nvidia (run_squad.py's lines, by its formula)")
	f.StringVar(&plot, "plot", "", "`file` (.png, .svg) to draw throughput against latency in")
	return cmd
}

var benchFormats = map[string]func(io.Writer) bench.Writer[bench.Result]{
	"table": bench.NewTable, "json": bench.NewJSON[bench.Result], "go": bench.NewGo, "nvidia": bench.NewNVIDIA,
}

// plotTo draws the rows that were measured, even if an error ended the run before the last.
func (b *benchmark) plotTo(path string) error {
	if path == "" || len(b.results) == 0 {
		return nil
	}
	return writing(path, bench.Plot(path, b.results))
}

// A benchmark is a sweep over the rows that the flags list.
type benchmark struct {
	config, checkpoint, model string
	signature                 signatureFlags
	bertConfigFile, vocabFile string
	graphs, precisionNames    []string
	lengths, batches          []int
	count                     int
	load                      bench.Load
	concurrency               []int
	server                    serverFlags
	distribution              string
	session                   sessionFlags
	allowOps                  opsValue
	require                   bool
	lists                     rewriteLists

	shape       *tfbert.Config // of --config
	precisions  []savedmodel.Precision
	fixed       bool // --max_seq_length was given
	temp        string
	environment *bench.Environment
	onGPU       bool
	writer      bench.Writer[bench.Result]
	results     []bench.Result
	unproven    []error // the precisions that --require_precision did not find
	bar         progress
}

func (b *benchmark) add(f *pflag.FlagSet) {
	f.StringVar(&b.config, "config", "", "`shape` of a model with random weights: base, large or a bert_config.json")
	f.StringVar(&b.checkpoint, "init_checkpoint", "", "`checkpoint` to export and measure")
	f.StringVar(&b.bertConfigFile, "bert_config_file", "",
		"configuration `file` of --init_checkpoint (default: bert_config.json beside it)")
	f.StringVar(&b.model, "model", "", "SavedModel `directory` to measure as it is, or the name of a pulled model")
	b.signature.add(f)
	f.StringVar(&b.vocabFile, "vocab_file", "", "vocabulary `file`, if there is none beside the model or checkpoint")
	f.StringSliceVar(&b.graphs, "graph", []string{tfbert.ReferenceGraph}, "`graphs` to measure: reference, fused")
	f.StringSliceVar(&b.precisionNames, "precision", nil, "`precisions` to measure: fp32, fp16, bf16, int8, "+
		"or auto for the fastest on this machine (default: fp32, or that of a fused --model)")
	f.BoolVar(&b.require, "require_precision", false, "fail if nothing runs in a precision that was asked for")
	f.IntSliceVar(&b.lengths, "max_seq_length", []int{128}, "`lengths` of the sequences in word pieces")
	f.IntSliceVar(&b.batches, "predict_batch_size", []int{1, 8}, "`sizes` of the batches in sequences")
	f.IntVar(&b.count, "count", 1, "times to measure each row")
	f.IntVar(&b.load.Calls, "num_iterations", 10, "batches to measure for a row, at least")
	f.DurationVar(&b.load.Duration, "duration", 5*time.Second,
		"`time` to measure a row for, at least; 0 if only --num_iterations is given")
	f.IntVar(&b.load.Warmup, "num_warmup_iterations", 3, "batches to run before measuring")
	f.IntSliceVar(&b.concurrency, "concurrency", []int{1},
		"`numbers` of batches, or of a server's questions, to run at once")
	f.Float64Var(&b.load.Rate, "request_rate", 0, "batches that arrive in a second (0: each when the one before is done)")
	f.StringVar(&b.distribution, "request_distribution", "constant",
		"`how` batches arrive: constant (in equal steps) or poisson (at random)")
	b.session.add(f)
	b.allowOps.add(f)
	b.lists.add(f)
	b.server.add(f)
}

// ofServers are the flags that --url allows.
var ofServers = []string{
	"url", "predict_file", "model_name", "tls_ca_file", "measurement_interval", "stability_percentage", "max_trials",
	"concurrency", "request_rate", "request_distribution", "num_warmup_iterations", "format", "verbose",
}

// runServer measures a server.
func (b *benchmark) runServer(cmd *cobra.Command, format string) error {
	var wrong error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(ofServers, f.Name) {
			wrong = usagef("--%s and --url exclude each other", f.Name)
		}
	})
	if wrong != nil {
		return wrong
	}
	newWriter := bench.NewServerTable
	switch format {
	case "table":
	case "json":
		newWriter = bench.NewJSON[bench.ServerResult]
	default:
		return usagef("--format is table or json with --url, not %q", format)
	}
	if err := b.checkLoad(); err != nil {
		return err
	}
	w := newWriter(cmd.OutOrStdout())
	return errors.Join(b.server.run(cmd, b.load, b.concurrency, w), w.Close())
}

// checkLoad checks what models and servers have in common.
func (b *benchmark) checkLoad() error {
	b.load.Poisson = b.distribution == "poisson"
	switch {
	case len(b.concurrency) == 0 || slices.Min(b.concurrency) < 1 || slices.Max(b.concurrency) > 100000:
		return usagef("--concurrency must be positive")
	case b.load.Warmup < 0 || b.load.Duration < 0 || b.load.Rate < 0:
		return usagef("--num_warmup_iterations, --duration and --request_rate must not be negative")
	case b.distribution != "constant" && b.distribution != "poisson":
		return usagef("--request_distribution is constant or poisson, not %q", b.distribution)
	}
	return nil
}

func (b *benchmark) check(ctx context.Context, f *pflag.FlagSet) error {
	sources := 0
	for _, s := range []string{b.config, b.checkpoint, b.model} {
		if s != "" {
			sources++
		}
	}
	b.fixed = f.Changed("max_seq_length")
	if f.Changed("num_iterations") && !f.Changed("duration") {
		b.load.Duration = 0
	}
	if err := b.checkLoad(); err != nil {
		return err
	}
	if sources != 1 {
		return usagef("one of --config, --init_checkpoint, --model and --url is required")
	}
	// Which flags fit depends on what a name stands for. One that stands for nothing is reported after them.
	saved, named, unknown := findNamed(ctx, b.model)
	if unknown == nil && b.model != "" {
		b.model, b.checkpoint = saved, named
	}
	switch {
	case b.bertConfigFile != "" && b.checkpoint == "":
		return usagef("--bert_config_file is for --init_checkpoint; for a shape alone, name it with --config")
	case b.vocabFile != "" && b.config != "":
		return usagef("--vocab_file is for --model and --init_checkpoint: --config has random weights")
	case b.signature.given() && b.model == "":
		return usagef("--tags and --signature are for --model")
	case b.model != "" && f.Changed("graph"):
		return usagef("--graph is for --config and --init_checkpoint: a SavedModel has its own")
	case b.load.Calls < 1 || b.count < 1:
		return usagef("--num_iterations and --count must be positive")
	case len(b.graphs) == 0:
		return usagef("--graph must name at least one graph")
	}
	for flag, list := range map[string][]int{"max_seq_length": b.lengths, "predict_batch_size": b.batches} {
		if len(list) == 0 || slices.Min(list) <= 0 {
			return usagef("--%s must be positive", flag)
		}
	}
	for _, g := range b.graphs {
		if g != tfbert.ReferenceGraph && g != tfbert.FusedGraph {
			return usagef("--graph is %s or %s, not %q", tfbert.ReferenceGraph, tfbert.FusedGraph, g)
		}
	}
	if unknown != nil {
		return unknown
	}
	return b.resolve()
}

// resolve finds what the names stand for.
func (b *benchmark) resolve() (err error) {
	switch b.config {
	case "":
	case "base":
		b.shape = tfbert.BaseConfig()
	case "large":
		b.shape = tfbert.LargeConfig()
	default:
		if b.shape, err = readShape(b.config); err != nil {
			return err
		}
	}
	if b.model != "" {
		var err error
		if b.model, err = findModel(b.model); err != nil {
			return err
		}
		own, err := tfbert.ReadSettings(b.model)
		if err != nil {
			return err
		}
		b.graphs = []string{own.Graph}
	}
	if err := b.lists.apply(); err != nil {
		return err
	}
	if b.precisionNames == nil {
		b.precisionNames = []string{string(tfbert.DefaultPrecision)}
	}
	for _, name := range b.precisionNames {
		asked, err := parsePrecision(name)
		if err != nil {
			return err
		}
		p, err := choosePrecision(asked, b.model)
		if err != nil {
			return err
		}
		b.precisions = append(b.precisions, p)
	}
	if b.model != "" && b.graphs[0] == tfbert.FusedGraph {
		b.precisions = b.precisions[:1] // it has one
	}
	if b.model == "" && slices.Contains(b.precisions, savedmodel.INT8) && !slices.Contains(b.graphs, tfbert.FusedGraph) {
		return usagef("int8 is of the fused graph: choose --graph fused")
	}
	return nil
}

// has reports whether a graph is measured in a precision. No rewrite turns the reference graph into int8.
func (b *benchmark) has(graph string, p savedmodel.Precision) bool {
	return b.model != "" || graph == tfbert.FusedGraph || p != savedmodel.INT8
}

func readShape(path string) (*tfbert.Config, error) {
	c, err := file.Parse(path, tfbert.ReadConfig)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("--config is base, large or a bert_config.json: %w", err)
	}
	return c, err
}

// run measures every row. Models that it exports are gone when it returns.
func (b *benchmark) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	if err := loadTensorFlow(); err != nil {
		return err
	}
	if b.temp, err = os.MkdirTemp("", "tfbert-bench-*"); err != nil {
		return err
	}
	defer closing(&err, func() error { return os.RemoveAll(b.temp) })
	host := machine.Diagnose(ctx)
	b.environment = newEnvironment(&host)
	b.onGPU = len(host.GPUs.Devices) > 0 && host.Library != nil && host.Library.GPU && len(host.Library.MissingForGPU) == 0
	if slices.Contains(b.precisions, savedmodel.BF16) && !b.onGPU {
		if b.environment.BFloat16Cost, err = probe.BFloat16Cost(); err != nil {
			return err
		}
	}
	models := 0
	for _, graph := range b.graphs {
		for _, p := range b.precisions {
			if b.has(graph, p) {
				models++
			}
		}
	}
	rows := models * len(b.lengths) * len(b.batches) * len(b.concurrency) * b.count
	b.bar = newProgress("bench", "rows", int64(rows))
	defer b.bar.Done()
	for _, graph := range b.graphs {
		for _, precision := range b.precisions {
			if !b.has(graph, precision) {
				continue
			}
			if err := b.measureModel(ctx, graph, precision); err != nil {
				return errors.Join(append(b.unproven, err)...)
			}
		}
	}
	return errors.Join(b.unproven...)
}

// measureModel measures the rows of one model in one session.
func (b *benchmark) measureModel(ctx context.Context, graph string, precision savedmodel.Precision) (err error) {
	m, err := b.open(ctx, graph, precision)
	if err != nil {
		return err
	}
	defer closing(&err, m.Close)
	row := bench.Row{
		Model: filepath.Base(cmp.Or(b.config, b.checkpoint, b.model)),
		Graph: cmp.Or(graph, "unknown"), Precision: precision.String(),
	}
	lengths := b.lengths
	if !b.fixed && m.CheckLength(lengths[0]) != nil {
		lengths = []int{m.SeqLength()}
	}
	for _, n := range lengths {
		if err := m.CheckLength(n); err != nil {
			return err
		}
	}
	// The proof comes first: it needs the model's files, and each row has it as it is written.
	proof, missing, err := b.prove(ctx, m, row.Graph, precision, lengths[0])
	if err != nil {
		return err
	}
	if err := os.RemoveAll(b.exported()); err != nil { // a session has all of its model in memory
		return err
	}
	for _, row.MaxSeqLength = range lengths {
		for _, row.PredictBatchSize = range b.batches {
			for _, b.load.Concurrency = range b.concurrency {
				for range b.count {
					r, err := b.measure(ctx, m, row)
					if err != nil {
						return err
					}
					r.Proof = proof
					if missing != "" {
						r.Note = strings.TrimSuffix(missing+"; "+r.Note, "; ")
					}
					clearBar()
					if err := b.writer.Write(&r); err != nil {
						return err
					}
					b.results = append(b.results, r)
					b.bar.Set(int64(len(b.results)))
				}
			}
		}
	}
	return nil
}

// prove reads in which types the model computes. With --require_precision, a precision that is missing does not end
// the run, whose rows are still worth their time: it is a note of the rows, and an error when all is measured.
func (b *benchmark) prove(
	ctx context.Context, m *tfbert.Model, graph string, precision savedmodel.Precision, length int,
) (proof, missing string, err error) {
	if b.session.config.XLA { // which compiles for every shape: the proof has that of the first row
		if _, err := m.Predict(ctx, fullWindows(b.batches[0], length, m.Tokenizer().Vocab.Len())); err != nil {
			return "", "", err
		}
	}
	report, err := m.Precision(ctx)
	debug.FreeOSMemory() // which the proof's copies of the graph took, and which would count as that of the rows
	if err != nil {
		return "", "", err
	}
	if b.require {
		if err := report.Require(precision); err != nil {
			b.unproven = append(b.unproven, fmt.Errorf("%s graph: %w", graph, err))
			missing = withAdvice(err)
		}
	}
	return report.String(), missing, nil
}

// exported is the folder of the model that is measured, unless --model names one.
func (b *benchmark) exported() string { return filepath.Join(b.temp, "model") }

// open opens the model, which it exports unless --model names one.
func (b *benchmark) open(ctx context.Context, graph string, precision savedmodel.Precision) (*tfbert.Model, error) {
	config, err := b.session.read()
	if err != nil {
		return nil, err
	}
	opts := &tfbert.Options{
		VocabFile: b.vocabFile, Precision: tfbert.Precision(precision.String()),
		Config: config, AllowOps: b.allowOps.OpPolicy,
	}
	if b.model != "" {
		b.signature.set(opts)
		m, err := tfbert.Open(b.model, opts)
		if err == nil {
			sayNotes(m)
		}
		return m, err
	}
	dir := b.exported()
	to := &tfbert.ExportOptions{Graph: graph, ConfigFile: b.bertConfigFile, VocabFile: b.vocabFile}
	if graph == tfbert.FusedGraph {
		to.Precision = precision
		if b.onGPU {
			to.Device = tfbert.GPU
		}
	}
	if b.shape != nil {
		_, err = tfbert.ExportRandom(ctx, b.shape, dir, to)
	} else {
		_, err = tfbert.Export(ctx, b.checkpoint, dir, to)
	}
	if err != nil {
		return nil, err
	}
	opts.VocabFile = "" // the export has it
	return tfbert.Open(dir, opts)
}

// measure measures one row.
func (b *benchmark) measure(ctx context.Context, m *tfbert.Model, row bench.Row) (bench.Result, error) {
	features := fullWindows(row.PredictBatchSize, row.MaxSeqLength, m.Tokenizer().Vocab.Len())
	ofRow := bench.ResetPeak()
	warmup, calls, err := bench.Run(ctx, func(ctx context.Context, _ *bench.Call) error {
		_, err := m.Predict(ctx, features)
		return err
	}, b.load, nil)
	if err != nil {
		return bench.Result{}, err
	}
	r := bench.NewResult(row, b.load, warmup, calls)
	r.PeakMemory, r.PeakOf = bench.PeakMemory(), "process"
	if ofRow {
		r.PeakOf = "row"
	}
	if e := b.environment; row.Precision == savedmodel.BF16.String() && !b.onGPU {
		switch {
		case len(e.BFloat16) == 0:
			r.Note = "this CPU has no units for bfloat16: the fp32 rows count"
		case e.BFloat16Cost > 1:
			r.Note = fmt.Sprintf("a matrix product in bfloat16 takes %.2f times as long as in float32 on this CPU: "+
				"the fp32 rows count", e.BFloat16Cost)
		}
	}
	r.Environment = b.environment
	return r, nil
}

// fullWindows makes windows of random tokens without padding, the first third of each a question.
func fullWindows(n, length, vocab int) []squad.Feature {
	random := rand.New(rand.NewPCG(1, uint64(length)))
	features := make([]squad.Feature, n)
	for i := range features {
		f := squad.Feature{
			UniqueID: int32(1000000000 + i), Len: length,
			InputIDs: make([]int32, length), InputMask: make([]int32, length), SegmentIDs: make([]int32, length),
		}
		for k := range length {
			f.InputIDs[k], f.InputMask[k] = random.Int32N(int32(vocab)), 1
			if k >= length/3 {
				f.SegmentIDs[k] = 1
			}
		}
		features[i] = f
	}
	return features
}

// newEnvironment describes the machine and the software.
func newEnvironment(host *machine.Report) *bench.Environment {
	v := readVersion()
	e := &bench.Environment{
		CPU: host.CPU.Model, CPUs: host.CPU.Count, BFloat16: []string{}, Memory: host.Memory,
		OS: host.OS, Arch: host.Arch, TensorFlow: tf.Version(), Library: tf.Path(), Go: v.Go, Version: v.Version,
	}
	for _, f := range host.CPU.Features {
		if f.Present && strings.HasSuffix(f.Name, "bf16") {
			e.BFloat16 = append(e.BFloat16, f.Name)
		}
	}
	for _, g := range host.GPUs.Devices {
		e.GPUs = append(e.GPUs, fmt.Sprintf("%s, compute capability %s, %s", g.Name, g.ComputeCapability, g.Memory))
	}
	return e
}
