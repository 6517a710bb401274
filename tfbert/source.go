package tfbert

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/wordpiece"
)

// source is what an export reads: a checkpoint and the two files that stand beside it.
type source struct {
	*checkpoint.Reader
	name       string // the checkpoint's, for people
	configPath string
	vocabPath  string
	config     *Config
	unpacked   string // a temporary folder, "" where nothing had to be unpacked
}

// openSource finds and opens a checkpoint: path is its folder, its prefix, one of its files, or the
// zip that NGC serves. The zip's files are unpacked below tempDir.
func openSource(path, tempDir string, opts *ExportOptions) (_ *source, err error) {
	s := &source{name: filepath.Base(path)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if strings.EqualFold(filepath.Ext(path), ".zip") {
		if s.unpacked, err = os.MkdirTemp(tempDir, ".tfbert-unpack-*"); err != nil {
			return nil, err
		}
		if err = unpack(path, s.unpacked); err != nil {
			return nil, err
		}
		path = s.unpacked
	}
	if s.Reader, err = checkpoint.Open(path); err != nil {
		return nil, err
	}
	folder := filepath.Dir(s.Prefix())
	if s.configPath = opts.ConfigFile; s.configPath == "" {
		s.configPath = filepath.Join(folder, configFile)
	}
	if s.vocabPath = opts.VocabFile; s.vocabPath == "" {
		s.vocabPath = filepath.Join(folder, vocabFile)
	}
	if s.config, err = readConfigFile(s.configPath); err != nil {
		return nil, err
	}
	return s, s.checkVocab(opts.Profile)
}

func (s *source) Close() error {
	var errs []error
	if s.Reader != nil {
		errs = append(errs, s.Reader.Close())
	}
	if s.unpacked != "" {
		errs = append(errs, os.RemoveAll(s.unpacked))
	}
	return errors.Join(errs...)
}

func readConfigFile(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tfbert: no BERT configuration beside the checkpoint: %w; name it with --bert_config_file", err)
	}
	defer f.Close()
	c, err := ReadConfig(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func readVocabFile(path string, profile wordpiece.Profile) (*wordpiece.Vocab, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tfbert: no vocabulary: %w; name it with --vocab_file", err)
	}
	defer f.Close()
	v, err := profile.ReadVocab(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

func (s *source) checkVocab(profile wordpiece.Profile) error {
	v, err := readVocabFile(s.vocabPath, profile)
	if err != nil {
		return err
	}
	return checkVocabSize(s.vocabPath, v, s.config)
}

// checkVocabSize refuses a vocabulary of another model. One that is shorter than the table is
// refused too, though it would run: its ids are those of other words.
func checkVocabSize(path string, v *wordpiece.Vocab, c *Config) error {
	if v.Len() != c.VocabSize {
		return fmt.Errorf("tfbert: %s has %d entries, but the configuration's vocab_size is %d: it belongs to another model; name the right one with --vocab_file",
			path, v.Len(), c.VocabSize)
	}
	return nil
}

// checkWeights says which variables the configuration asks for are missing or of another shape or
// type.
func (s *source) checkWeights(weights []weight) error {
	var wrong []string
	missing := 0
	for _, w := range weights {
		v, ok := s.Variable(w.name)
		switch {
		case !ok:
			missing++
			wrong = append(wrong, w.name+" is missing")
		case !w.shape.Compatible(v.Shape):
			wrong = append(wrong, fmt.Sprintf("%s has shape %v, the configuration asks for %v", w.name, v.Shape, []int64(w.shape)))
		case !isFloat(v.DType):
			wrong = append(wrong, fmt.Sprintf("%s is of type %v, not a floating-point one", w.name, v.DType))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	hint := "name the right configuration with --bert_config_file"
	if _, ok := s.Variable("cls/squad/output_weights"); !ok && missing == 2 {
		hint = "it has no question-answering head: it was not fine-tuned on SQuAD"
	}
	const most = 3 // on one line
	if n := len(wrong); n > most {
		wrong = append(wrong[:most], fmt.Sprintf("and %d more", n-most))
	}
	return fmt.Errorf("tfbert: the checkpoint %s does not fit %s (%s): %s",
		s.Prefix(), s.configPath, hint, strings.Join(wrong, "; "))
}

func isFloat(d checkpoint.DType) bool {
	switch d {
	case checkpoint.Float32, checkpoint.Float16, checkpoint.BFloat16:
		return true
	}
	return false
}

// unpack takes the checkpoint's files out of a zip, whatever folder they are in there.
func unpack(file, dir string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("tfbert: %s: %w", file, err)
	}
	defer z.Close()
	for _, f := range z.File {
		name := path.Base(f.Name)
		if f.FileInfo().IsDir() || !wanted(name) {
			continue
		}
		if err := unpackFile(f, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("tfbert: %s: %s: %w", file, f.Name, err)
		}
	}
	return nil
}

func wanted(name string) bool {
	return name == configFile || name == vocabFile || name == "checkpoint" ||
		strings.HasSuffix(name, ".index") || strings.Contains(name, ".data-")
}

func unpackFile(f *zip.File, to string) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
