package tfbert_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

const transformersModel = "testdata/transformers"

// A folder of transformers has the logits that transformers computed, in both graphs; testdata/transformers/make.py made it.
func TestTransformersModel(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(transformersModel, "windows.json"))
	require.NoError(t, err)
	var windows []struct {
		IDs      []int32   `json:"input_ids"`
		Mask     []int32   `json:"input_mask"`
		Segments []int32   `json:"segment_ids"`
		Start    []float32 `json:"start_logits"`
		End      []float32 `json:"end_logits"`
	}
	require.NoError(t, json.Unmarshal(text, &windows))
	var features []squad.Feature
	var want []squad.RawResult
	for i, w := range windows {
		f := squad.Feature{UniqueID: int32(i), InputIDs: w.IDs, InputMask: w.Mask, SegmentIDs: w.Segments}
		for _, m := range w.Mask {
			f.Len += int(m)
		}
		features = append(features, f)
		want = append(want, squad.RawResult{UniqueID: int32(i), StartLogits: w.Start, EndLogits: w.End})
	}
	for _, graph := range []string{tfbert.ReferenceGraph, tfbert.FusedGraph} {
		for _, path := range []string{transformersModel, filepath.Join(transformersModel, "model.safetensors")} {
			m := openModel(t, exportModel(t, path, &tfbert.ExportOptions{Graph: graph}), nil)
			difference := largestDifference(t, want, predictOnce(t, m, features...))
			assert.Less(t, difference, 1e-5, "%s of %s", graph, path)
			t.Logf("%s of %s: largest difference %.1e", graph, path, difference)
		}
	}
}

// What is converted to the other form and back has the same weights, bit for bit.
func TestConvert(t *testing.T) {
	for name, from := range map[string]string{
		"bundled": testenv.Model(t), "transformers": transformersModel, "toy": newToy("gelu").write(t, "model.ckpt"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first, second, third := filepath.Join(dir, "1"), filepath.Join(dir, "2"), filepath.Join(dir, "3")
			forms := []string{tfbert.Safetensors, tfbert.TF1Checkpoint}
			if name == "transformers" {
				forms = []string{tfbert.TF1Checkpoint, tfbert.Safetensors}
			}
			for i, to := range []string{first, second, third} {
				report, err := tfbert.Convert(t.Context(), from, to, nil)
				require.NoError(t, err)
				assert.Equal(t, forms[i%2], report.Form)
				from = to
			}
			for _, file := range []string{"model.safetensors", "config.json", "tokenizer_config.json", "vocab.txt", "bert_config.json"} {
				a, errA := os.ReadFile(filepath.Join(first, file))
				b, errB := os.ReadFile(filepath.Join(third, file))
				require.Equal(t, errA == nil, errB == nil)
				assert.Equal(t, a, b, file)
			}
		})
	}
}

// The weights of a converted checkpoint are those of the checkpoint.
func TestConvertKeepsWeights(t *testing.T) {
	k := newToy("gelu")
	dir := t.TempDir()
	_, err := tfbert.Convert(t.Context(), k.write(t, "model.ckpt"), filepath.Join(dir, "hf"), nil)
	require.NoError(t, err)
	_, err = tfbert.Convert(t.Context(), filepath.Join(dir, "hf"), filepath.Join(dir, "tf1"), nil)
	require.NoError(t, err)
	r, err := checkpoint.Open(filepath.Join(dir, "tf1"))
	require.NoError(t, err)
	defer r.Close()
	for _, v := range r.Variables() {
		got, err := r.Float32s(v.Name)
		require.NoError(t, err)
		for _, want := range k.variables {
			if want.name == v.Name {
				assert.Equal(t, want.values, got, v.Name)
			}
		}
	}
	config, err := os.ReadFile(filepath.Join(dir, "tf1", "bert_config.json"))
	require.NoError(t, err)
	assert.Contains(t, string(config), `"hidden_act": "gelu",`)
}

func TestConvertErrors(t *testing.T) {
	toy := newToy("gelu").write(t, "model.ckpt")
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	require.NoError(t, os.Mkdir(full, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(full, "keep"), nil, 0o600))
	_, err := tfbert.Convert(t.Context(), toy, full, nil)
	var exists *tfbert.ExistsError
	require.ErrorAs(t, err, &exists)

	to := filepath.Join(dir, "new")
	_, err = tfbert.Convert(t.Context(), toy, to, &tfbert.ConvertOptions{Form: "onnx"})
	require.ErrorContains(t, err, `unknown form "onnx": it is tf1 or safetensors`)
	_, err = tfbert.Convert(t.Context(), filepath.Join(dir, "none"), to, nil)
	require.Error(t, err)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = tfbert.Convert(canceled, toy, to, nil)
	require.ErrorIs(t, err, context.Canceled)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing is left")
}

// Folders of transformers that are not what export can run say so.
func TestTransformersErrors(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(transformersModel, name))
		require.NoError(t, err)
		return string(b)
	}
	weights := read("model.safetensors")
	folder := func(files map[string]string) string {
		dir := t.TempDir()
		for name, content := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
		return dir
	}
	renamed := func(old, new string) string { // of the same length, as the header's is fixed
		require.Len(t, new, len(old))
		return strings.ReplaceAll(weights, old, new)
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no configuration": {map[string]string{"model.safetensors": weights, "vocab.txt": read("vocab.txt")}, "config.json"},
		"no vocabulary":    {map[string]string{"model.safetensors": weights, "config.json": read("config.json")}, "vocab.txt"},
		"another family": {map[string]string{
			"model.safetensors": renamed("bert.encoder", "roberta.enco"), "config.json": read("config.json"),
			"vocab.txt": read("vocab.txt"),
		}, "RoBERTa"},
		"no head": {map[string]string{
			"model.safetensors": renamed("qa_outputs.bias", "xx_outputs.bias"), "config.json": read("config.json"),
			"vocab.txt": read("vocab.txt"),
		}, "no question-answering head"},
		"cut off": {map[string]string{
			"model.safetensors": weights[:len(weights)-10], "config.json": read("config.json"), "vocab.txt": read("vocab.txt"),
		}, "was the file cut off?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tfbert.Convert(t.Context(), folder(tt.files), filepath.Join(t.TempDir(), "out"), nil)
			require.ErrorContains(t, err, tt.want)
		})
	}
}
