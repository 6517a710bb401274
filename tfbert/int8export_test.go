package tfbert_test

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

func int8Options(t testing.TB) *tfbert.ExportOptions {
	t.Helper()
	testenv.TensorFlow(t)
	if err := tfbert.Int8Support(); err != nil {
		t.Skip(err)
	}
	return &tfbert.ExportOptions{Graph: tfbert.FusedGraph, Precision: savedmodel.INT8}
}

// toyQuestions is a SQuAD file in words that the toy's vocabulary has.
const toyQuestions = `{"version":"1.1","data":[{"title":"t","paragraphs":[{"context":
"The engine was written by Ada Lovelace in 1843 . It was the engine . Ada wrote it in 1843 .","qas":[
{"id":"1","question":"Who wrote it?","answers":[]},{"id":"2","question":"Who was Ada?","answers":[]}]}]}]}`

func TestInt8Export(t *testing.T) {
	opts := int8Options(t)
	ckpt := newToy("gelu").write(t, "model.ckpt")
	opts.Calibrate = filepath.Join(t.TempDir(), "questions.json")
	require.NoError(t, os.WriteFile(opts.Calibrate, []byte(toyQuestions), 0o666))
	var steps []int
	opts.Progress = func(done, total int) {
		steps = append(steps, done)
		assert.Equal(t, 8, total)
	}
	first := filepath.Join(t.TempDir(), "model")
	report, err := tfbert.Export(t.Context(), ckpt, first, opts)
	require.NoError(t, err)
	assert.Equal(t, []int{1, 2, 3, 4, 5, 6, 7, 8}, steps)
	require.Len(t, report.Products, 8)
	assert.Equal(t, "0 qkv, 1 output", strOf(report.Products[0])+", "+strOf(report.Products[7]))
	for _, p := range report.Products {
		assert.Greater(t, p.Decibels, 20., "%d %s", p.Layer, p.Name)
	}
	reference := exportModel(t, ckpt, nil)
	assert.Equal(t, 0, report.LeftOut, "each weight is read")

	steps = nil
	assert.Equal(t, readFiles(t, first), readFiles(t, exportModel(t, ckpt, opts)), "an export is deterministic")

	m := openModel(t, first, nil)
	s := m.Settings()
	require.NotNil(t, s.Int8)
	assert.Equal(t, tfbert.Calibration{File: "questions.json", Windows: 2, Tokens: s.Int8.Calibration.Tokens},
		s.Int8.Calibration)
	assert.Equal(t, savedmodel.INT8, m.Choice().Precision)
	require.NoError(t, m.RequirePrecision(t.Context()))
	proof, err := m.Precision(t.Context())
	require.NoError(t, err)
	assert.Contains(t, proof.String(), "8 qint8")

	// It answers much as float32 does, with any batch, and as a graph of a static length.
	features := randomWindows(3, 32)
	want, got := predictOnce(t, openModel(t, reference, nil), features...), predictOnce(t, m, features...)
	signal, noise := 0., 0.
	for i, r := range want {
		for pos, v := range r.StartLogits[:features[i].Len] {
			signal += float64(v * v)
			noise += math.Pow(float64(v-got[i].StartLogits[pos]), 2)
		}
	}
	t.Logf("logits: %.1f dB", 10*math.Log10(signal/noise))
	assert.Greater(t, 10*math.Log10(signal/noise), 8.) // two windows say little about random ones

	// Its kernels keep what they prepare of weights and biases, for all that use the model at once.
	var batches [][]squad.RawResult
	for n := 1; n <= len(features); n++ {
		batches = append(batches, predictOnce(t, m, features[:n]...))
	}
	fresh := openModel(t, first, nil)
	var wg sync.WaitGroup
	for i := range 12 {
		n := i%len(features) + 1
		wg.Go(func() {
			got, err := fresh.Predict(t.Context(), features[:n])
			assert.NoError(t, err)
			assert.Equal(t, batches[n-1], got)
		})
	}
	wg.Wait()

	static := *opts
	static.MaxSeqLength, static.Progress = 32, nil
	assert.Equal(t, 32, openModel(t, exportModel(t, ckpt, &static), nil).SeqLength())

	for _, p := range []tfbert.Precision{tfbert.INT8, tfbert.AutoPrecision} {
		openModel(t, first, &tfbert.Options{Precision: p, AllowOps: savedmodel.OpPolicy{Standard: true}})
	}
	_, err = tfbert.Open(first, &tfbert.Options{Precision: tfbert.FP32})
	require.ErrorContains(t, err, "are of int8, not of fp32")
	_, err = tfbert.Open(reference, &tfbert.Options{Precision: tfbert.INT8})
	require.ErrorContains(t, err, "are of fp32, not of int8")
}

