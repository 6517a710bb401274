package tfbert_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

// tolerance bounds the difference of logits, which are around 1.
const tolerance = 1e-4

// largestDifference returns the largest difference of the logits of two batches.
func largestDifference(t testing.TB, a, b []squad.RawResult) float64 {
	t.Helper()
	require.Len(t, b, len(a))
	largest := 0.0
	for i := range a {
		require.Len(t, b[i].StartLogits, len(a[i].StartLogits))
		for pos := range a[i].StartLogits {
			for _, d := range []float32{a[i].StartLogits[pos] - b[i].StartLogits[pos],
				a[i].EndLogits[pos] - b[i].EndLogits[pos]} {
				require.False(t, math.IsNaN(float64(d)))
				largest = max(largest, math.Abs(float64(d)))
			}
		}
	}
	return largest
}

func TestGraphAgainstFloat64(t *testing.T) {
	for _, act := range activationNames {
		t.Run(act, func(t *testing.T) {
			k := newToy(act)
			m := openModel(t, exportModel(t, k.write(t, "model.ckpt"), nil), nil)
			for _, length := range []int{8, 48} {
				features := randomWindows(3, length)
				largest := 0.0
				for i, r := range predictOnce(t, m, features...) {
					start, end := k.forward(features[i])
					for pos := range start {
						largest = max(largest, math.Abs(start[pos]-float64(r.StartLogits[pos])),
							math.Abs(end[pos]-float64(r.EndLogits[pos])))
					}
				}
				assert.Less(t, largest, tolerance, "length %d", length)
				t.Logf("length %d: largest difference %.1e", length, largest)
			}
		})
	}
}

// The activations differ where they should.
func TestActivationMatters(t *testing.T) {
	features := randomWindows(2, 16)
	gelu := predictOnce(t, openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil), features...)
	relu := predictOnce(t, openModel(t, exportModel(t, newToy("relu").write(t, "model.ckpt"), nil), nil), features...)
	assert.Greater(t, largestDifference(t, gelu, relu), 100*tolerance)
}

func TestStaticLengthIsTheSameModel(t *testing.T) {
	ckpt := newToy("gelu").write(t, "model.ckpt")
	features := randomWindows(3, 32)
	dynamic := predictOnce(t, openModel(t, exportModel(t, ckpt, nil), nil), features...)
	static := predictOnce(t, openModel(t, exportModel(t, ckpt, &tfbert.ExportOptions{MaxSeqLength: 32}), nil), features...)
	assert.Equal(t, dynamic, static)
}

func TestBatchIsItsRows(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil)
	features := randomWindows(8, 40)
	var rows []squad.RawResult
	for _, f := range features {
		rows = append(rows, predictOnce(t, m, f)...)
	}
	assert.Less(t, largestDifference(t, predictOnce(t, m, features...), rows), tolerance)
}

// What is masked does not matter, and what is not does.
func TestMask(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil)
	real := randomWindows(1, 24)[0]
	for i := range real.InputMask {
		real.InputMask[i] = 1
	}
	padding := func(f squad.Feature, id, mask int32) squad.Feature {
		for range 16 {
			f.InputIDs, f.InputMask, f.SegmentIDs = append(f.InputIDs, id), append(f.InputMask, mask), append(f.SegmentIDs, 0)
		}
		return f
	}
	padded, masked, unmasked := padding(cloneFeature(real), 0, 0), padding(cloneFeature(real), 7,
		0), padding(cloneFeature(real), 7, 1)
	cut := func(f squad.Feature) []squad.RawResult {
		r := predictOnce(t, m, f)
		r[0].StartLogits, r[0].EndLogits = r[0].StartLogits[:24], r[0].EndLogits[:24]
		return r
	}
	assert.Less(t, largestDifference(t, cut(real), cut(padded)), tolerance)
	assert.Less(t, largestDifference(t, cut(real), cut(masked)), tolerance)
	assert.Greater(t, largestDifference(t, cut(real), cut(unmasked)), 100*tolerance)
}

func cloneFeature(f squad.Feature) squad.Feature {
	f.InputIDs, f.InputMask, f.SegmentIDs = slices.Clone(f.InputIDs), slices.Clone(f.InputMask), slices.Clone(f.SegmentIDs)
	return f
}

// The signature is that of NVIDIA's export_model.
func TestSignature(t *testing.T) {
	for _, c := range []struct {
		name, sequence string
		length         int
	}{{"dynamic", "[?,?]", 0}, {"static", "[?,32]", 32}} {
		t.Run(c.name, func(t *testing.T) {
			dir := exportModel(t, newToy("gelu").write(t, "model.ckpt"), &tfbert.ExportOptions{MaxSeqLength: c.length})
			info, err := savedmodel.Inspect(dir)
			require.NoError(t, err)
			meta, err := info.MetaGraph([]string{"serve"})
			require.NoError(t, err)
			require.Len(t, meta.Signatures, 1)
			s := meta.Signatures[0]
			assert.Equal(t, "serving_default", s.Key)
			assert.Equal(t, "tensorflow/serving/predict", s.Method)
			assert.Equal(t, []string{
				"input_ids int32 " + c.sequence, "input_mask int32 " + c.sequence, "segment_ids int32 " +
					c.sequence, "unique_ids int32 [?]",
			}, infoTexts(s.Inputs))
			assert.Equal(t, []string{
				"end_logits float32 " + c.sequence, "start_logits float32 " + c.sequence, "unique_ids int32 [?]",
			}, infoTexts(s.Outputs))
			start, err := s.Output("start_logits")
			require.NoError(t, err)
			end, err := s.Output("end_logits")
			require.NoError(t, err)
			assert.Equal(t, "unstack:0 unstack:1", start.Name+" "+end.Name)

			// The operations that the mixed-precision rewrite is about: 4 + 2 dense layers and 2 attention
			// products a layer, the segments' one-hot product and the head.
			assert.Equal(t, 2*6+2, meta.Ops["MatMul"])
			assert.Equal(t, 2*2, meta.Ops["BatchMatMulV2"])
			assert.Equal(t, 2, meta.Ops["Pow"])
			assert.Equal(t, 2, meta.Ops["Softmax"])
			assert.Equal(t, 5+16*2+2, meta.Ops["VarHandleOp"])
		})
	}
}

func infoTexts(infos []savedmodel.TensorInfo) []string {
	var list []string
	for _, i := range infos {
		list = append(list, i.String())
	}
	return list
}

// unique_ids are passed through.
func TestUniqueIDsOutput(t *testing.T) {
	m := openModel(t, exportModel(t, newToy("gelu").write(t, "model.ckpt"), nil), nil)
	f, err := m.SavedModel().Func("serving_default", []string{"unique_ids"}, []string{"unique_ids"})
	require.NoError(t, err)
	in, err := tf.NewTensor(tf.Shape{2}, []int32{1000000007, 3})
	require.NoError(t, err)
	defer in.Close()
	out, err := f.Run(t.Context(), in)
	require.NoError(t, err)
	defer out[0].Close()
	ids, err := tf.Values[int32](out[0])
	require.NoError(t, err)
	assert.Equal(t, []int32{1000000007, 3}, ids)
}
