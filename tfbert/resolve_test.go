package tfbert_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// renamed returns the toy with other names for its variables, which keep their order.
func (k *toy) renamed(rename func(name string) string) *toy {
	other := &toy{Config: k.Config, variables: slices.Clone(k.variables)}
	for i := range other.variables {
		other.variables[i].name = rename(other.variables[i].name)
	}
	slices.SortFunc(other.variables, func(a, b toyVariable) int { return strings.Compare(a.name, b.name) })
	return other
}

// with returns the toy with further variables of zeros.
func (k *toy) with(shape []int64, names ...string) *toy {
	more := &toy{Config: k.Config, variables: slices.Clone(k.variables)}
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	for _, name := range names {
		more.variables = append(more.variables, toyVariable{name, shape, checkpoint.Float32, make([]float32, n)})
	}
	return more
}

// replacing returns a function that applies pairs of expressions and replacements in turn.
func replacing(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			name = regexp.MustCompile(pairs[i]).ReplaceAllString(name, pairs[i+1])
		}
		return name
	}
}

// The names of tf-models and of NVIDIA's TensorFlow2 BERT, of their first version, and of Hugging Face's classes.
var (
	secondNames = replacing(
		"^bert/",
		"",
		"encoder/",
		"transformer/",
		"embeddings/word_embeddings",
		"word_embeddings/embeddings",
		"embeddings/token_type_embeddings",
		"type_embeddings/embeddings",
		"embeddings/position_embeddings",
		"position_embedding/embeddings",
		"embeddings/LayerNorm",
		"embeddings/layer_norm",
		"attention/self",
		"self_attention",
		"attention/output/dense",
		"self_attention/attention_output",
		"attention/output/LayerNorm",
		"self_attention_layer_norm",
		"intermediate/dense",
		"intermediate",
		"/output/dense",
		"/output",
		"output/LayerNorm",
		"output_layer_norm",
		"cls/squad/output_weights",
		"predictions/transform/logits/kernel",
		"cls/squad/output_bias",
		"predictions/transform/logits/bias",
	)
	firstNames = replacing(
		"^bert/", "bert_model/", "embeddings/word_embeddings", "word_embeddings/embeddings",
		"embeddings/token_type_embeddings", "embedding_postprocessor/type_embeddings",
		"embeddings/position_embeddings", "embedding_postprocessor/position_embeddings",
		"embeddings/LayerNorm", "embedding_postprocessor/layer_norm", "attention/self", "self_attention",
		"attention/output/dense", "self_attention_output", "attention/output/LayerNorm", "self_attention_layer_norm",
		"intermediate/dense", "intermediate", "/output/dense", "/output", "output/LayerNorm", "output_layer_norm",
		"cls/squad/output_weights", "squad/final_dense/kernel", "cls/squad/output_bias", "squad/final_dense/bias")
	classNames = replacing(
		"^bert/", "tf_bert_for_question_answering/bert/", "layer_", "layer_._",
		"word_embeddings", "word_embeddings/weight", "(token_type_embeddings|position_embeddings)", "$1/embeddings",
		"cls/squad/output_weights", "tf_bert_for_question_answering/qa_outputs/kernel",
		"cls/squad/output_bias", "tf_bert_for_question_answering/qa_outputs/bias")
)

// headNames names the head as Keras does, below a scope.
func headNames(scope string) func(string) string {
	return replacing("cls/squad/output_weights", scope+"/kernel", "cls/squad/output_bias", scope+"/bias")
}

// turned returns the toy with a matrix stored as its transpose.
func (k *toy) turned(name string) *toy {
	other := &toy{Config: k.Config, variables: slices.Clone(k.variables)}
	for i, v := range other.variables {
		if v.name != name {
			continue
		}
		rows, columns := v.shape[0], v.shape[1]
		w := toyVariable{v.name, []int64{columns, rows}, v.dtype, make([]float32, len(v.values))}
		for r := range rows {
			for c := range columns {
				w.values[c*rows+r] = v.values[r*columns+c]
			}
		}
		other.variables[i] = w
	}
	return other
}