func strOf(p tfbert.QuantizedProduct) string { return string(rune('0'+p.Layer)) + " " + p.Name }

// A model that this CPU would compute something else of, or that would end the process, is not opened.
func TestInt8Refused(t *testing.T) {
	opts := int8Options(t)
	dir := exportModel(t, newToy("relu").write(t, "model.ckpt"), opts)
	path := filepath.Join(dir, savedmodel.ExtraAssetsDir, "tfbert.json")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for change, want := range map[string]func(s map[string]any){
		"its weights have 9 bits":                                    func(s map[string]any) { s["weight_bits"] = 9 },
		"its attention is in bfloat16, and ONEDNN_MAX_CPU_ISA takes": func(s map[string]any) { s["attention"] = "bf16" },
	} {
		t.Setenv("ONEDNN_MAX_CPU_ISA", "AVX2") // which takes units for bfloat16 away, should there be any
		var settings map[string]any
		require.NoError(t, json.Unmarshal(text, &settings))
		want(settings["int8"].(map[string]any))
		changed, err := json.Marshal(settings)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, changed, 0o666))
		_, err = tfbert.Open(dir, nil)
		var refused *tfbert.Int8Error
		require.ErrorAs(t, err, &refused)
		assert.Equal(t, dir, refused.Dir)
		assert.ErrorContains(t, err, "is in int8 and cannot run here: "+change)
	}
}

func TestInt8ExportErrors(t *testing.T) {
	opts := int8Options(t)
	ckpt := newToy("gelu").write(t, "model.ckpt")
	empty := filepath.Join(t.TempDir(), "empty.json")
	require.NoError(t, os.WriteFile(empty, []byte(`{"version":"1.1","data":[]}`), 0o666))
	for name, c := range map[string]struct {
		change func(o *tfbert.ExportOptions)
		want   string
	}{
		"no questions": {func(o *tfbert.ExportOptions) { o.Calibrate = empty }, "calibrate by " + empty + ": no windows"},
		"no file": {func(o *tfbert.ExportOptions) { o.Calibrate = "missing.json" },
			"calibrate by missing.json: open missing.json"},
		"for a GPU": {func(o *tfbert.ExportOptions) { o.Device = tfbert.GPU },
			"int8 is for CPUs: choose fp16 or fp32 for a GPU"},
		"reference graph": {func(o *tfbert.ExportOptions) { o.Graph = "" },
			"the reference graph is written in fp32, not int8: choose the fused graph"},
	} {
		t.Run(name, func(t *testing.T) {
			o := *opts
			c.change(&o)
			dir := filepath.Join(t.TempDir(), "model")
			_, err := tfbert.Export(t.Context(), ckpt, dir, &o)
			require.ErrorContains(t, err, c.want)
			assert.NoDirExists(t, dir)
		})
	}
}

func TestInt8ExportCancelled(t *testing.T) {
	opts := int8Options(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts.Progress = func(int, int) { cancel() }
	dir := filepath.Join(t.TempDir(), "model")
	_, err := tfbert.Export(ctx, newToy("gelu").write(t, "model.ckpt"), dir, opts)
	require.ErrorIs(t, err, context.Canceled)
	assert.NoDirExists(t, dir)
}

// On the bundled model most answers are those of float32, and the logits stay near.
func TestInt8BundledModel(t *testing.T) {
	t.Parallel()
	testenv.Long(t, "quantizes a model")
	m := openModel(t, exportModel(t, testenv.Model(t), int8Options(t)), nil)
	want := readLogits(t, testenv.Golden(t, "mini", "model.s384.logits.npy"))[:16]
	windows := readFeatures(t, &m.Answerer().Featurizer, testenv.Golden(t, "mini", "mini-v1.1.json"), len(want))
	largest := largestDifference(t, withoutPadding(windows, want), withoutPadding(windows, predictAll(t, m, windows)))
	t.Logf("largest difference %.2f", largest)
	assert.Less(t, largest, 2.)

	reference := readAnswers(t, fileBytes(t, testenv.Golden(t, "mini", "model.s384.predictions.json")))
	different, all := 0, 0
	for p, err := range m.Answerer().AnswerAll(t.Context(), readExamples(t, testenv.Golden(t, "mini", "mini-v1.1.json"))) {
		require.NoError(t, err)
		if all++; p.Answer != reference[p.ID] {
			different++
		}
	}
	t.Logf("%d of %d answers different", different, all)
	assert.LessOrEqual(t, different, all/8)
}

func fileBytes(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// The set that ranges come from by default is that of the goldens.
func TestCalibrationSet(t *testing.T) {
	assert.Equal(t, string(fileBytes(t, testenv.Golden(t, "mini", "mini-v1.1.json"))),
		string(fileBytes(t, "calibration.json")))
}
