package tfbert_test

import (
	"archive/zip"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tfbert"
)

const dataFile = "model.ckpt.data-00000-of-00001"

// editFile changes a file in place.
func editFile(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(b), 0o666))
}

func replaceText(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), old, new)) }
}

// checkNothingLeft runs an export below an empty folder that must fail with one line, and leave the
// folder empty.
func checkNothingLeft(t testing.TB, ctx context.Context, ckpt string, opts *tfbert.ExportOptions, want ...string) {
	t.Helper()
	parent := t.TempDir()
	_, err := tfbert.Export(ctx, ckpt, filepath.Join(parent, "new", "model"), opts)
	require.Error(t, err)
	for _, w := range want {
		assert.ErrorContains(t, err, w)
	}
	assert.NotContains(t, err.Error(), "\n")
	assert.Empty(t, fileNames(t, parent))
}

func TestExportErrors(t *testing.T) {
	is := func(names ...string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	remove := func(name string) func(testing.TB, string) {
		return func(t testing.TB, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	change := func(name string, f func([]byte) []byte) func(testing.TB, string) {
		return func(t testing.TB, dir string) { editFile(t, filepath.Join(dir, name), f) }
	}
	const weight = "bert/encoder/layer_1/output/dense/kernel"
	for _, c := range []struct {
		name   string
		toy    func(k *toy) *toy
		damage func(t testing.TB, dir string)
		opts   tfbert.ExportOptions
		late   bool // found only when TensorFlow has been loaded
		want   []string
	}{
		{
			name: "graph", opts: tfbert.ExportOptions{Graph: "fast"},
			want: []string{`export: unknown graph "fast": it is reference or fused`},
		},
		{
			name: "length above the positions", opts: tfbert.ExportOptions{MaxSeqLength: 49},
			want: []string{"sequences of up to 48, not of 49"},
		},
		{
			name: "negative length", opts: tfbert.ExportOptions{MaxSeqLength: -1},
			want: []string{"the sequence length -1 is negative"},
		},
		{
			name: "missing variables",
			toy: func(k *toy) *toy {
				return k.without(is("bert/embeddings/LayerNorm/beta", weight))
			},
			want: []string{
				"does not fit ", "bert_config.json: ",
				"bert/embeddings/LayerNorm/beta is missing; " + weight + " is missing",
			},
		},
		{
			name: "no question-answering head",
			toy:  func(k *toy) *toy { return k.without(is("cls/squad/output_weights", "cls/squad/output_bias")) },
			want: []string{"has no question-answering head: it was not fine-tuned on SQuAD"},
		},
		{
			name: "half of a head",
			toy:  func(k *toy) *toy { return k.without(is("cls/squad/output_bias")) },
			want: []string{"does not fit ", "bert_config.json: cls/squad/output_bias is missing"},
		},
		{
			name: "a head of another shape",
			toy: func(k *toy) *toy {
				return k.without(is("cls/squad/output_weights")).with([]int64{3, 8}, "cls/squad/output_weights")
			},
			want: []string{"cls/squad/output_weights has shape [3 8], the configuration asks for [2 8]"},
		},
		{
			name:   "a vocabulary without [SEP]",
			damage: change("vocab.txt", replaceText("[SEP]", "[SEPARATOR]")),
			want:   []string{"vocab.txt has no [SEP]: it is not the vocabulary of a BERT"},
		},
		{
			name: "shapes of another model",
			damage: change("bert_config.json",
				replaceText(`"intermediate_size":12`, `"intermediate_size":16`)),
			want: []string{
				"bert/encoder/layer_0/intermediate/dense/kernel has shape [8 12], the configuration asks for [8 16]",
				"bert/encoder/layer_1/intermediate/dense/bias has shape [12], the configuration asks for [16]",
				weight + " has shape [12 8], the configuration asks for [16 8]",
			},
		},
		{
			name:   "fewer layers",
			damage: change("bert_config.json", replaceText(`"num_hidden_layers":2`, `"num_hidden_layers":1`)),
			want: []string{
				"bert_config.json: " +
					"bert/encoder/layer_1/attention/output/LayerNorm/beta is not of the configuration's 1 layers; ",
				"; and 8 more",
			},
		},
		{
			name:   "more layers",
			damage: change("bert_config.json", replaceText(`"num_hidden_layers":2`, `"num_hidden_layers":3`)),
			want: []string{
				"bert/encoder/layer_2/attention/self/query/kernel is missing; bert/encoder/layer_2/attention/self/query/bias is " +
					"missing; ",
				"; and 8 more",
			},
		},
		{
			name: "a weight of integers",
			toy: func(k *toy) *toy {
				for i, v := range k.variables {
					if v.name == weight {
						k.variables[i].dtype = checkpoint.Int32
					}
				}
				return k
			},
			want: []string{weight + " is of type int32, not a floating-point one"},
		},
		{
			name:   "a vocabulary of another size",
			damage: change("vocab.txt", func(b []byte) []byte { return append(b, "extra\n"...) }),
			want:   []string{"vocab.txt has 21 entries, but the configuration's vocab_size is 20"},
		},
		{name: "an empty vocabulary", damage: change("vocab.txt", func([]byte) []byte {
			return nil
		}), want: []string{"no [UNK]", "vocab.txt"}},
		{
			name: "no vocabulary", damage: remove("vocab.txt"),
			want: []string{"has no vocab.txt beside it"},
		},
		{name: "no such vocabulary", opts: tfbert.ExportOptions{VocabFile: "/none/vocab.txt"},
			want: []string{"open /none/vocab.txt: no such file or directory"}},
		{
			name: "no configuration", damage: remove("bert_config.json"),
			want: []string{"has no bert_config.json beside it"},
		},
		{name: "no such configuration", opts: tfbert.ExportOptions{ConfigFile: "/none/config.json"},
			want: []string{"open /none/config.json: no such file or directory"}},
		{
			name:   "no JSON",
			damage: change("bert_config.json", func(b []byte) []byte { return b[:len(b)/2] }),
			want:   []string{"bert_config.json: not a bert_config.json: "},
		},
		{
			name:   "a configuration that cannot be",
			damage: change("bert_config.json", replaceText(`"num_attention_heads":2`, `"num_attention_heads":3`)),
			want:   []string{"hidden_size 8 is not a multiple of num_attention_heads 3"},
		},
		{
			name:   "truncated data",
			damage: change(dataFile, func(b []byte) []byte { return b[:len(b)/2] }),
			want:   []string{dataFile},
		},
		{
			name: "a flipped bit", late: true,
			damage: change(dataFile, func(b []byte) []byte {
				b[len(b)/2] ^= 0x10
				return b
			}),
			want: []string{"checksum"},
		},
		{name: "a missing shard", damage: remove(dataFile), want: []string{dataFile}},
		{name: "no index", damage: remove("model.ckpt.index"), want: []string{"but not its .index: copy it"}},
		{name: "a damaged index", damage: change("model.ckpt.index", func(b []byte) []byte { return b[:len(b)-1] }), want: []string{"model.ckpt.index"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.late {
				testenv.TensorFlow(t)
			}
			k := newToy("gelu")
			if c.toy != nil {
				k = c.toy(k)
			}
			ckpt := k.write(t, "model.ckpt")
			if c.damage != nil {
				c.damage(t, ckpt)
			}
			checkNothingLeft(t, t.Context(), ckpt, &c.opts, c.want...)
		})
	}
	t.Run("nothing there", func(t *testing.T) {
		checkNothingLeft(t, t.Context(), filepath.Join(t.TempDir(), "model.ckpt"), nil, "no checkpoint here", "model.ckpt")
	})
}

func TestExportZipErrors(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	whole := zipFolder(t, ckpt, "")
	t.Run("no zip", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "model.zip")
		require.NoError(t, os.WriteFile(path, []byte("<html>not found</html>"), 0o666))
		checkNothingLeft(t, t.Context(), path, nil, path+" is an HTML page")
	})
	t.Run("missing", func(t *testing.T) {
		checkNothingLeft(t, t.Context(), "/none/model.zip", nil, "stat /none/model.zip: no such file")
	})
	t.Run("truncated", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "model.zip")
		b, err := os.ReadFile(whole)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, b[:len(b)/2], 0o666))
		checkNothingLeft(t, t.Context(), path, nil, "zip: not a valid zip file")
	})
	t.Run("no checkpoint in it", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "vocab.txt"), []byte(toyVocab), 0o666))
		checkNothingLeft(t, t.Context(), zipFolder(t, dir, ""), nil, "no checkpoint in this archive: it has no *.index file")
	})
	t.Run("no configuration in it", func(t *testing.T) {
		dir := newToy("gelu").write(t, "model.ckpt")
		require.NoError(t, os.Remove(filepath.Join(dir, "bert_config.json")))
		path := zipFolder(t, dir, "")
		checkNothingLeft(t, t.Context(), path, nil, "the checkpoint "+path+" has no bert_config.json beside it")
	})
	t.Run("two in it", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "two.zip")
		f, err := os.Create(path)
		require.NoError(t, err)
		defer f.Close()
		z := zip.NewWriter(f)
		for _, name := range []string{"a/model.ckpt.index", "b/model.ckpt.index"} {
			_, err := z.Create(name)
			require.NoError(t, err)
		}
		require.NoError(t, z.Close())
		checkNothingLeft(t, t.Context(), path, nil,
			path+" holds several models: a/model.ckpt, b/model.ckpt; name one, as in "+path+"/a/model.ckpt")
		checkNothingLeft(t, t.Context(), filepath.Join(path, "b"), nil, path+"/b/model.ckpt.index is an empty file")
		checkNothingLeft(t, t.Context(), filepath.Join(path, "c"), nil,
			path+" holds no model c; it holds a/model.ckpt, b/model.ckpt")
	})
}