// shaped returns the toy with the attention's weights in the shapes of Keras's layers.
func (k *toy) shaped() *toy {
	other := &toy{Config: k.Config, variables: slices.Clone(k.variables)}
	heads := int64(k.NumAttentionHeads)
	size := int64(k.HiddenSize) / heads
	for i := range other.variables {
		v := &other.variables[i]
		switch {
		case strings.Contains(v.name, "attention/self") && strings.HasSuffix(v.name, "kernel"):
			v.shape = []int64{v.shape[0], heads, size}
		case strings.Contains(v.name, "attention/self"):
			v.shape = []int64{heads, size}
		case strings.HasSuffix(v.name, "attention/output/dense/kernel"):
			v.shape = []int64{heads, size, v.shape[1]}
		}
	}
	return other
}

// TestNames exports the toy under other names, and holds its logits to the toy's own.
func TestNames(t *testing.T) {
	base := newToy("gelu")
	const head = "cls/squad/output_weights"
	features := randomWindows(2, 16)
	want := predictOnce(t, openModel(t, exportModel(t, base.write(t, "model.ckpt"), nil), nil), features...)
	average := func(name string) string { return name + "/ExponentialMovingAverage" }
	for name, tc := range map[string]struct {
		toy   *toy
		head  string
		notes []string
	}{
		"a scope before": {base.renamed(replacing("^", "module/")), "", []string{
			"names are mapped: bert/embeddings/word_embeddings is module/bert/embeddings/word_embeddings",
			"the head is module/cls/squad/output_weights [2 8] with module/cls/squad/output_bias",
		}},
		"another scope": {base.renamed(replacing("^bert/", "model/encoder_1/")), "", []string{"names are mapped: "}},
		"no scope": {base.renamed(replacing("^bert/", "")), "", []string{
			"names are mapped: bert/embeddings/word_embeddings is embeddings/word_embeddings",
		}},
		"averages alone": {
			base.renamed(average), "", []string{"names are mapped: ", "the weights are averages (ExponentialMovingAverage)"},
		},
		"averages beside": {
			base.with([]int64{8}, "bert/embeddings/LayerNorm/beta/ExponentialMovingAverage"), "", nil,
		},
		"averages of all in scope": {joined(base, base.renamed(replacing("^", "ema/"))), "", nil},
		"Keras's layer norms": {base.renamed(replacing(
			"embeddings/LayerNorm", "embeddings/layer_normalization", "LayerNorm", "layer_normalization_3")),
			"", []string{"names are mapped: "}},
		"Hugging Face's head": {
			base.renamed(headNames("qa_outputs")),
			"", []string{"the head is qa_outputs/kernel [2 8] with qa_outputs/bias"},
		},
		"a head that is turned": {
			base.turned(head).renamed(headNames("classifier")),
			"", []string{"the head is classifier/kernel [8 2] with classifier/bias"},
		},
		"a head that is named": {
			base.with([]int64{2, 8}, "other/kernel").with([]int64{2}, "other/bias").renamed(headNames("qa")),
			"qa", []string{"the head is qa/kernel"},
		},
		"next-sentence head beside": {
			base.with([]int64{2, 8}, "cls/seq_relationship/output_weights").with([]int64{2}, "cls/seq_relationship/output_bias"),
			"", nil,
		},
		"float64": {base.as(checkpoint.Float64), "", nil},
		"state of an optimizer": {
			base.with([]int64{8}, "bert/encoder/layer_0/output/dense/bias/BERTAdam",
				"bert/encoder/layer_0/output/dense/bias/Lazy/Adam/m", "cls/squad/output_weights/x"),
			"", nil,
		},
		"an optimizer's scope": {joined(base, base.renamed(replacing("^", "Optimizer/m/"))), "", nil},
		"positions of PyTorch": {base.withIntegers("bert/embeddings/position_ids"), "", nil},
		"tf-models": {
			base.shaped().turned(head).renamed(secondNames), "",
			[]string{"names are mapped: ", "the head is predictions/transform/logits/kernel [8 2]"},
		},
		"NVIDIA's first names": {
			base.shaped().turned(head).renamed(firstNames), "",
			[]string{"names are mapped: ", "the head is squad/final_dense/kernel"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.TensorFlow(t)
			dir := filepath.Join(t.TempDir(), "model")
			report, err := tfbert.Export(t.Context(), tc.toy.write(t, "model.ckpt"), dir, &tfbert.ExportOptions{Head: tc.head})
			require.NoError(t, err)
			assert.Len(t, report.Notes, max(len(tc.notes), 0), "%q", report.Notes)
			for i, note := range report.Notes {
				if i < len(tc.notes) {
					assert.Contains(t, note, tc.notes[i])
				}
			}
			assert.Equal(t, "gelu by tanh", report.Activation)
			assert.Equal(t, len(base.variables), report.Variables)
			assert.Equal(t, len(tc.toy.variables)-len(base.variables), report.LeftOut)
			assert.Equal(t, want, predictOnce(t, openModel(t, dir, nil), features...))
		})
	}
}

