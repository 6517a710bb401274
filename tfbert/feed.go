package tfbert

import (
	"fmt"
	"math"
	"slices"

	"github.com/x448/float16"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tf"
)

// bind binds the inputs that feeds makes and the outputs that logits reads.
func (m *Mapping) bind(model *savedmodel.Model) (*savedmodel.Func, error) {
	inputs := []string{m.Examples}
	if m.Examples == "" {
		inputs = nil
		for _, in := range m.Inputs {
			inputs = append(inputs, in.Key)
		}
	}
	outputs := []string{m.Outputs[0].Key}
	if !m.stacked() {
		outputs = append(outputs, m.Outputs[1].Key)
	}
	return model.Func(m.Signature, inputs, outputs)
}

// stacked reports whether one output holds both logits.
func (m *Mapping) stacked() bool { return m.Outputs[0].Index != "" }

// feeds makes the tensors of a batch of rows, in the order of bind. The last feature fills rows up.
func (m *Mapping) feeds(features []squad.Feature, rows, length int) ([]*tf.Tensor, error) {
	first := len(features[0].InputIDs)
	for i := range features {
		f := &features[i]
		if n := len(f.InputIDs); n != first || len(f.InputMask) != n || len(f.SegmentIDs) != n {
			return nil, fmt.Errorf("predict: feature %d is %d long, the first of its batch %d", f.UniqueID, n, first)
		}
	}
	if m.Examples != "" {
		examples := make([]string, rows)
		for i := range examples {
			examples[i] = m.example(&features[min(i, len(features)-1)], length)
		}
		t, err := tf.NewTensor(tf.Shape{int64(rows)}, examples)
		if err != nil {
			return nil, err
		}
		return []*tf.Tensor{t}, nil
	}
	tensors := make([]*tf.Tensor, 0, len(m.Inputs))
	for i := range m.Inputs {
		in := &m.Inputs[i]
		shape := tf.Shape{int64(rows), int64(length)}
		if in.As == uniqueIDs {
			shape[1] = 1
			if !in.column {
				shape = shape[:1]
			}
		}
		n, _ := shape.NumElements()
		values := make([]int32, 0, n)
		for row := range rows {
			values = in.appendTo(values, &features[min(row, len(features)-1)], length)
		}
		t, err := in.tensor(shape, values)
		if err != nil {
			return tensors, err
		}
		tensors = append(tensors, t)
	}
	return tensors, nil
}

// appendTo appends what an input takes of a feature.
func (in *MappedInput) appendTo(values []int32, f *squad.Feature, length int) []int32 {
	switch in.As {
	case inputIDs:
		return append(values, f.InputIDs[:length]...)
	case inputMask:
		return append(values, f.InputMask[:length]...)
	case segmentIDs:
		return append(values, f.SegmentIDs[:length]...)
	}
	return append(values, f.UniqueID)
}

// tensor makes a tensor of the input's type.
func (in *MappedInput) tensor(shape tf.Shape, values []int32) (*tf.Tensor, error) {
	switch in.dtype {
	case tf.Int64:
		return tf.NewTensor(shape, convert(values, func(v int32) int64 { return int64(v) }))
	case tf.Float:
		return tf.NewTensor(shape, convert(values, func(v int32) float32 { return float32(v) }))
	case tf.Bool:
		return tf.NewTensor(shape, convert(values, func(v int32) bool { return v != 0 }))
	}
	return tf.NewTensor(shape, values)
}

func convert[T, U any](values []T, f func(T) U) []U {
	converted := make([]U, len(values))
	for i, v := range values {
		converted[i] = f(v)
	}
	return converted
}

// example returns a feature as a serialized tf.train.Example.
func (m *Mapping) example(f *squad.Feature, length int) string {
	message := func(b []byte, num protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), content)
	}
	var features, values, packed []byte
	var numbers []int32
	for i := range m.Inputs {
		in := &m.Inputs[i]
		numbers = in.appendTo(numbers[:0], f, length)
		packed = packed[:0]
		for _, v := range numbers {
			packed = protowire.AppendVarint(packed, uint64(v))
		}
		values = message(values[:0], 1, packed)            // Int64List.value
		entry := message(nil, 1, []byte(in.Key))           // Features.feature's key
		entry = message(entry, 2, message(nil, 3, values)) // and value: Feature.int64_list
		features = message(features, 1, entry)             // Features.feature
	}
	return string(message(nil, 1, features)) // Example.features
}

// logits reads the outputs of a batch of rows.
func (m *Mapping) logits(out []*tf.Tensor, rows, length int) (start, end []float32, err error) {
	if !m.stacked() {
		want := tf.Shape{int64(rows), int64(length)}
		if start, err = floats(out[0], want); err != nil {
			return nil, nil, err
		}
		end, err = floats(out[1], want)
		return start, end, err
	}
	axis := m.Outputs[0].axis
	both, err := floats(out[0], slices.Insert(tf.Shape{int64(rows), int64(length)}, axis, 2))
	if err != nil {
		return nil, nil, err
	}
	size := rows * length
	if axis == 0 {
		return both[:size:size], both[size:], nil
	}
	inner := 1 // the elements of one start before those of one end
	if axis == 1 {
		inner = length
	}
	start, end = make([]float32, 0, size), make([]float32, 0, size)
	for ; len(both) > 0; both = both[2*inner:] {
		start, end = append(start, both[:inner]...), append(end, both[inner:2*inner]...)
	}
	return start, end, nil
}

// floats returns the elements of a tensor of logits, of any floating-point type, which has a shape or that
// shape and a dimension of 1.
func floats(t *tf.Tensor, want tf.Shape) ([]float32, error) {
	if shape := t.Shape(); !want.Compatible(shape) && !append(want[:len(want):len(want)], 1).Compatible(shape) {
		return nil, fmt.Errorf("the model returns logits of shape %v, not %v", shape, want)
	}
	switch t.DataType() {
	case tf.Half:
		values, err := tf.Values[tf.Float16](t)
		return convert(values, func(v tf.Float16) float32 { return float16.Frombits(uint16(v)).Float32() }), err
	case tf.Bfloat16:
		values, err := tf.Values[tf.BFloat16](t)
		return convert(values, func(v tf.BFloat16) float32 { return math.Float32frombits(uint32(v) << 16) }), err
	case tf.Double:
		values, err := tf.Values[float64](t)
		return convert(values, func(v float64) float32 { return float32(v) }), err
	}
	return tf.Values[float32](t)
}
