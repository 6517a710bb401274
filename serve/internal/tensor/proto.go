package tensor

import (
	"slices"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/repository"
)

// dtypes are TensorFlow's numbers of the types: DT_INT32, DT_INT64, DT_FLOAT and DT_STRING.
var dtypes = map[string]int32{repository.Int32: 3, repository.Int64: 9, repository.Float32: 1, repository.Bytes: 7}

// DType returns TensorFlow's number of a type.
func DType(kind string) int32 { return dtypes[kind] }

// DTypeName returns TensorFlow's name of a type, by its number.
func DTypeName(dtype int32) string {
	return map[int32]string{3: "DT_INT32", 9: "DT_INT64", 1: "DT_FLOAT", 7: "DT_STRING"}[dtype]
}

// FromProto returns the tensor of a TensorProto. Its elements are in tensor_content, or in a list of their
// type. A single element in such a list stands for all elements of the shape.
func FromProto(name string, p *tfproto.TensorProto) (repository.Tensor, error) {
	t := repository.Tensor{Name: name}
	for _, d := range p.GetTensorShape().GetDim() {
		t.Shape = append(t.Shape, d.GetSize())
	}
	if p.GetTensorShape().GetUnknownRank() {
		return t, repository.Invalidf("input %q has the shape %v, which no tensor can have", name, t.Shape)
	}
	for kind, dtype := range dtypes {
		if dtype == p.GetDtype() {
			t.Type = kind
		}
	}
	switch t.Type {
	case repository.Int32, repository.Int64:
		if content := p.GetTensorContent(); len(content) > 0 {
			return t, ReadBinary(&t, content)
		}
		if t.Int32s = p.GetIntVal(); t.Type == repository.Int64 {
			if err := SetInt64s(&t, p.GetInt64Val()); err != nil {
				return t, err
			}
		}
		if len(t.Int32s) == 1 {
			t.Int32s = slices.Repeat(t.Int32s, repeats(t.Shape))
		}
	case repository.Bytes:
		for _, b := range p.GetStringVal() {
			t.Strings = append(t.Strings, string(b))
		}
	default:
		return t, repository.Invalidf(
			"input %q has the type %d: a question-answering model takes DT_INT32, DT_INT64 and DT_STRING only",
			name, p.GetDtype())
	}
	return t, nil
}

// mostRepeats bounds how many elements one may stand for.
const mostRepeats = 1 << 20

// repeats returns the number of elements that one stands for in a shape: 1 if there would be too many.
func repeats(shape []int64) int {
	n := int64(1)
	for _, d := range shape {
		if d < 1 || d > mostRepeats {
			return 1
		}
		if n *= d; n > mostRepeats {
			return 1
		}
	}
	return int(n)
}

// ToProto returns the TensorProto of a tensor. Numbers are in the list of their type, as in TensorFlow Serving's
// replies: many clients read float_val without a look at tensor_content.
func ToProto(t *repository.Tensor) *tfproto.TensorProto {
	p := &tfproto.TensorProto{Dtype: DType(t.Type), TensorShape: ShapeProto(t.Shape)}
	switch t.Type {
	case repository.Int32:
		p.IntVal = t.Int32s
	case repository.Int64:
		p.Int64Val = make([]int64, len(t.Int32s))
		for i, v := range t.Int32s {
			p.Int64Val[i] = int64(v)
		}
	case repository.Float32:
		p.FloatVal = t.Float32s
	default:
		for _, x := range t.Strings {
			p.StringVal = append(p.StringVal, []byte(x))
		}
	}
	return p
}

// ShapeProto returns the TensorShapeProto of a shape.
func ShapeProto(shape []int64) *tfproto.TensorShapeProto {
	p := &tfproto.TensorShapeProto{}
	for _, d := range shape {
		p.Dim = append(p.Dim, &tfproto.TensorShapeProto_Dim{Size: d})
	}
	return p
}
