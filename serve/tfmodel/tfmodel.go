// Package tfmodel loads the SavedModels of package tfbert into the repository of a server.
//
// A program that serves one model in every protocol is the package's example.
package tfmodel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// Options say how models are loaded; nil and zero values take everything from the model's own files.
type Options struct {
	// Model is how each is opened. Its VocabFile replaces every model's vocabulary. Where it asks for no
	// precision, a config.pbtxt with auto_mixed_precision does.
	Model tfbert.Options
	// SeqLength is the length of windows where a question asks for none, in word pieces; 0 is the model's.
	SeqLength int
	// RequirePrecision refuses a model if nothing in it runs in the precision that was chosen.
	RequirePrecision bool

	Logger *slog.Logger // nil: none
}

// Loader returns the repository's way to load models through TensorFlow.
func Loader(opts *Options) repository.Loader {
	l := &loader{}
	if opts != nil {
		l.Options = *opts
	}
	if l.Logger == nil {
		l.Logger = slog.New(slog.DiscardHandler)
	}
	return l.load
}

type loader struct{ Options }

func (l *loader) load(ctx context.Context, s repository.Source) (_ *repository.Backend, err error) {
	opts := l.Model
	opts.VocabFile = cmp.Or(opts.VocabFile, vocabOf(s))
	if s.MixedPrecision && opts.Precision == tfbert.DefaultPrecision {
		if opts.Precision, err = l.mixed(s); err != nil {
			return nil, err
		}
	}
	m, err := l.open(s, &opts)
	if err != nil {
		return nil, err
	}
	defer tf.TrimMemory() // of what loading took
	b, err := l.backend(ctx, m, s)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return b, nil
}

// open opens a model on the device that its configuration asks for. A configuration that was made for GPUs also
// serves on a machine without one.
func (l *loader) open(s repository.Source, opts *tfbert.Options) (*tfbert.Model, error) {
	opts.Device = s.Device
	if number, ok := strings.CutPrefix(s.Device, "/CPU:"); ok {
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%q is not a device: %w", s.Device, err)
		}
		opts.Config.CPUDevices = max(opts.Config.CPUDevices, n+1)
	}
	m, err := tfbert.Open(s.Dir, opts)
	var missing *savedmodel.DeviceError
	isGPU := func(device string) bool { return strings.HasPrefix(device, "/GPU:") }
	if errors.As(err, &missing) && isGPU(missing.Device) && !slices.ContainsFunc(missing.Have, isGPU) {
		l.Logger.Warn("the configuration asks for a GPU, and TensorFlow has none: the model runs on the CPU",
			"model", s.Name, "version", s.Version, "device", s.Device)
		opts.Device = ""
		return tfbert.Open(s.Dir, opts)
	}
	return m, err
}

// mixed returns the precision of a model whose configuration asks for TensorFlow's rewrite to fp16.
func (l *loader) mixed(s repository.Source) (tfbert.Precision, error) {
	settings, err := tfbert.ReadSettings(s.Dir)
	switch {
	case err != nil:
		return "", err
	case settings.Graph == tfbert.FusedGraph: // which computes in the type of its weights
		return tfbert.DefaultPrecision, nil
	}
	if err := tfbert.FP16Support(); err != nil {
		l.Logger.Warn("the configuration asks for auto_mixed_precision, which is for GPUs: the model runs in fp32",
			"model", s.Name, "version", s.Version, "because", err)
		return tfbert.DefaultPrecision, nil
	}
	return tfbert.FP16, nil
}

