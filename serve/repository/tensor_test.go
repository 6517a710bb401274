package repository_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
)

// rowIDs returns the tokens of the nth row, which differ from those of others.
func rowIDs(n, length int) []int32 {
	ids := make([]int32, length)
	ids[0] = fakemodel.ID("[CLS]")
	for i := 1; i < length; i++ {
		ids[i] = fakemodel.ID(fakemodel.Key(n*31 + i))
	}
	return ids
}

// tensorCall returns a call with rows of a length, and unique ids from 7.
func tensorCall(rows, length int) *repository.Call {
	shape := []int64{int64(rows), int64(length)}
	ids := repository.Tensor{Name: "input_ids", Type: repository.Int32, Shape: shape}
	unique := repository.Tensor{Name: "unique_ids", Type: repository.Int32, Shape: shape[:1]}
	for n := range rows {
		ids.Int32s = append(ids.Int32s, rowIDs(n, length)...)
		unique.Int32s = append(unique.Int32s, int32(7+n))
	}
	mask, segments := ids, ids
	mask.Name, mask.Int32s = "input_mask", make([]int32, rows*length)
	segments.Name, segments.Int32s = "segment_ids", make([]int32, rows*length)
	return &repository.Call{Inputs: []repository.Tensor{ids, mask, segments, unique}}
}

func TestInfer(t *testing.T) {
	models := &fakemodel.Models{}
	m := startModel(t, models, repository.Options{Batching: batch.Options{MaxSize: 4}})
	for _, rows := range []int{1, 4, 11} {
		for _, column := range []bool{false, true} {
			call := tensorCall(rows, 20)
			if column {
				call.Inputs[3].Shape = []int64{int64(rows), 1}
			}
			r, err := m.Infer(t.Context(), call)
			require.NoError(t, err)
			var starts, ends []float32
			for n := range rows {
				start, end := fakemodel.Logits(rowIDs(n, 20), 1)
				starts, ends = append(starts, start...), append(ends, end...)
			}
			shape, ids := []int64{int64(rows), 20}, call.Inputs[3].Int32s
			assert.Equal(t, []repository.Tensor{
				{Name: "start_logits", Type: repository.Float32, Shape: shape, Float32s: starts},
				{Name: "end_logits", Type: repository.Float32, Shape: shape, Float32s: ends},
				{Name: "unique_ids", Type: repository.Int32, Shape: shape[:1], Int32s: ids},
			}, r.Outputs)
		}
	}
	call := tensorCall(1, 20)
	call.Outputs = []string{"end_logits"}
	r, err := m.Infer(t.Context(), call)
	require.NoError(t, err)
	require.Len(t, r.Outputs, 1)
	assert.Equal(t, "end_logits", r.Outputs[0].Name)
}

func TestInferRefuses(t *testing.T) {
	models := &fakemodel.Models{}
	m := startModel(t, models, repository.Options{
		Batching: batch.Options{MaxSize: 4}, Limits: repository.Limits{Windows: 20},
	})
	warmed := models.Batches.Load()
	type inferCall = repository.Call
	for _, tt := range []struct {
		want   string
		change func(*inferCall)
	}{
		{`does not have an input "other"`, func(c *inferCall) { c.Inputs[0].Name = "other" }},
		{`input "input_mask" is given twice`, func(c *inferCall) { c.Inputs[0].Name = "input_mask" }},
		{`input "input_ids" is FP32: it must be INT32`, func(c *inferCall) { c.Inputs[0].Type = repository.Float32 }},
		{`input "input_ids" is : it must be INT32`, func(c *inferCall) { c.Inputs[0].Type = "" }},
		{`[-2 20], which no tensor can have`, func(c *inferCall) { c.Inputs[0].Shape = []int64{-2, 20} }},
		{`1099511627776], which no tensor can have`, func(c *inferCall) { c.Inputs[0].Shape = []int64{1 << 40, 1 << 40} }},
		{`[2 19] but 40 elements`, func(c *inferCall) { c.Inputs[0].Shape = []int64{2, 19} }},
		{`[] but 40 elements`, func(c *inferCall) { c.Inputs[0].Shape = nil }},
		{`input "unique_ids" is missing`, func(c *inferCall) { c.Inputs = c.Inputs[:3] }},
		{`input "input_ids" is missing`, func(c *inferCall) { c.Inputs = nil }},
		{`[40]: it must be [-1 -1]`, func(c *inferCall) { c.Inputs[0].Shape = []int64{40} }},
		{`[2 10 2]: it must be [-1 -1]`, func(c *inferCall) { c.Inputs[0].Shape = []int64{2, 10, 2} }},
		{`input "unique_ids" has the shape [1 2]: it must`, func(c *inferCall) { c.Inputs[3].Shape = []int64{1, 2} }},
		{`input "input_mask" has 4 rows, another input 2`, func(c *inferCall) { c.Inputs[1].Shape = []int64{4, 10} }},
		{`input "segment_ids" has the shape [2 10], input`, func(c *inferCall) {
			c.Inputs[2].Shape, c.Inputs[2].Int32s = []int64{2, 10}, make([]int32, 20)
		}},
		{`does not have an output "other"`, func(c *inferCall) { c.Outputs = []string{"start_logits", "other"} }},
		{`the batch is empty`, func(c *inferCall) { *c = *tensorCall(0, 20) }},
		{`a sequence has at least one token`, func(c *inferCall) { *c = *tensorCall(2, 1); emptySequences(c) }},
		{`the batch has 5 rows: model bert takes at most 4`, func(c *inferCall) {
			*c = *tensorCall(5, 20)
			c.CheckBatchSize = true
		}},
		{`the batch has 21 rows: there may be at most 20`, func(c *inferCall) { *c = *tensorCall(21, 20) }},
		{`the length is 97: it must be at most 96`, func(c *inferCall) { *c = *tensorCall(2, 97) }},
		{`holds -1: it must be from 0 to `, func(c *inferCall) { c.Inputs[0].Int32s[3] = -1 }},
		{`input "input_ids" holds 1000000: it must`, func(c *inferCall) { c.Inputs[0].Int32s[3] = 1000000 }},
		{`input "segment_ids" holds 2: it must be from 0 to 1`, func(c *inferCall) { c.Inputs[2].Int32s[3] = 2 }},
		{`unknown priority: 9`, func(c *inferCall) { c.Priority = 9 }},
	} {
		call := tensorCall(2, 20)
		tt.change(call)
		_, err := m.Infer(t.Context(), call)
		if assert.Error(t, err, tt.want) {
			e := repository.AsError(err)
			assert.Equal(t, codes.InvalidArgument, e.Code)
			assert.Contains(t, e.Message, tt.want)
		}
	}
	assert.Equal(t, warmed, models.Batches.Load())

	call := tensorCall(1, 20)
	m.Backend().Segments = 0 // not known
	call.Inputs[2].Int32s[0] = 9
	_, err := m.Infer(t.Context(), call)
	require.NoError(t, err)
	call.Inputs[2].Int32s[0] = -9
	_, err = m.Infer(t.Context(), call)
	require.ErrorContains(t, err, `input "segment_ids" holds -9: it must not be negative`)

	call = tensorCall(1, 20)
	call.Inputs[0].Int32s[5] = fakemodel.ID(fakemodel.Short)
	_, err = m.Infer(t.Context(), call)
	require.ErrorContains(t, err, "logits of")
	assert.Equal(t, codes.Internal, errorCode(err))
}

