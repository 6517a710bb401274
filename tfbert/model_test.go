package tfbert_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
	"github.com/tfbert/go/wordpiece"
)

// foreignModel returns an exported model without what Export puts beside it, as another exporter
// leaves it.
func foreignModel(t testing.TB, opts *tfbert.ExportOptions) string {
	t.Helper()
	dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), opts)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, savedmodel.ExtraAssetsDir)))
	return dir
}

func writeFile(t testing.TB, text string, elem ...string) string {
	t.Helper()
	path := filepath.Join(elem...)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	return path
}

func TestOpenForeign(t *testing.T) {
	for _, c := range []struct {
		name string
		opts func(t testing.TB, dir string) *tfbert.Options
	}{
		{"VocabFile", func(t testing.TB, dir string) *tfbert.Options {
			return &tfbert.Options{VocabFile: writeFile(t, toyVocab, t.TempDir(), "words")}
		}},
		{"vocabulary among the extra assets", func(t testing.TB, dir string) *tfbert.Options {
			writeFile(t, toyVocab, dir, savedmodel.ExtraAssetsDir, "vocab.txt")
			return nil
		}},
		{"vocabulary in the folder", func(t testing.TB, dir string) *tfbert.Options {
			writeFile(t, toyVocab, dir, "vocab.txt")
			return nil
		}},
		{"vocabulary in the folder above", func(t testing.TB, dir string) *tfbert.Options {
			writeFile(t, toyVocab, filepath.Dir(dir), "vocab.txt")
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := foreignModel(t, nil)
			m := openModel(t, dir, c.opts(t, dir))
			assert.Equal(t, tfbert.Settings{DoLowerCase: true}, m.Settings(), "the reference's defaults")
			assert.False(t, m.Tokenizer().Cased)
			assert.Equal(t, 20, m.Tokenizer().Vocab.Len())
			predictOnce(t, m, randomWindows(2, 10)...)
		})
	}
}

// A signature without unique_ids, as others export it, is fed without them.
func TestOpenWithoutUniqueIDs(t *testing.T) {
	dir := t.TempDir()
	writeSums(t, dir, "input_ids", "input_mask", "segment_ids")
	m := openModel(t, dir, &tfbert.Options{VocabFile: writeFile(t, toyVocab, dir, "vocab.txt")})
	f := randomWindows(1, 6)
	r := predictOnce(t, m, f...)
	for pos := range 6 {
		assert.Equal(t, float32(f[0].InputIDs[pos]+f[0].InputMask[pos]+f[0].SegmentIDs[pos]), r[0].StartLogits[pos])
	}
}

// writeSums writes a model whose logits are the sums of its inputs.
func writeSums(t testing.TB, dir string, inputs ...string) {
	t.Helper()
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := tf.Builder{Graph: g}
	s := savedmodel.Signature{Key: savedmodel.DefaultSignature}
	var list tf.OutputList
	for _, name := range inputs {
		list = append(list, b.Add(tf.OpSpec{Type: "Placeholder", Name: name,
			Attrs: map[string]tf.Attr{"dtype": tf.Int32, "shape": tf.Shape{-1, -1}}}))
		s.Inputs = append(s.Inputs, savedmodel.TensorInfo{Key: name, Name: name})
	}
	sum := b.Add(tf.OpSpec{Type: "AddN", Name: "sum", Inputs: []tf.Input{list}})
	logits := b.Add(tf.OpSpec{Type: "Cast", Name: "logits", Inputs: []tf.Input{sum},
		Attrs: map[string]tf.Attr{"DstT": tf.Float}})
	require.NoError(t, b.Err)
	for _, key := range []string{"start_logits", "end_logits"} {
		s.Outputs = append(s.Outputs, savedmodel.TensorInfo{Key: key, Name: logits.String()})
	}
	require.NoError(t, savedmodel.Write(dir, savedmodel.Content{Graph: g, Signatures: []savedmodel.Signature{s}}))
}