func (l *loader) backend(ctx context.Context, m *tfbert.Model, s repository.Source) (*repository.Backend, error) {
	length := cmp.Or(l.SeqLength, m.SeqLength())
	if err := m.CheckLength(length); err != nil {
		return nil, err
	}
	choice := m.Choice()
	if l.RequirePrecision {
		if err := m.RequirePrecision(ctx); err != nil {
			return nil, err
		}
	}
	inputs, outputs, err := tensors(m)
	if err != nil {
		return nil, err
	}
	for _, note := range m.Mapping().Notes {
		l.Logger.Warn("how the model is asked: "+note, "model", s.Name, "version", s.Version)
	}
	size, err := sizeOf(s.Dir)
	if err != nil {
		return nil, err
	}
	description := fmt.Sprintf("%s graph in %v", cmp.Or(m.Settings().Graph, "unknown"), choice.Precision)
	if choice.Because != "" {
		description += ", because " + choice.Because
	}
	return &repository.Backend{
		Predictor: m, Tokenizer: m.Tokenizer(), SeqLength: length, CheckLength: m.CheckLength,
		Segments: m.TypeVocabSize(), Bytes: size,
		Inputs: inputs, Outputs: outputs,
		Description: description, Close: closer(m),
	}, nil
}

// closer returns what releases a model. The memory goes back to the system, since the next model may be another one.
func closer(m *tfbert.Model) func() error {
	return func() error {
		err := m.Close()
		debug.FreeOSMemory()
		tf.TrimMemory()
		return err
	}
}

// vocabOf returns the vocabulary in the folder of a model of a repository, where NVIDIA's scripts leave it to
// its owner to put one; "" leaves it to be found beside the SavedModel.
func vocabOf(s repository.Source) string {
	path := filepath.Join(s.ModelDir, "vocab.txt")
	if _, err := os.Stat(path); s.ModelDir == "" || err != nil {
		return ""
	}
	return path
}

// sizeOf returns the bytes of the files in a folder.
func sizeOf(dir string) (int64, error) {
	var size int64
	err := fs.WalkDir(os.DirFS(dir), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// tensors returns what clients send and receive: the tensors of the model's own signature. Those of
// run_squad.py stand in for a signature that a client cannot send, such as one of serialized examples, or
// whose logits are two parts of one output.
func tensors(m *tfbert.Model) (inputs, outputs []repository.TensorInfo, err error) {
	mapping := m.Mapping()
	rows, matrix := []int64{-1}, []int64{-1, mapping.Length} // a fixed batch is filled up
	types := map[string]string{tf.Int32.String(): repository.Int32, tf.Int64.String(): repository.Int64}
	in, out := map[string]tfbert.MappedInput{}, map[string]tfbert.MappedOutput{}
	own := mapping.Examples == ""
	for _, t := range mapping.Inputs {
		in[t.Key] = t
		own = own && types[t.Type] != ""
	}
	for _, t := range mapping.Outputs {
		out[t.Key] = t
		own = own && t.Index == ""
	}
	if !own {
		for _, name := range []string{"input_ids", "input_mask", "segment_ids"} {
			inputs = append(inputs, repository.TensorInfo{Name: name, Type: repository.Int32, Shape: matrix})
		}
		for _, name := range []string{"end_logits", "start_logits"} {
			outputs = append(outputs, repository.TensorInfo{Name: name, Type: repository.Float32, Shape: matrix})
		}
		return inputs, outputs, nil
	}
	graph := m.SavedModel().MetaGraph()
	signature, err := graph.Signature(mapping.Signature)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range signature.Inputs {
		mapped, ok := in[t.Key]
		if !ok { // it is left at its default
			continue
		}
		info := repository.TensorInfo{
			Name: t.Key, As: mapped.As, Type: types[mapped.Type], Shape: matrix, TensorName: t.Name,
		}
		if mapped.As == uniqueIDs {
			info.Shape = rows
		}
		inputs = append(inputs, info)
	}
	for _, t := range signature.Outputs {
		mapped, ok := out[t.Key]
		switch {
		case ok: // in whatever type the model has them
			outputs = append(outputs, repository.TensorInfo{
				Name: t.Key, As: mapped.As, Type: repository.Float32, Shape: matrix, TensorName: t.Name,
			})
		case t.Key == uniqueIDs && types[t.DType.String()] != "":
			outputs = append(outputs, repository.TensorInfo{
				Name: t.Key, Type: types[t.DType.String()], Shape: rows, TensorName: t.Name,
			})
		}
	}
	return inputs, outputs, nil
}

// uniqueIDs is the name of the ids of windows, which come back as they were sent.
const uniqueIDs = "unique_ids"