// countdown is a context that ends when it has been asked a number of times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestExportCancelled(t *testing.T) {
	testenv.TensorFlow(t)
	ckpt := newToy("gelu").write(t, "model.ckpt")
	for _, path := range []string{ckpt, zipFolder(t, ckpt, "")} {
		for _, asked := range []int{0, 1, 5, 30} {
			ctx := &countdown{t.Context(), asked}
			parent := t.TempDir()
			_, err := tfbert.Export(ctx, path, filepath.Join(parent, "model"), nil)
			require.ErrorIs(t, err, context.Canceled)
			assert.Empty(t, fileNames(t, parent))
		}
	}
}

func TestExportParentErrors(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o666))
		_, err := tfbert.Export(t.Context(), ckpt, filepath.Join(file, "model"), nil)
		assert.ErrorContains(t, err, "export: ")
		assert.ErrorContains(t, err, "not a directory")
	})
	t.Run("read-only", func(t *testing.T) {
		parent := t.TempDir()
		require.NoError(t, os.Chmod(parent, 0o555))
		if f, err := os.CreateTemp(parent, ""); err == nil {
			require.NoError(t, f.Close())
			t.Skip("this user may write everywhere")
		}
		_, err := tfbert.Export(t.Context(), ckpt, filepath.Join(parent, "model"), nil)
		assert.ErrorIs(t, err, os.ErrPermission)
	})
}