// A model is opened by its folder, its file, its versions and its place in a repository of Triton's, with the
// vocabulary that stands beside any of them.
func TestOpenPaths(t *testing.T) {
	testenv.TensorFlow(t)
	good := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	for _, c := range []struct {
		name, model string // the model's place
		vocab, path string
	}{
		{"folder", "", "assets.extra", ""},
		{"file", "", "assets.extra", "saved_model.pb"},
		{"versions", "1561024011", "1561024011", ""},
		{"vocabulary beside the versions", "1561024011", ".", ""},
		{"Triton", "bert/1/model.savedmodel", "bert", "bert"},
		{"version of Triton", "bert/1/model.savedmodel", "bert/1", "bert/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, c.model)
			require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
			vocab := filepath.Join(root, c.vocab, "vocab.txt")
			if from := filepath.Join(dir, "assets.extra", "vocab.txt"); from != vocab {
				require.NoError(t, os.Rename(from, vocab))
			}
			m, err := tfbert.Open(filepath.Join(root, c.path), nil)
			require.NoError(t, err)
			require.NoError(t, m.Close())
		})
	}
}

func TestOpenErrors(t *testing.T) {
	testenv.TensorFlow(t)
	good := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	vocab := writeFile(t, toyVocab, t.TempDir(), "vocab.txt")
	copied := func(t testing.TB) string {
		dir := filepath.Join(t.TempDir(), "model")
		require.NoError(t, os.CopyFS(dir, os.DirFS(good)))
		return dir
	}
	for _, c := range []struct {
		name string
		dir  func(t testing.TB) string
		opts tfbert.Options
		want []string
	}{
		{
			name: "not there", dir: func(t testing.TB) string { return filepath.Join(t.TempDir(), "model") },
			want: []string{"model: no such file or directory"},
		},
		{
			name: "no SavedModel", dir: func(t testing.TB) string { return t.TempDir() },
			want: []string{"is not a SavedModel: it has no saved_model.pb"},
		},
		{
			name: "no vocabulary", dir: func(t testing.TB) string { return foreignModel(t, nil) },
			want: []string{"has no vocab.txt beside it"},
		},
		{
			name: "no such vocabulary", opts: tfbert.Options{VocabFile: "/none/vocab.txt"},
			want: []string{"open /none/vocab.txt: no such file or directory"},
		},
		{
			name: "a vocabulary of another size", opts: tfbert.Options{VocabFile: writeFile(t, toyVocab+"more\n", t.TempDir(),
				"words")},
			want: []string{"words has 21 entries, but the configuration's vocab_size is 20: it belongs to another model"},
		},
		{name: "tags", opts: tfbert.Options{Tags: []string{"train"}},
			want: []string{"does not have a meta graph with the tags {train}, only {serve}"}},
		{
			name: "signature", opts: tfbert.Options{Signature: "predict"},
			want: []string{"does not answer questions: ", `no signature "predict", only serving_default`},
		},
		{
			name: "another model's signature", dir: func(t testing.TB) string {
				return testenv.Shared(t, "data", "savedmodels", "half_plus_two", "00000123")
			},
			want: []string{"half_plus_two/00000123 does not answer questions: ",
				`signature "serving_default" takes x float32 [?,1]`},
		},
		{
			name: "no mask", dir: func(t testing.TB) string {
				dir := t.TempDir()
				writeSums(t, dir, "input_ids", "segment_ids")
				return dir
			}, opts: tfbert.Options{VocabFile: vocab},
			want: []string{"but it has no input input_mask (or attention_mask, padding_mask)"},
		},
		{name: "configuration", opts: tfbert.Options{Config: savedmodel.Config{IntraOpThreads: -1}},
			want: []string{"-1 is not a number of threads"}},
		{
			name: "damaged settings", dir: func(t testing.TB) string {
				dir := copied(t)
				writeFile(t, `{"profile": "nvidia-99"}`, dir, "assets.extra", "tfbert.json")
				return dir
			}, want: []string{"tfbert.json: not what an export writes: ", "nvidia-99"},
		},
		{
			name: "damaged configuration file", dir: func(t testing.TB) string {
				dir := copied(t)
				writeFile(t, `{`, dir, "assets.extra", "bert_config.json")
				return dir
			}, want: []string{"assets.extra/bert_config.json: not a bert_config.json"},
		},
		{
			name: "damaged weights", dir: func(t testing.TB) string {
				dir := copied(t)
				editFile(t, filepath.Join(dir, "variables", "variables.data-00000-of-00001"), func(b []byte) []byte {
					b[len(b)/2] ^= 1
					return b
				})
				return dir
			}, want: []string{"load ", "DATA_LOSS", "Checksum does not match"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := good
			if c.dir != nil {
				dir = c.dir(t)
			}
			_, err := tfbert.Open(dir, &c.opts)
			require.Error(t, err)
			for _, want := range c.want {
				assert.ErrorContains(t, err, want)
			}
			if tf.ErrCode(err) == tf.Unknown { // TensorFlow's own messages have lines
				assert.NotContains(t, err.Error(), "\n")
			}
		})
	}
}

