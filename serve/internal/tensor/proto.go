package tensor

import (
	"slices"

	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/repository"
)

// dtypes are the types of tensors in TensorFlow: DT_INT32, DT_FLOAT and DT_STRING.
var dtypes = map[string]int32{repository.Int32: 3, repository.Float32: 1, repository.Bytes: 7}

// DType returns the number that TensorFlow has for a type.
func DType(kind string) int32 { return dtypes[kind] }

// DTypeName returns the name that TensorFlow has for the number of one of the types here.
func DTypeName(dtype int32) string {
	return map[int32]string{3: "DT_INT32", 1: "DT_FLOAT", 7: "DT_STRING"}[dtype]
}

// mostRepeats bounds how many elements one may stand for.
const mostRepeats = 1 << 20

// FromProto reads a tensor. Its elements are in tensor_content, or in a list of their type. One element
// in such a list stands for all that the shape has.
func FromProto(name string, p *tfproto.TensorProto) (repository.Tensor, error) {
	t := repository.Tensor{Name: name}
	for _, d := range p.GetTensorShape().GetDim() {
		t.Shape = append(t.Shape, d.GetSize())
	}
	n := repository.Elements(t.Shape)
	if p.GetTensorShape().GetUnknownRank() || n < 0 {
		return t, repository.Invalidf("input %q has the shape %v, which no tensor can have", name, t.Shape)
	}
	for kind, dtype := range dtypes {
		if dtype == p.GetDtype() {
			t.Type = kind
		}
	}
	switch t.Type {
	case repository.Int32:
		if content := p.GetTensorContent(); len(content) > 0 {
			return t, ReadBinary(&t, content)
		}
		t.Int32s = p.GetIntVal()
		if len(t.Int32s) == 1 && n > 1 && n <= mostRepeats {
			t.Int32s = slices.Repeat(t.Int32s, n)
		}
	case repository.Bytes:
		for _, b := range p.GetStringVal() {
			t.Strings = append(t.Strings, string(b))
		}
	default:
		return t, repository.Invalidf("input %q has the type %d: a question-answering model takes DT_INT32 and DT_STRING only",
			name, p.GetDtype())
	}
	return t, nil
}

// ToProto writes a tensor, numbers as tensor_content.
func ToProto(t *repository.Tensor) *tfproto.TensorProto {
	p := &tfproto.TensorProto{Dtype: DType(t.Type), TensorShape: ShapeProto(t.Shape)}
	switch t.Type {
	case repository.Int32, repository.Float32:
		p.TensorContent = AppendBinary(nil, t)
	default:
		for _, x := range t.Strings {
			p.StringVal = append(p.StringVal, []byte(x))
		}
	}
	return p
}

// ShapeProto writes a shape.
func ShapeProto(shape []int64) *tfproto.TensorShapeProto {
	p := &tfproto.TensorShapeProto{}
	for _, d := range shape {
		p.Dim = append(p.Dim, &tfproto.TensorShapeProto_Dim{Size: d})
	}
	return p
}