// emptySequences removes all elements of the sequences.
func emptySequences(c *repository.Call) {
	for i := range c.Inputs[:3] {
		c.Inputs[i].Shape, c.Inputs[i].Int32s = []int64{2, 0}, nil
	}
}

// A signature may have inputs that a request may leave out.
func TestOptionalInput(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	m.Backend().Inputs[3].Optional = true
	call := tensorCall(2, 20)
	call.Inputs = call.Inputs[:3]
	r, err := m.Infer(t.Context(), call)
	require.NoError(t, err)
	assert.Equal(t, []int32{0, 0}, r.Outputs[2].Int32s)
}

func TestInferText(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{}).Servables()[1]
	assert.Equal(t, "bert_qa", m.Name())
	assert.Equal(t, "tfbert", m.Config().Platform)
	for _, shape := range [][]int64{{2}, {2, 1}} {
		r, err := m.Infer(t.Context(), &repository.Call{Inputs: []repository.Tensor{
			{Name: "CONTEXT", Type: repository.Bytes, Shape: shape, Strings: []string{"a w1", "🦉 w2"}},
			{Name: "QUESTION", Type: repository.Bytes, Shape: shape, Strings: []string{"find w1", "find w2"}},
		}})
		require.NoError(t, err)
		require.Len(t, r.Outputs, 4)
		assert.Equal(t, repository.Tensor{
			Name: "ANSWER", Type: repository.Bytes, Shape: []int64{2}, Strings: []string{"w1", "w2"},
		}, r.Outputs[0])
		assert.InDeltaSlice(t, []float32{1, 1}, r.Outputs[1].Float32s, 1e-6)
		assert.Equal(t, []int32{2, 2}, r.Outputs[2].Int32s)
		assert.Equal(t, []int32{4, 4}, r.Outputs[3].Int32s)
	}
	_, err := m.Infer(t.Context(), &repository.Call{Inputs: []repository.Tensor{
		{Name: "CONTEXT", Type: repository.Bytes, Shape: []int64{1}, Strings: []string{"\xff"}},
		{Name: "QUESTION", Type: repository.Bytes, Shape: []int64{1}, Strings: []string{"find w1"}},
	}})
	require.ErrorContains(t, err, "not valid UTF-8")
	r, err := m.Infer(t.Context(), &repository.Call{Outputs: []string{"START"}, Inputs: []repository.Tensor{
		{Name: "CONTEXT", Type: repository.Bytes, Shape: []int64{1}, Strings: []string{""}},
		{Name: "QUESTION", Type: repository.Bytes, Shape: []int64{1}, Strings: []string{"find w1"}},
	}})
	require.NoError(t, err)
	assert.Equal(t, []repository.Tensor{
		{Name: "START", Type: repository.Int32, Shape: []int64{1}, Int32s: []int32{-1}},
	}, r.Outputs)
}
