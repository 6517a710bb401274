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
	m, err := tfbert.Open(s.Dir, &opts)
	if err != nil {
		return nil, err
	}
	b, err := l.backend(ctx, m, s)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return b, nil
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
		report, err := m.Precision(ctx)
		if err == nil {
			err = report.Require(choice.Precision)
		}
		if err != nil {
			return nil, err
		}
	}
	graph := m.SavedModel().MetaGraph()
	signature, err := graph.Signature(cmp.Or(l.Model.Signature, savedmodel.DefaultSignature))
	if err != nil {
		return nil, err
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
		Inputs: tensorInfos(signature.Inputs), Outputs: tensorInfos(signature.Outputs),
		Description: description, Close: m.Close,
	}, nil
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

// tensorInfos returns those of a signature that a client can send or receive.
func tensorInfos(from []savedmodel.TensorInfo) []repository.TensorInfo {
	types := map[tf.DataType]string{tf.Int32: repository.Int32, tf.Float: repository.Float32}
	var infos []repository.TensorInfo
	for _, t := range from {
		if kind, ok := types[t.DType]; ok {
			infos = append(infos, repository.TensorInfo{Name: t.Key, Type: kind, Shape: t.Shape, TensorName: t.Name})
		}
	}
	return infos
}
