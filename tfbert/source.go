package tfbert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	ObjectBased() bool
	FullNames() (map[string]string, error)
	Close() error
}

// source is what an export reads: variables and the two files beside them.
type source struct {
	variables
	name       string // the checkpoint, as the caller named it
	prefix     string // and where it was found
	pytorch    bool   // the weights are those of a model of transformers, in a folder of its files
	configPath string
	vocabPath  string
	config     *Config
	unpacked   *archive.Unpacked // nil if the files are in no archive
	resolved   *resolution       // of the weights among the variables
	notes      []string          // what a person should know about the files
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
	unpacked, err := archive.Unpack(ctx, name, inside, false, temp)
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

// openFiles opens the checkpoint at path with its configuration and vocabulary.
func openFiles(name, path string, opts *ExportOptions) (*source, error) {
	s := &source{name: name}
	if weights := findSafetensors(path); weights != "" {
		p, err := openPyTorch(weights)
		if err != nil {
			return nil, err
		}
		s.variables, s.prefix, s.pytorch = p, weights, true
	} else {
		r, err := checkpoint.Open(path)
		if err != nil {
			return nil, err
		}
		s.variables, s.prefix = r, r.Prefix()
	}
	if err := s.check(opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// check finds and reads the files beside the checkpoint.
func (s *source) check(opts *ExportOptions) (err error) {
	config := configFile
	if s.pytorch {
		config = huggingFaceConfig
	}
	if s.configPath, err = s.beside(config, opts.ConfigFile); err != nil {
		return err
	}
	if s.vocabPath, err = s.beside(vocabFile, opts.VocabFile); err != nil {
		return err
	}
	if s.config, err = readConfigFile(s.configPath); err != nil {
		return err
	}
	s.config.huggingFace = s.config.huggingFace || s.pytorch
	v, err := readVocabFile(s.vocabPath, opts.Profile)
	if err != nil {
		return err
	}
	if have, rows := entries(v), s.config.VocabSize; have < rows {
		s.notes = append(s.notes, fmt.Sprintf("%s has %d entries for %d rows of the table: the others are padding",
			filepath.Base(s.vocabPath), have, rows))
	}
	return checkVocab(s.vocabPath, v, s.config)
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

// entries counts a vocabulary's entries. The scripts give blank lines at its end ids too, which no text has.
func entries(v *wordpiece.Vocab) int {
	n := v.Len()
	for n > 0 && v.Token(int32(n-1)) == "" {
		n--
	}
	return n
}

// checkVocab refuses a vocabulary that is not the model's. A table may have more rows than the vocabulary has
// entries: NVIDIA pads it to a multiple of 8, and no id is in the padding.
func checkVocab(path string, v *wordpiece.Vocab, c *Config) error {
	var err error
	if n := entries(v); n > c.VocabSize {
		err = fmt.Errorf("%s has %d entries, but the configuration's vocab_size is %d: it belongs to another model",
			path, n, c.VocabSize)
	}
	for _, special := range []string{"[CLS]", "[SEP]"} {
		if _, ok := v.ID(special); !ok && err == nil {
			err = fmt.Errorf("%s has no %s: it is not the vocabulary of a BERT", path, special)
		}
	}
	if err != nil {
		return &FileError{Name: vocabFile, Path: path, Err: err}
	}
	return nil
}

// checkWeights finds the weights that the configuration asks for, and returns an error unless all are there with
// their shapes, with nothing beside them that changes what a BERT computes.
func (s *source) checkWeights(head string) error {
	// Each layer has more than one, so that what a configuration claims is not listed at length.
	if layers, have := s.config.NumHiddenLayers, len(s.Variables()); layers > have {
		return s.mismatch(fmt.Sprintf("it has %d variables, too few for %d layers", have, layers))
	}
	if err := s.resolve(head); err != nil {
		return err
	}
	s.config.huggingFace = s.config.huggingFace || s.resolved.huggingFace
	s.notes = append(s.notes, s.resolved.notes...)
	if activation := s.config.activation(); activation != geluTanh || s.config.HiddenAct != "gelu" {
		s.notes = append(s.notes, "the activation is "+activation)
	}
	return nil
}

// weight returns the variable that holds a weight.
func (s *source) weight(name string) checkpoint.Variable {
	v, _ := s.Variable(s.resolved.keys[name])
	return v
}

// Float32s returns the values of a weight, as modeling.py has them.
func (s *source) Float32s(name string) ([]float32, error) {
	values, err := s.variables.Float32s(s.resolved.keys[name])
	if err != nil || !s.resolved.turned[name] {
		return values, err
	}
	return transpose(values, len(values)/2, 2), nil
}

// mismatch returns the error of a configuration that does not describe the checkpoint.
func (s *source) mismatch(detail string) error {
	err := fmt.Errorf("the checkpoint %s does not fit %s: %s", s.name, s.configPath, detail)
	return &FileError{Name: configFile, Path: s.configPath, Err: err}
}

func isFloat(d checkpoint.DType) bool {
	switch d {
	case checkpoint.Float32, checkpoint.Float16, checkpoint.BFloat16, checkpoint.Float64:
		return true
	}
	return false
}
