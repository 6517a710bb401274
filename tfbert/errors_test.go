package tfbert_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

// requireAs returns the error of a type in the chain of err.
func requireAs[E error](t *testing.T, err error) E {
	t.Helper()
	e, ok := errors.AsType[E](err)
	require.True(t, ok, "%v", err)
	return e
}

// exportError returns the error of an export that must fail.
func exportError(t *testing.T, ckpt string, opts *tfbert.ExportOptions) error {
	t.Helper()
	_, err := tfbert.Export(t.Context(), ckpt, filepath.Join(t.TempDir(), "model"), opts)
	require.Error(t, err)
	return err
}

// A FileError says which file is wrong, where it is and why.
func TestFileError(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	config, vocab := filepath.Join(ckpt, "bert_config.json"), filepath.Join(ckpt, "vocab.txt")
	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.WriteFile(other, []byte("[UNK]\n"), 0o666))
	none := filepath.Join(t.TempDir(), "none")

	e := requireAs[*tfbert.FileError](t, exportError(t, ckpt, &tfbert.ExportOptions{VocabFile: none}))
	assert.Equal(t, []string{"vocab.txt", none}, []string{e.Name, e.Path})
	assert.ErrorIs(t, e, fs.ErrNotExist)
	e = requireAs[*tfbert.FileError](t, exportError(t, ckpt, &tfbert.ExportOptions{VocabFile: other}))
	assert.Equal(t, []string{"vocab.txt", other}, []string{e.Name, e.Path}, "of another size")
	e = requireAs[*tfbert.FileError](t, exportError(t, ckpt, &tfbert.ExportOptions{ConfigFile: none}))
	assert.Equal(t, []string{"bert_config.json", none}, []string{e.Name, e.Path})
	e = requireAs[*tfbert.FileError](t, exportError(t, ckpt, &tfbert.ExportOptions{ConfigFile: other}))
	assert.Equal(t, []string{"bert_config.json", other}, []string{e.Name, e.Path}, "not JSON")

	editFile(t, config, replaceText(`"num_hidden_layers":2`, `"num_hidden_layers":3`))
	e = requireAs[*tfbert.FileError](t, exportError(t, ckpt, nil))
	assert.Equal(t, []string{"bert_config.json", config}, []string{e.Name, e.Path}, "of another model")

	require.NoError(t, os.Remove(vocab))
	e = requireAs[*tfbert.FileError](t, exportError(t, ckpt, nil))
	assert.Equal(t, []string{"vocab.txt", ""}, []string{e.Name, e.Path}, "missing")
	require.NoError(t, os.Mkdir(vocab, 0o777))
	e = requireAs[*tfbert.FileError](t, exportError(t, ckpt, nil))
	assert.Equal(t, []string{"vocab.txt", vocab}, []string{e.Name, e.Path})
	assert.Equal(t, &file.IrregularError{Path: vocab}, e.Err)
}

// No other file helps a checkpoint without a question-answering head.
func TestNoHeadIsNoFileError(t *testing.T) {
	isHead := func(name string) bool { return filepath.Dir(name) == "cls/squad" }
	err := exportError(t, newToy("gelu").without(isHead).write(t, "model.ckpt"), nil)
	_, ok := errors.AsType[*tfbert.FileError](err)
	assert.False(t, ok, "%v", err)
}

func TestLengthAndExistsErrors(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	length := requireAs[*tfbert.LengthError](t, exportError(t, ckpt, &tfbert.ExportOptions{MaxSeqLength: 49}))
	assert.Equal(t, &tfbert.LengthError{Length: 49, Most: 48}, length)

	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o666))
	_, err := tfbert.Export(t.Context(), ckpt, full, nil)
	assert.Equal(t, &tfbert.ExistsError{Dir: full}, requireAs[*tfbert.ExistsError](t, err))

	testenv.TensorFlow(t)
	fixed := openModel(t, exportModel(t, ckpt, &tfbert.ExportOptions{MaxSeqLength: 16}), nil)
	assert.Equal(t, &tfbert.LengthError{Length: 17, Fixed: 16}, fixed.CheckLength(17))
	assert.NoError(t, fixed.CheckLength(16))
}

func TestPrecisionMismatchError(t *testing.T) {
	dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), fusedOptions(savedmodel.BF16))
	want := &tfbert.PrecisionMismatchError{Dir: dir, Weights: savedmodel.BF16, Asked: tfbert.FP32}
	_, err := tfbert.Open(dir, &tfbert.Options{Precision: tfbert.FP32})
	assert.Equal(t, want, requireAs[*tfbert.PrecisionMismatchError](t, err))
	_, err = tfbert.FP32.Choose(dir)
	assert.Equal(t, want, requireAs[*tfbert.PrecisionMismatchError](t, err))
}