// joined returns the toy with the variables of another one beside its own.
func joined(k, other *toy) *toy {
	return &toy{Config: k.Config, variables: append(slices.Clone(k.variables), other.variables...)}
}

// withIntegers returns the toy with a variable of integers.
func (k *toy) withIntegers(name string) *toy {
	return &toy{Config: k.Config, variables: append(slices.Clone(k.variables),
		toyVariable{name, []int64{1, 4}, checkpoint.Int64, make([]float32, 4)})}
}

// A table may have more rows than the vocabulary has entries. A blank last line is not an entry.
func TestExportPaddedTable(t *testing.T) {
	k := newToy("gelu")
	features := randomWindows(2, 16)
	want := predictOnce(t, openModel(t, exportModel(t, k.write(t, "model.ckpt"), nil), nil), features...)
	for name, tc := range map[string]struct {
		vocab string
		note  []string
	}{
		"shorter": {
			strings.TrimSuffix(toyVocab, "1843\n"),
			[]string{"vocab.txt has 19 entries for 20 rows of the table: the others are padding"},
		},
		"a blank last line": {toyVocab + "\n", nil},
		"no last newline":   {strings.TrimSuffix(toyVocab, "\n"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			ckpt := k.write(t, "model.ckpt")
			editFile(t, filepath.Join(ckpt, "vocab.txt"), func([]byte) []byte { return []byte(tc.vocab) })
			report, dir := exportReported(t, ckpt, nil)
			assert.Equal(t, tc.note, report.Notes)
			assert.Equal(t, want, predictOnce(t, openModel(t, dir, nil), features...))
		})
	}
}

// Hugging Face's classes mean the erf form by gelu; so do configurations that transformers wrote.
func TestHuggingFaceNames(t *testing.T) {
	erf := newToy("gelu_python")
	features := randomWindows(2, 16)
	want := predictOnce(t, openModel(t, exportModel(t, erf.write(t, "model.ckpt"), nil), nil), features...)
	classes := newToy("gelu").turned("cls/squad/output_weights").renamed(classNames)
	report, dir := exportReported(t, classes.write(t, "model.ckpt"), nil)
	assert.Equal(t, "gelu by erf", report.Activation)
	assert.Contains(t, report.Notes, "the activation is gelu by erf")
	assert.Equal(t, want, predictOnce(t, openModel(t, dir, nil), features...))

	ckpt := newToy("gelu").write(t, "model.ckpt")
	editFile(
		t,
		filepath.Join(ckpt, "bert_config.json"),
		replaceText(`"hidden_act"`, `"model_type":"bert","layer_norm_eps":1e-12,"hidden_act"`),
	)
	report, dir = exportReported(t, ckpt, nil)
	assert.Equal(t, "gelu by erf", report.Activation)
	assert.Equal(t, want, predictOnce(t, openModel(t, dir, nil), features...))
}

func exportReported(t *testing.T, ckpt string, opts *tfbert.ExportOptions) (*tfbert.ExportReport, string) {
	t.Helper()
	testenv.TensorFlow(t)
	dir := filepath.Join(t.TempDir(), "model")
	report, err := tfbert.Export(t.Context(), ckpt, dir, opts)
	require.NoError(t, err)
	return report, dir
}

