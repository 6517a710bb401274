package tf

import "fmt"

// DataType is the type of a tensor's elements, numbered as in TensorFlow's types.proto.
type DataType int

// The element types. Those without a Go type among [Element] (quantized, float8, int4 and
// smaller) are made by [NewTensorFromBytes] and read by [Tensor.Bytes].
const (
	Float        DataType = 1
	Double       DataType = 2
	Int32        DataType = 3
	Uint8        DataType = 4
	Int16        DataType = 5
	Int8         DataType = 6
	String       DataType = 7
	Complex64    DataType = 8
	Int64        DataType = 9
	Bool         DataType = 10
	Qint8        DataType = 11
	Quint8       DataType = 12
	Qint32       DataType = 13
	Bfloat16     DataType = 14
	Qint16       DataType = 15
	Quint16      DataType = 16
	Uint16       DataType = 17
	Complex128   DataType = 18
	Half         DataType = 19
	Resource     DataType = 20
	Variant      DataType = 21
	Uint32       DataType = 22
	Uint64       DataType = 23
	Float8E5M2   DataType = 24
	Float8E4M3FN DataType = 25
	Int4         DataType = 29
	Uint4        DataType = 30
)

// refOffset is what types.proto adds to a type for a reference to a variable of that type.
const refOffset = 100

var dataTypes = map[DataType]struct {
	name string
	size int // bytes of an element; 0 if it has no fixed size
}{
	Float: {"float32", 4}, Double: {"float64", 8}, Int32: {"int32", 4}, Uint8: {"uint8", 1},
	Int16: {"int16", 2}, Int8: {"int8", 1}, String: {"string", 0}, Complex64: {"complex64", 8},
	Int64: {"int64", 8}, Bool: {"bool", 1}, Qint8: {"qint8", 1}, Quint8: {"quint8", 1},
	Qint32: {"qint32", 4}, Bfloat16: {"bfloat16", 2}, Qint16: {"qint16", 2},
	Quint16: {"quint16", 2}, Uint16: {"uint16", 2}, Complex128: {"complex128", 16},
	Half: {"float16", 2}, Resource: {"resource", 0}, Variant: {"variant", 0},
	Uint32: {"uint32", 4}, Uint64: {"uint64", 8}, Float8E5M2: {"float8_e5m2", 1},
	Float8E4M3FN: {"float8_e4m3fn", 1}, Int4: {"int4", 1}, Uint4: {"uint4", 1},
}

// String returns the name that TensorFlow's Python API uses ("float32", "int64"), with "_ref" for a
// reference to a variable.
func (d DataType) String() string {
	if t, ok := dataTypes[d]; ok {
		return t.name
	}
	if t, ok := dataTypes[d-refOffset]; ok {
		return t.name + "_ref"
	}
	return fmt.Sprintf("dtype(%d)", int(d))
}

// Size returns the bytes of one element, or 0 if it has no fixed size.
func (d DataType) Size() int { return dataTypes[d].size }

// Float16 holds the bits of an IEEE 754 half-precision number.
type Float16 uint16

// BFloat16 holds the upper 16 bits of a float32.
type BFloat16 uint16

// Element is a Go type that a tensor can hold.
type Element interface {
	bool | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 |
		float32 | float64 | complex64 | complex128 | string | Float16 | BFloat16
}

// TypeOf returns the data type that T stands for.
func TypeOf[T Element]() DataType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return Bool
	case int8:
		return Int8
	case int16:
		return Int16
	case int32:
		return Int32
	case int64:
		return Int64
	case uint8:
		return Uint8
	case uint16:
		return Uint16
	case uint32:
		return Uint32
	case uint64:
		return Uint64
	case float32:
		return Float
	case float64:
		return Double
	case complex64:
		return Complex64
	case complex128:
		return Complex128
	case string:
		return String
	case Float16:
		return Half
	default: // the only one left
		return Bfloat16
	}
}
