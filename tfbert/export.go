package tfbert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// ReferenceGraph is the graph of modeling.py and run_squad.py, operation for operation, with its
// weights as variables.
const ReferenceGraph = "reference"

// ExportOptions are the choices of an export; nil is the reference's own.
type ExportOptions struct {
	Graph        string // "" for ReferenceGraph
	MaxSeqLength int    // a static sequence length; 0 leaves it dynamic

	// ConfigFile and VocabFile are looked for beside the checkpoint where they are "".
	ConfigFile, VocabFile string

	Cased   bool              // the model was trained with do_lower_case=False
	Profile wordpiece.Profile // of the tokenizer

	Overwrite bool // replace a directory that is there
}

// ExportReport says what an export did.
type ExportReport struct {
	Dir        string   `json:"dir"`
	Checkpoint string   `json:"checkpoint"`
	Config     *Config  `json:"config"`
	Settings   Settings `json:"settings"`
	Variables  int      `json:"variables"`
	Parameters int64    `json:"parameters"`
	Cast       int      `json:"cast"`     // variables widened to float32
	LeftOut    int      `json:"left_out"` // optimizer slots, bookkeeping and unused weights
	Bytes      int64    `json:"bytes"`
}

// Export writes a TF1 BERT checkpoint as a SavedModel with the signature of NVIDIA's own export. The
// checkpoint is a folder, a prefix such as "model.ckpt", or the zip that NGC serves; dir becomes the
// SavedModel, with the vocabulary, the configuration and the settings among its extra assets.
//
// The model is written beside dir and renamed when it is complete: an export that fails, or whose
// context ends, leaves nothing behind.
func Export(ctx context.Context, ckpt, dir string, opts *ExportOptions) (*ExportReport, error) {
	if opts == nil {
		opts = &ExportOptions{}
	}
	if opts.Graph != "" && opts.Graph != ReferenceGraph {
		return nil, fmt.Errorf("tfbert: export: no such graph %q: there is %s", opts.Graph, ReferenceGraph)
	}
	if opts.MaxSeqLength < 0 {
		return nil, fmt.Errorf("tfbert: export: --max_seq_length %d is negative", opts.MaxSeqLength)
	}
	stage, err := newStaging(dir, opts.Overwrite)
	if err != nil {
		return nil, fmt.Errorf("tfbert: export: %w", err)
	}
	defer stage.remove()
	src, err := openSource(ctx, ckpt, stage.path("checkpoint"), opts)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if n := opts.MaxSeqLength; n > src.config.MaxPositionEmbeddings {
		return nil, fmt.Errorf("tfbert: export %s: the model has positions for sequences of up to %d, not of %d: lower --max_seq_length",
			ckpt, src.config.MaxPositionEmbeddings, n)
	}
	if err := src.checkWeights(); err != nil {
		return nil, err
	}
	if err := tf.Load(""); err != nil {
		return nil, err
	}
	report := &ExportReport{Dir: dir, Checkpoint: ckpt, Config: src.config, Settings: Settings{
		Graph: ReferenceGraph, MaxSeqLength: opts.MaxSeqLength, DoLowerCase: !opts.Cased, Profile: opts.Profile,
		TensorFlow: tf.Version(), Source: filepath.Base(ckpt),
	}}
	if err := exportTo(ctx, stage.path("model"), src, report); err != nil {
		return nil, fmt.Errorf("tfbert: export %s: %w", ckpt, err)
	}
	if err := stage.publish("model"); err != nil {
		return nil, fmt.Errorf("tfbert: export: %w", err)
	}
	return report, nil
}

func exportTo(ctx context.Context, dir string, src *source, report *ExportReport) error {
	for _, folder := range []string{filepath.Dir(savedmodel.VariablesPrefix), savedmodel.ExtraAssetsDir} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o777); err != nil {
			return err
		}
	}
	if err := exportGraph(dir, src.config, report.Settings.MaxSeqLength); err != nil {
		return err
	}
	if err := exportVariables(ctx, filepath.Join(dir, savedmodel.VariablesPrefix), src, report); err != nil {
		return err
	}
	extra := filepath.Join(dir, savedmodel.ExtraAssetsDir)
	if err := errors.Join(
		copyFile(filepath.Join(extra, configFile), src.configPath),
		copyFile(filepath.Join(extra, vocabFile), src.vocabPath),
		writeSettings(filepath.Join(extra, settingsFile), report.Settings),
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

func exportGraph(dir string, c *Config, length int) (err error) {
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	content, err := referenceGraph(g, c, length)
	if err != nil {
		return err
	}
	return savedmodel.Write(dir, content)
}

// exportVariables copies the weights from the checkpoint one at a time, as float32.
func exportVariables(ctx context.Context, prefix string, src *source, report *ExportReport) error {
	w, err := checkpoint.Create(prefix)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, weight := range src.config.weights() {
		if err := ctx.Err(); err != nil {
			return err
		}
		values, err := src.Float32s(weight.name)
		if err != nil {
			return err
		}
		if err := w.AddFloat32s(weight.name, weight.shape, values); err != nil {
			return err
		}
		if v, _ := src.Variable(weight.name); v.DType != checkpoint.Float32 {
			report.Cast++
		}
		report.Variables++
		report.Parameters += int64(len(values))
	}
	report.LeftOut = len(src.Variables()) - report.Variables
	return w.Close()
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