// TestObjectBased exports checkpoints of TensorFlow 2 as its own SaveV2 writes them: keyed by paths, with a graph that
// names the variables.
func TestObjectBased(t *testing.T) {
	toy := newToy("gelu")
	features := randomWindows(2, 16)
	want := predictOnce(t, openModel(t, exportModel(t, toy.write(t, "model.ckpt"), nil), nil), features...)
	named := toy.shaped().turned("cls/squad/output_weights").renamed(secondNames)
	ckpt := named.writeObjects(t, true)
	report, dir := exportReported(t, ckpt, nil)
	require.Len(t, report.Notes, 2)
	assert.Contains(t, report.Notes[0], "bert/embeddings/word_embeddings is word_embeddings/embeddings")
	assert.Equal(t, want, predictOnce(t, openModel(t, dir, nil), features...))

	nameless := named.writeObjects(t, false)
	checkNothingLeft(
		t,
		t.Context(),
		nameless,
		nil,
		"is an object-based one of TensorFlow 2, and its graph of objects does not name the weights of a BERT; "+
			"it holds model/layer_with_weights-0/",
	)
}

// writeObjects writes the toy as an object-based checkpoint, and returns its folder.
func (k *toy) writeObjects(t *testing.T, withNames bool) string {
	t.Helper()
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	dir := k.write(t, "names.ckpt")
	for _, name := range []string{"names.ckpt.index", "names.ckpt.data-00000-of-00001"} {
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
	}
	g, err := tf.NewGraph()
	require.NoError(t, err)
	defer g.Close()
	b := &tf.Builder{Graph: g}
	text := func(dst []byte, field protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
	}
	var graph []byte
	var keys []string
	var dtypes []tf.DataType
	var tensors tf.OutputList
	for i, v := range k.variables {
		key := "model/layer_with_weights-" + string(
			rune('0'+i%10),
		) + "/" + strings.Repeat(
			"x",
			i/10,
		) + "/.ATTRIBUTES/VARIABLE_VALUE"
		keys, dtypes = append(keys, key), append(dtypes, tf.Float)
		tensors = append(tensors, tf.AddConst(b, "v"+strings.Repeat("i", i), tf.Shape(v.shape), v.values...))
		attribute := text(nil, 1, "VARIABLE_VALUE")
		if withNames {
			attribute = text(attribute, 2, v.name)
		}
		graph = text(graph, 1, string(text(nil, 2, string(text(attribute, 3, key)))))
	}
	keys, dtypes = append(keys, "_CHECKPOINTABLE_OBJECT_GRAPH"), append(dtypes, tf.String)
	tensors = append(tensors, tf.AddConst(b, "graph", nil, string(graph)))
	n := tf.Shape{int64(len(keys))}
	b.Add(tf.OpSpec{Type: "SaveV2", Name: "save", Attrs: map[string]tf.Attr{"dtypes": dtypes}, Inputs: []tf.Input{
		tf.AddConst(b, "prefix", nil, filepath.Join(dir, "ctl_step_3.ckpt-1")),
		tf.AddConst(b, "names", n, keys...), tf.AddConst(b, "slices", n, make([]string, len(keys))...), tensors,
	}})
	require.NoError(t, b.Err)
	s, err := tf.NewSession(g, nil)
	require.NoError(t, err)
	defer s.Close()
	operation, ok := g.Operation("save")
	require.True(t, ok)
	_, _, err = s.Run(t.Context(), nil, nil, &tf.RunOptions{Targets: []*tf.Operation{operation}})
	require.NoError(t, err)
	return dir
}

