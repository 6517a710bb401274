package tfbert

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/safetensors"
)

// The forms of a checkpoint.
const (
	TF1Checkpoint = "tf1"         // model.ckpt.*, bert_config.json and vocab.txt, as run_squad.py reads them
	Safetensors   = "safetensors" // model.safetensors, config.json and vocab.txt, as transformers reads them
)

// ConvertOptions are the choices of a conversion; nil takes everything from the checkpoint.
type ConvertOptions struct {
	Form                  string // to write; "": the one that the checkpoint does not have
	ConfigFile, VocabFile string // "": those beside the checkpoint
	Head                  string // as in ExportOptions
	Cased                 bool   // the model was trained with do_lower_case=False
}

// ConvertReport describes what a conversion did.
type ConvertReport struct {
	Dir        string   `json:"dir"`
	Form       string   `json:"form"`
	Variables  int      `json:"variables"`
	Parameters int64    `json:"parameters"`
	Notes      []string `json:"notes,omitempty"`
}

// Convert writes a checkpoint that Export reads in the other form, into a folder that must not exist or be empty. The
// weights are in float32, and those that answering questions does not need are left out. A conversion that fails, or
// whose context ends, leaves nothing behind.
func Convert(ctx context.Context, ckpt, dir string, opts *ConvertOptions) (_ *ConvertReport, err error) {
	if opts == nil {
		opts = &ConvertOptions{}
	}
	stage, err := newStaging(dir, false)
	if err != nil {
		return nil, fmt.Errorf("convert: %w", err)
	}
	defer stage.remove()
	src, err := openSource(ctx, ckpt, stage.path("checkpoint"), &ExportOptions{
		ConfigFile: opts.ConfigFile, VocabFile: opts.VocabFile,
	})
	if err != nil {
		return nil, err
	}
	defer src.Close()
	defer func() { err = src.unpacked.NameError(err) }() // which has paths of the unpacked files
	if err := src.checkWeights(opts.Head); err != nil {
		return nil, err
	}
	report := &ConvertReport{Dir: dir, Notes: src.notes}
	weights := &countingReader{ctx: ctx, source: src, report: &ExportReport{}}
	if report.Form = opts.Form; report.Form == "" {
		report.Form = map[bool]string{true: TF1Checkpoint, false: Safetensors}[src.pytorch]
	}
	to := stage.path("model")
	if err := os.MkdirAll(to, 0o777); err != nil {
		return nil, fmt.Errorf("convert: %w", err)
	}
	switch report.Form {
	case TF1Checkpoint:
		err = writeTF1(to, weights)
		if src.config.activation() == geluErf || src.config.layerNormEpsilon() != scriptsEpsilon {
			report.Notes = append(report.Notes, "run_squad.py would compute something else: "+
				"it has no gelu by erf, and its layer norms add 1e-12")
		}
	case Safetensors:
		err = writeSafetensors(to, weights, !opts.Cased)
	default:
		err = fmt.Errorf("unknown form %q: it is %s or %s", opts.Form, TF1Checkpoint, Safetensors)
	}
	if err == nil {
		err = copyFile(filepath.Join(to, vocabFile), src.vocabPath)
	}
	if err == nil {
		err = stage.publish("model")
	}
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", ckpt, err)
	}
	report.Variables, report.Parameters = weights.report.Variables, weights.report.Parameters
	return report, nil
}

func writeTF1(dir string, weights *countingReader) error {
	w, err := checkpoint.Create(filepath.Join(dir, "model.ckpt"))
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := weights.addTo(w); err != nil {
		return err
	}
	config := weights.config.keys()
	activation := weights.config.activation()
	names := map[string]string{geluTanh: "gelu", geluErf: "gelu_erf", geluQuick: "quick_gelu"}
	config["hidden_act"] = cmp.Or(names[activation], activation)
	return errors.Join(w.Close(), writeJSON(filepath.Join(dir, configFile), config))
}

func writeSafetensors(dir string, weights *countingReader, lower bool) error {
	var tensors []safetensors.Source
	for _, w := range weights.config.weights() {
		name, transposed := huggingFaceOf(w.name)
		shape := []int64(w.shape)
		if transposed {
			shape = []int64{shape[1], shape[0]}
		}
		tensors = append(tensors, safetensors.Source{Name: name, Shape: shape, Values: func() ([]float32, error) {
			values, err := weights.Float32s(w.name)
			if err == nil && transposed {
				values = transpose(values, int(w.shape[0]), int(w.shape[1]))
			}
			return values, err
		}})
	}
	config := weights.config.keys()
	config["model_type"], config["architectures"] = "bert", []string{"BertForQuestionAnswering"}
	activation := weights.config.activation()
	names := map[string]string{geluTanh: "gelu_pytorch_tanh", geluErf: "gelu", geluQuick: "quick_gelu", swish: "silu"}
	config["hidden_act"] = cmp.Or(names[activation], activation)
	return errors.Join(
		safetensors.Write(filepath.Join(dir, safetensorsFile), tensors),
		writeJSON(filepath.Join(dir, huggingFaceConfig), config),
		writeJSON(filepath.Join(dir, "tokenizer_config.json"), map[string]any{
			"tokenizer_class": "BertTokenizer", "do_lower_case": lower,
			"model_max_length": weights.config.MaxPositionEmbeddings,
		}),
	)
}

// huggingFaceOf returns the name of a weight in transformers, and whether it is transposed there.
func huggingFaceOf(weight string) (name string, transposed bool) {
	switch weight {
	case headWeights:
		return "qa_outputs.weight", false
	case headBias:
		return "qa_outputs.bias", false
	}
	name = strings.ReplaceAll(weight, "layer_", "layer/")
	name, transposed = strings.CutSuffix(name, "/kernel")
	switch {
	case transposed, strings.HasSuffix(name, "_embeddings"):
		name += "/weight"
	case strings.HasSuffix(name, "/gamma"):
		name = strings.TrimSuffix(name, "gamma") + "weight"
	case strings.HasSuffix(name, "/beta"):
		name = strings.TrimSuffix(name, "beta") + "bias"
	}
	return strings.ReplaceAll(name, "/", "."), transposed
}

// keys returns the keys of a configuration that both forms have.
func (c *Config) keys() map[string]any {
	keys := map[string]any{"layer_norm_eps": c.layerNormEpsilon()}
	for _, f := range c.sizes() {
		keys[f.key] = *f.value
	}
	return keys
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}