func TestOpenOverrides(t *testing.T) {
	dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), &tfbert.ExportOptions{Profile: wordpiece.Google})
	yes, nvidia := true, wordpiece.NVIDIA2006
	vocab := writeFile(t, strings.ReplaceAll(toyVocab, "ada\n", "Ada\n"), t.TempDir(), "cased.txt")
	m := openModel(t, dir, &tfbert.Options{Cased: &yes, Profile: &nvidia, VocabFile: vocab})
	assert.Equal(t, []string{"Ada", "[UNK]"}, m.Tokenizer().Tokenize("Ada Wrote"))
	assert.False(t, m.Settings().DoLowerCase)
	assert.Equal(t, wordpiece.NVIDIA2006, m.Settings().Profile)

	m = openModel(t, dir, nil)
	assert.Equal(t, []string{"ada", "wrote"}, m.Tokenizer().Tokenize("Ada Wrote"))
	assert.Equal(t, wordpiece.Google, m.Tokenizer().Profile)
	assert.Equal(t, "google", m.Settings().Profile.String())
}

func TestPredictErrors(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	dynamic := openModel(t, exportModel(t, ckpt, nil), nil)
	static := openModel(t, exportModel(t, ckpt, &tfbert.ExportOptions{MaxSeqLength: 32}), nil)
	mixed := randomWindows(2, 10)
	mixed[1] = randomWindows(1, 12)[0]
	short := randomWindows(1, 10)
	short[0].InputMask = short[0].InputMask[:9]
	unknown := randomWindows(1, 10)
	unknown[0].InputIDs[3] = 20
	for _, c := range []struct {
		name     string
		model    *tfbert.Model
		features []squad.Feature
		want     string
	}{
		{"another length than the model's", static, randomWindows(1, 16), "the model takes sequences of 32, not of 16"},
		{"longer than the positions", dynamic, randomWindows(1, 49),
			"the model has positions for sequences of up to 48, not of 49"},
		{"mixed lengths", dynamic, mixed, "predict: feature 1000000000 is 12 long, the first of its batch 10"},
		{"mask of another length", dynamic, short, "predict: feature 1000000000 "},
		{"unknown id", dynamic, unknown, "INVALID_ARGUMENT: indices[3] = 20 is not in [0, 20)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.model.Predict(t.Context(), c.features)
			require.ErrorContains(t, err, c.want)
		})
	}
	require.NoError(t, dynamic.CheckLength(48))
	require.NoError(t, static.CheckLength(32))
	require.Error(t, static.CheckLength(33))

	// The default length of the scripts is more than this model has, and so is that of a question.
	assert.Equal(t, 48, dynamic.SeqLength())
	a := dynamic.Answerer()
	_, err := a.Answer(t.Context(), "Who wrote it?", "Ada wrote it.")
	assert.ErrorContains(t, err, "max_seq_length 48 leaves no room for the passage")
	a.Featurizer.MaxQueryLength = 16
	_, err = a.Answer(t.Context(), "Who wrote it?", "Ada wrote it.")
	assert.NoError(t, err)
}

