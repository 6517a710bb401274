package tfbert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tfbert/go/checkpoint"
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
}

// openSource finds and opens a checkpoint: path is its folder, its prefix, one of its files, or the
// zip that NGC serves, which is unpacked to temp.
func openSource(ctx context.Context, path, temp string, opts *ExportOptions) (*source, error) {
	if !strings.EqualFold(filepath.Ext(path), ".zip") {
		return openFiles(path, path, opts)
	}
	if err := unpack(ctx, path, temp); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := openFiles(path, temp, opts)
	if err != nil {
		return nil, fmt.Errorf("%w (unpacked from %s)", err, path)
	}
	return s, nil
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
		return "", &MissingFileError{Name: name, Of: "the checkpoint " + s.name}
	case err == nil && !info.Mode().IsRegular():
		return "", &MissingFileError{Name: name, Of: s.name, Err: fmt.Errorf("%s is not a plain file", path)}
	}
	return path, nil
}

// maxConfigFile is more than a bert_config.json has.
const maxConfigFile = 1 << 20

func readConfigFile(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &MissingFileError{Name: configFile, Err: fmt.Errorf("no BERT configuration: %w", err)}
	}
	defer f.Close()
	head := &io.LimitedReader{R: f, N: maxConfigFile}
	c, err := ReadConfig(head)
	if err != nil && head.N == 0 {
		err = fmt.Errorf("config: not a bert_config.json: it is longer than %d bytes", maxConfigFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func readVocabFile(path string, profile wordpiece.Profile) (*wordpiece.Vocab, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &MissingFileError{Name: vocabFile, Err: fmt.Errorf("no vocabulary: %w", err)}
	}
	defer f.Close()
	v, err := profile.ReadVocab(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// checkVocabSize refuses a vocabulary of another model. One that is shorter than the table is
// refused too, though it would run: its ids are those of other words.
func checkVocabSize(path string, v *wordpiece.Vocab, c *Config) error {
	if v.Len() != c.VocabSize {
		return &VocabSizeError{File: path, Entries: v.Len(), ConfigVocabSize: c.VocabSize}
	}
	return nil
}

// checkWeights returns an error that lists the variables which the configuration asks for and which are
// missing or of another shape or type, and the layers that it does not ask for.
func (s *source) checkWeights() error {
	// Each layer has more than one, so that what a configuration claims is not listed at length.
	if layers, have := s.config.NumHiddenLayers, len(s.Variables()); layers > have {
		return &ConfigMismatchError{
			Checkpoint: s.name, ConfigFile: s.configPath,
			Detail: fmt.Sprintf("it has %d variables, too few for %d layers", have, layers),
		}
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
	noHead := !hasWeights && !hasBias && len(wrong) == 2
	const most = 8 // on one line
	if n := len(wrong); n > most {
		wrong = append(wrong[:most], fmt.Sprintf("and %d more", n-most))
	}
	return &ConfigMismatchError{
		Checkpoint: s.name, ConfigFile: s.configPath, Detail: strings.Join(wrong, "; "), NoHead: noHead,
	}
}

func isFloat(d checkpoint.DType) bool {
	switch d {
	case checkpoint.Float32, checkpoint.Float16, checkpoint.BFloat16:
		return true
	}
	return false
}