func TestCheckpointsThatAreNotRun(t *testing.T) {
	base := newToy("gelu")
	noHead := base.without(func(name string) bool { return strings.HasPrefix(name, "cls/squad/") })
	const layer2 = "bert/encoder/layer_2/output/dense/bias"
	for name, tc := range map[string]struct {
		toy  *toy
		head string
		want []string
	}{
		"an adapter": {base.with([]int64{8, 2}, "bert/encoder/layer_0/output/adapters/down/w"), "", []string{
			"holds variables that a BERT does not have, such as those of an adapter, " +
				"and would compute something else without them: bert/encoder/layer_0/output/adapters/down/w",
		}},
		"LoRA": {base.with([]int64{8, 2}, "bert/encoder/layer_0/attention/self/query/kernel/lora_a"), "", []string{
			"such as those of an adapter", "query/kernel/lora_a",
		}},
		"a layer too many": {base.with([]int64{8}, layer2, layer2+"/BERTAdam"), "", []string{
			"bert_config.json: bert/encoder/layer_2/output/dense/bias is not of the configuration's 2 layers",
		}},
		"pre-trained": {noHead.with([]int64{8, 8}, "cls/predictions/transform/dense/kernel").
			with([]int64{2, 8}, "cls/seq_relationship/output_weights").
			with([]int64{2}, "cls/seq_relationship/output_bias"), "", []string{
			"has no question-answering head: it was pre-trained, but not fine-tuned on SQuAD",
		}},
		"a classifier of three": {noHead.with([]int64{3, 8}, "output_weights").with([]int64{3}, "output_bias"), "", []string{
			"has no question-answering head: it was not fine-tuned on SQuAD, but has other layers (output_weights [3 8])",
		}},
		"two heads": {noHead.with([]int64{2, 8}, "a/kernel", "b/kernel").with([]int64{2}, "a/bias", "b/bias"), "", []string{
			"has several layers that could answer questions: a/kernel, b/kernel",
		}},
		"a head that it does not have": {
			base, "qa_outputs", []string{`has no head "qa_outputs": it has cls/squad/output_weights`},
		},
		"two models": {joined(base.renamed(replacing("^bert/", "student/bert/")),
			noHead.renamed(replacing("^bert/", "teacher/bert/"))), "", []string{
			"holds several models (student/bert/encoder, teacher/bert/encoder): save the one to run alone",
		}},
		"ALBERT": {base.without(func(name string) bool { return strings.Contains(name, "layer_1") }).renamed(
			replacing("encoder/layer_0", "encoder/transformer/group_0/inner_group_0")), "", []string{
			"looks like one of ALBERT (it holds bert/encoder/transformer/group_0/inner_group_0/",
		}},
		"ELECTRA": {
			base.renamed(replacing("^bert/", "electra/")), "",
			[]string{
				"looks like one of ELECTRA (it holds electra/embeddings/LayerNorm/beta), which tfbert does not run: it runs BERT",
			},
		},
		"RoBERTa": {
			base.renamed(replacing("^bert/", "tf_roberta_for_question_answering/roberta/")), "",
			[]string{"looks like one of RoBERTa"},
		},
		"DistilBERT": {
			base.renamed(replacing("^bert/encoder/layer_", "tf_distil_bert/distilbert/transformer/layer_._")), "",
			[]string{"looks like one of DistilBERT"},
		},
		"weights of other names": {
			base.renamed(replacing("^", "w_", "/", "_")), "",
			[]string{"holds no BERT; it holds w_bert_embeddings_LayerNorm_beta, ", "and 31 more"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			checkNothingLeft(t, t.Context(), tc.toy.write(t, "model.ckpt"), &tfbert.ExportOptions{Head: tc.head}, tc.want...)
		})
	}
}

// A checkpoint of very many variables that could be heads or encoders is searched in time that grows with their number.
func TestNamesOfManyVariables(t *testing.T) {
	base := newToy("gelu")
	for i := range 20_000 {
		scope := fmt.Sprintf("x/%d/", i)
		base.variables = append(base.variables,
			toyVariable{scope + "bert/embeddings/LayerNorm/beta", []int64{1}, checkpoint.Float32, []float32{0}},
			toyVariable{fmt.Sprintf("heads/%d_weights", i), []int64{2, 8}, checkpoint.Float32, make([]float32, 16)},
			toyVariable{fmt.Sprintf("heads/%d_bias", i), []int64{2}, checkpoint.Float32, make([]float32, 2)})
	}
	base = base.renamed(replacing("cls/squad", "heads/cls"))
	dir := base.write(t, "model.ckpt")
	start := time.Now()
	checkNothingLeft(t, t.Context(), dir, nil, "has several layers that could answer questions: heads/0_weights, ")
	assert.Less(t, time.Since(start), 2*time.Minute)
}
