package tfbert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/archive"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/wordpiece"
)

// variables are the values of a model: those of a checkpoint, or random ones.
type variables interface {
	weightReader
	Variables() []checkpoint.Variable
	Variable(name string) (checkpoint.Variable, bool)
	Close() error
}

// source is what an export reads: variables and the two files that stand beside them.
type source struct {
	variables
	name       string // the checkpoint, as the caller named it
	prefix     string // and where it was found
	configPath string
	vocabPath  string
	config     *Config
	unpacked   *archive.Unpacked // nil if the files are in no archive
}

// openSource finds and opens a checkpoint: path is its folder, its prefix, one of its files, or an
// archive or a path in one, which is unpacked to temp.
func openSource(ctx context.Context, path, temp string, opts *ExportOptions) (*source, error) {
	name, inside, ok := archive.Split(path)
	if !ok {
		if _, err := os.Stat(path); err != nil && archive.Base(path) != filepath.Base(path) {
			return nil, err // of an archive that is not there, no file of a checkpoint is missing
		}
		return openFiles(path, path, opts)
	}
	unpacked, err := unpack(ctx, name, inside, temp)
	if err != nil {
		return nil, err
	}
	s, err := openFiles(path, unpacked.Path, opts)
	if err != nil {
		return nil, unpacked.NameError(err)
	}
	s.unpacked = unpacked
	return s, nil
}

// unpack takes a checkpoint's files out of an archive into the folder temp.
func unpack(ctx context.Context, name, inside, temp string) (_ *archive.Unpacked, err error) {
	a, err := archive.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	m, err := a.Choose(inside, false)
	if err != nil {
		return nil, err
	}
	return m.Unpack(ctx, temp)
}

// openFiles opens the checkpoint at path with its configuration and vocabulary.
func openFiles(name, path string, opts *ExportOptions) (*source, error) {
	r, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	s := &source{variables: r, name: name, prefix: r.Prefix()}
	if err := s.check(opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// check finds and reads the files beside the checkpoint.
func (s *source) check(opts *ExportOptions) (err error) {
	if s.configPath, err = s.beside(configFile, opts.ConfigFile); err != nil {
		return err
	}
	if s.vocabPath, err = s.beside(vocabFile, opts.VocabFile); err != nil {
		return err
	}
	if s.config, err = readConfigFile(s.configPath); err != nil {
		return err
	}
	v, err := readVocabFile(s.vocabPath, opts.Profile)
	if err != nil {
		return err
	}
	return checkVocabSize(s.vocabPath, v, s.config)
}

// beside finds a file in the checkpoint's folder, unless another one is named.
func (s *source) beside(name, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	path := filepath.Join(filepath.Dir(s.prefix), name)
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return "", noFileBeside("the checkpoint "+s.name, name)
	case err == nil && !info.Mode().IsRegular():
		return "", &FileError{Name: name, Path: path, Err: &file.IrregularError{Path: path}}
	}
	return path, nil
}

// noFileBeside returns the error of a model or checkpoint without one of its files.
func noFileBeside(model, name string) error {
	return &FileError{Name: name, Err: fmt.Errorf("%s has no %s beside it", model, name)}
}

func readConfigFile(path string) (*Config, error) {
	c, err := file.Parse(path, ReadConfig)
	if err != nil {
		return nil, &FileError{Name: configFile, Path: path, Err: err}
	}
	return c, nil
}

func readVocabFile(path string, profile wordpiece.Profile) (*wordpiece.Vocab, error) {
	v, err := file.Parse(path, profile.ReadVocab)
	if err != nil {
		return nil, &FileError{Name: vocabFile, Path: path, Err: err}
	}
	return v, nil
}

// checkVocabSize refuses a vocabulary of another model. One that is shorter than the table is
// refused too, though it would run: its ids are those of other words.
func checkVocabSize(path string, v *wordpiece.Vocab, c *Config) error {
	if v.Len() == c.VocabSize {
		return nil
	}
	err := fmt.Errorf("%s has %d entries, but the configuration's vocab_size is %d: it belongs to another model",
		path, v.Len(), c.VocabSize)
	return &FileError{Name: vocabFile, Path: path, Err: err}
}

// checkWeights returns an error that lists the variables which the configuration asks for and which are
// missing or of another shape or type, and the layers that it does not ask for.
func (s *source) checkWeights() error {
	// Each layer has more than one, so that what a configuration claims is not listed at length.
	if layers, have := s.config.NumHiddenLayers, len(s.Variables()); layers > have {
		return s.mismatch(fmt.Sprintf("it has %d variables, too few for %d layers", have, layers))
	}
	var wrong []string
	known := map[string]bool{}
	for _, w := range s.config.weights() {
		known[w.name] = true
		v, ok := s.Variable(w.name)
		switch {
		case !ok:
			wrong = append(wrong, w.name+" is missing")
		case !w.shape.Compatible(v.Shape):
			wrong = append(wrong, fmt.Sprintf("%s has shape %v, the configuration asks for %v", w.name, v.Shape, []int64(w.shape)))
		case !isFloat(v.DType):
			wrong = append(wrong, fmt.Sprintf("%s is of type %v, not a floating-point one", w.name, v.DType))
		}
	}
	// The scripts restore what the graph asks for and run a model that lacks its last layers.
	for _, v := range s.Variables() {
		if v.Kind == checkpoint.Weight && strings.HasPrefix(v.Name, encoderScope) && !known[v.Name] {
			wrong = append(wrong, fmt.Sprintf("%s is not of the configuration's %d layers", v.Name, s.config.NumHiddenLayers))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	_, hasWeights := s.Variable("cls/squad/output_weights")
	_, hasBias := s.Variable("cls/squad/output_bias")
	if !hasWeights && !hasBias && len(wrong) == 2 { // the configuration is right
		return fmt.Errorf("the checkpoint %s has no question-answering head: it was not fine-tuned on SQuAD: %s",
			s.name, strings.Join(wrong, "; "))
	}
	const most = 8 // on one line
	if n := len(wrong); n > most {
		wrong = append(wrong[:most], fmt.Sprintf("and %d more", n-most))
	}
	return s.mismatch(strings.Join(wrong, "; "))
}

// mismatch returns the error of a configuration that does not describe the checkpoint.
func (s *source) mismatch(detail string) error {
	err := fmt.Errorf("the checkpoint %s does not fit %s: %s", s.name, s.configPath, detail)
	return &FileError{Name: configFile, Path: s.configPath, Err: err}
}

func isFloat(d checkpoint.DType) bool {
	switch d {
	case checkpoint.Float32, checkpoint.Float16, checkpoint.BFloat16:
		return true
	}
	return false
}
