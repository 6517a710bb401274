package checkpoint

import "fmt"

// DType is the element type of a variable, numbered as in TensorFlow's types.proto.
type DType int32

// The element types in the checkpoints of models. Other types are listed by number and can be read only as
// bytes.
const (
	Float32  DType = 1
	Float64  DType = 2
	Int32    DType = 3
	Uint8    DType = 4
	Int16    DType = 5
	Int8     DType = 6
	String   DType = 7
	Int64    DType = 9
	Bool     DType = 10
	BFloat16 DType = 14
	Uint16   DType = 17
	Float16  DType = 19
	Uint32   DType = 22
	Uint64   DType = 23
)

var dtypes = map[DType]struct {
	name string
	size int64 // bytes per element; 0: not fixed
}{
	Float32:  {"float32", 4},
	Float64:  {"float64", 8},
	Int32:    {"int32", 4},
	Uint8:    {"uint8", 1},
	Int16:    {"int16", 2},
	Int8:     {"int8", 1},
	String:   {"string", 0},
	Int64:    {"int64", 8},
	Bool:     {"bool", 1},
	BFloat16: {"bfloat16", 2},
	Uint16:   {"uint16", 2},
	Float16:  {"float16", 2},
	Uint32:   {"uint32", 4},
	Uint64:   {"uint64", 8},
}

// String returns TensorFlow's name of the type, such as "float32" or "bfloat16".
func (d DType) String() string {
	if t, ok := dtypes[d]; ok {
		return t.name
	}
	return fmt.Sprintf("dtype(%d)", int32(d))
}

// Size returns the bytes of one element, or 0 if that is not fixed (String) or not known.
func (d DType) Size() int64 { return dtypes[d].size }