// A batch without its padding has the logits of its tokens, and a short passage an answer.
func TestTrimPadding(t *testing.T) {
	dir := exportModel(t, testenv.Model(t), nil)
	padded, trimmed := openModel(t, dir, nil), openModel(t, dir, &tfbert.Options{TrimPadding: true})
	windows := readFeatures(t, &padded.Answerer().Featurizer, testenv.Golden(t, "mini", "mini-v1.1.json"), 4)
	got, err := trimmed.Predict(t.Context(), windows)
	require.NoError(t, err)
	for i := range windows {
		require.Len(t, got[i].StartLogits, windows[i].Len)
		require.Len(t, got[i].EndLogits, windows[i].Len)
	}
	assert.Less(t, largestDifference(t, withoutPadding(windows, predictOnce(t, padded, windows...)),
		withoutPadding(windows, got)), tolerance)

	assert.Zero(t, padded.Answerer().Lookahead, "the scripts' batches")
	assert.NotZero(t, trimmed.Answerer().Lookahead)

	const question, passage = "Who?", "Ada Lovelace"
	p, err := padded.Answerer().Answer(t.Context(), question, passage)
	require.NoError(t, err)
	assert.Equal(t, "empty", p.Answer, "padding takes all places, as in the scripts")
	p, err = trimmed.Answerer().Answer(t.Context(), question, passage)
	require.NoError(t, err)
	assert.Equal(t, "Ada Lovelace", p.Answer)
}

func TestPredictEmptyBatch(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil)
	results, err := m.Predict(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, results)
}

func TestPredictContext(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, features := range [][]squad.Feature{nil, randomWindows(1, 10)} {
		_, err := m.Predict(ctx, features)
		assert.ErrorIs(t, err, context.Canceled)
	}
}

func TestPredictClosed(t *testing.T) {
	dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	m, err := tfbert.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	_, err = m.Predict(t.Context(), randomWindows(1, 10))
	assert.ErrorIs(t, err, tf.ErrClosed)
}

func TestPredictConcurrently(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil)
	lengths := []int{6, 16, 33, 48}
	want := map[int][]squad.RawResult{}
	for _, length := range lengths {
		want[length] = predictOnce(t, m, randomWindows(3, length)...)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 10 {
				length := lengths[(worker+i)%len(lengths)]
				got, err := m.Predict(t.Context(), randomWindows(3, length))
				assert.NoError(t, err)
				assert.Less(t, largestDifference(t, want[length], got), tolerance)
			}
		})
	}
	wg.Wait()
}

// Results have memory of their own: later runs and the end of the model do not change them.
func TestPredictResultsAreKept(t *testing.T) {
	dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil)
	m, err := tfbert.Open(dir, nil)
	require.NoError(t, err)
	first := predictOnce(t, m, randomWindows(2, 10)...)
	again := predictOnce(t, m, randomWindows(2, 10)...)
	predictOnce(t, m, randomWindows(2, 12)...)
	require.NoError(t, m.Close())
	assert.Equal(t, again, first)
	first[0].StartLogits = append(first[0].StartLogits, 1) // and a row's append leaves the next row alone
	assert.Equal(t, again[1], first[1])
}

// The whole way on a model that cannot know: what is answered is a span of the passage.
func TestAnswer(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), &tfbert.ExportOptions{MaxSeqLength: 32}), nil)
	a := m.Answerer()
	a.Featurizer.MaxQueryLength = 8
	passage := "The Engine was written by Ada Lovelace in 1843."
	p, err := a.Answer(t.Context(), "Who wrote it?", passage)
	require.NoError(t, err)
	assert.NotEmpty(t, p.Answer)
	assert.Contains(t, passage, p.Answer)
}
