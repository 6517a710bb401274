package tfbert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// The graphs that Export writes, and the devices that it writes a fused graph for.
const (
	ReferenceGraph = "reference" // that of run_squad.py, operation for operation, with float32 variables
	FusedGraph     = "fused"     // the same in few large operations, with constant weights: the fast one

	CPU = "cpu"
	GPU = "gpu"
)

// ExportOptions are the choices of an export. nil stands for those of the reference scripts.
type ExportOptions struct {
	Graph        string               // "": ReferenceGraph
	Precision    savedmodel.Precision // that FusedGraph computes in; ReferenceGraph is written in FP32
	Device       string               // that FusedGraph is written for; "": GPU for FP16, else CPU
	MaxSeqLength int                  // a static sequence length; 0: dynamic

	ConfigFile, VocabFile string // "": those beside the checkpoint
	// Head names the layer that answers questions, by a variable or its scope, if a checkpoint has several that could.
	// "" is that of run_squad.py, or else the only one that fits.
	Head string

	Cased   bool              // the model was trained with do_lower_case=False
	Profile wordpiece.Profile // of the tokenizer

	// Calibrate is a SQuAD file that INT8 takes the ranges of the model's numbers from. They depend little on what a
	// text is about. "" is a small set that comes with the package.
	Calibrate string
	// Progress, if set, is called as the products of INT8 are quantized.
	Progress func(done, total int)

	Overwrite bool // replace a model that is there
}

// ExportReport describes what an export did.
type ExportReport struct {
	Dir        string   `json:"dir"`
	Checkpoint string   `json:"checkpoint"`
	Config     *Config  `json:"config"`
	Settings   Settings `json:"settings"`
	Variables  int      `json:"variables"`
	Parameters int64    `json:"parameters"`
	Cast       int      `json:"cast"`     // variables that were widened to float32
	LeftOut    int      `json:"left_out"` // optimizer slots, bookkeeping and unused weights
	Bytes      int64    `json:"bytes"`
	Activation string   `json:"activation"` // what hidden_act means to the model's authors

	// Products are those of INT8.
	Products []QuantizedProduct `json:"products,omitempty"`
	// Notes say how the checkpoint was understood where it differs from what the scripts write.
	Notes []string `json:"notes,omitempty"`
}

// QuantizedProduct says how well a product of INT8 agrees with that in float32 on what the model was calibrated by.
type QuantizedProduct struct {
	Layer    int     `json:"layer"`
	Name     string  `json:"name"`         // qkv, context, intermediate or output
	Decibels float64 `json:"signal_noise"` // the ratio of signal to noise
}

// Export writes a TF1 BERT checkpoint as a SavedModel with the signature of NVIDIA's own export, and its
// vocabulary, configuration and settings among the extra assets. ckpt is a folder, a prefix such as
// "model.ckpt", or an archive: a zip, as NGC serves, or a tar, which gzip or bzip2 may have packed. A path
// in an archive, such as "models.zip/bert", chooses one of several. An export that fails, or whose context
// ends, leaves nothing behind.
func Export(ctx context.Context, ckpt, dir string, opts *ExportOptions) (*ExportReport, error) {
	return exportFrom(ctx, ckpt, dir, opts, func(temp string, opts *ExportOptions) (*source, error) {
		return openSource(ctx, ckpt, temp, opts)
	})
}

// exportFrom exports what open opens, which may make the folder temp and use it. The model is written
// beside dir and renamed when it is complete.
func exportFrom(
	ctx context.Context, name, dir string, opts *ExportOptions,
	open func(temp string, opts *ExportOptions) (*source, error),
) (_ *ExportReport, err error) {
	if opts == nil {
		opts = &ExportOptions{}
	}
	graph := cmp.Or(opts.Graph, ReferenceGraph)
	if err := checkPrecision(graph, opts.Device, opts.Precision); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if opts.MaxSeqLength < 0 {
		return nil, fmt.Errorf("export: the sequence length %d is negative", opts.MaxSeqLength)
	}
	stage, err := newStaging(dir, opts.Overwrite)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	defer stage.remove()
	src, err := open(stage.path("checkpoint"), opts)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	defer func() { err = src.unpacked.NameError(err) }() // which has paths of the unpacked files
	if n := opts.MaxSeqLength; n > src.config.MaxPositionEmbeddings {
		return nil, fmt.Errorf("export %s: %w", name, &LengthError{Length: n, Most: src.config.MaxPositionEmbeddings})
	}
	if err := src.checkWeights(opts.Head); err != nil {
		return nil, err
	}
	if err := tf.Load(""); err != nil {
		return nil, err
	}
	for i, note := range src.notes {
		src.notes[i] = src.unpacked.Name(note)
	}
	report := &ExportReport{
		Dir: dir, Checkpoint: name, Config: src.config, Activation: src.config.activation(), Notes: src.notes,
	}
	report.Settings = Settings{
		Graph: graph, Precision: opts.Precision, MaxSeqLength: opts.MaxSeqLength,
		DoLowerCase: !opts.Cased, Profile: opts.Profile, TensorFlow: tf.Version(), Source: filepath.Base(name),
	}
	if graph == FusedGraph {
		report.Settings.Ops = chooseOps(opts.Device, opts.Precision)
	}
	if opts.Precision == savedmodel.INT8 {
		if report.Settings.Int8, err = chooseInt8(); err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
	}
	if err := exportTo(ctx, stage.path("model"), src, opts, report); err != nil {
		return nil, fmt.Errorf("export %s: %w", name, err)
	}
	if err := stage.publish("model"); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return report, nil
}

// checkPrecision returns an error if a graph cannot be written in a precision for a device.
func checkPrecision(graph, device string, p savedmodel.Precision) error {
	switch {
	case graph != ReferenceGraph && graph != FusedGraph:
		return fmt.Errorf("unknown graph %q: it is %s or %s", graph, ReferenceGraph, FusedGraph)
	case device != "" && device != CPU && device != GPU:
		return fmt.Errorf("unknown device %q: it is %s or %s", device, CPU, GPU)
	case graph == ReferenceGraph && p != savedmodel.FP32:
		return fmt.Errorf("the reference graph is written in fp32, not %v: choose the fused graph", p)
	case dtypes[p] == 0 && p != savedmodel.INT8:
		return fmt.Errorf("unknown precision: %v", p)
	case p == savedmodel.INT8 && device == GPU:
		return errors.New("int8 is for CPUs: choose fp16 or fp32 for a GPU")
	case p == savedmodel.FP16 && device == CPU:
		return errors.New("fp16 is for GPUs: choose bf16 or fp32 for a CPU")
	}
	return nil
}

func exportTo(ctx context.Context, dir string, src *source, opts *ExportOptions, report *ExportReport) error {
	extra := filepath.Join(dir, savedmodel.ExtraAssetsDir)
	if err := os.MkdirAll(extra, 0o777); err != nil {
		return err
	}
	weights := &countingReader{ctx: ctx, source: src, report: report}
	var err error
	switch {
	case report.Settings.Int8 != nil:
		err = exportInt8(dir, weights, opts, report)
	case report.Settings.Graph == FusedGraph:
		err = exportFused(dir, weights, report.Settings)
	default:
		err = exportReference(dir, weights, report.Settings)
	}
	if err != nil {
		return err
	}
	report.LeftOut = len(src.Variables()) - report.Variables
	if err := errors.Join(
		copyFile(filepath.Join(extra, configFile), src.configPath),
		copyFile(filepath.Join(extra, vocabFile), src.vocabPath),
		writeJSON(filepath.Join(extra, settingsFile), report.Settings),
	); err != nil {
		return err
	}
	info, err := savedmodel.Inspect(dir)
	if err != nil {
		return err
	}
	report.Bytes = info.Size
	return nil
}

// countingReader reads and counts the weights of an export until its context ends.
type countingReader struct {
	*source
	ctx    context.Context
	report *ExportReport
}

func (r *countingReader) Float32s(name string) ([]float32, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	values, err := r.source.Float32s(name)
	if err != nil {
		return nil, err
	}
	if r.weight(name).DType != checkpoint.Float32 {
		r.report.Cast++
	}
	r.report.Variables++
	r.report.Parameters += int64(len(values))
	return values, nil
}

// exportReference writes the reference graph and its variables, one at a time.
func exportReference(dir string, weights *countingReader, s Settings) error {
	err := writeGraph(dir, func(g *tf.Graph) (savedmodel.Content, error) {
		return referenceGraph(g, weights.config, s.MaxSeqLength)
	})
	if err != nil {
		return err
	}
	prefix := filepath.Join(dir, savedmodel.VariablesPrefix)
	if err := os.Mkdir(filepath.Dir(prefix), 0o777); err != nil {
		return err
	}
	w, err := checkpoint.Create(prefix)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := weights.addTo(w); err != nil {
		return err
	}
	return w.Close()
}

// addTo adds all weights to a checkpoint, one at a time.
func (r *countingReader) addTo(w *checkpoint.Writer) error {
	for _, weight := range r.config.weights() {
		values, err := r.Float32s(weight.name)
		if err != nil {
			return err
		}
		if err := w.AddFloat32s(weight.name, weight.shape, values); err != nil {
			return err
		}
	}
	return nil
}

// exportFused writes the fused graph, whose constants are the weights.
func exportFused(dir string, weights *countingReader, s Settings) error {
	return writeGraph(dir, func(g *tf.Graph) (savedmodel.Content, error) {
		return fusedGraph(g, weights.config, s, weights)
	})
}

// exportInt8 writes the fused graph with the products of its layers in integers.
func exportInt8(dir string, weights *countingReader, opts *ExportOptions, report *ExportReport) error {
	layers, rest, err := calibrate(weights.ctx, weights, opts, &report.Settings)
	if err != nil {
		return err
	}
	for n := range layers {
		for p, product := range layers[n].products() {
			report.Products = append(report.Products, QuantizedProduct{n, productNames[p], product.Decibels()})
		}
	}
	return writeGraph(dir, func(g *tf.Graph) (savedmodel.Content, error) {
		return int8Graph(g, weights.config, report.Settings, rest, layers)
	})
}

func writeGraph(dir string, build func(g *tf.Graph) (savedmodel.Content, error)) (err error) {
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	content, err := build(g)
	if err != nil {
		return err
	}
	return savedmodel.Write(dir, content)
}

// copyFile copies a text, which gzip may have packed, as the text that it is.
func copyFile(to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := file.Text(from, f)
	if err != nil {
		return err
	}
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
