// Package tensor reads and writes tensors in the forms that clients use: JSON, TensorFlow's TensorProto, and
// the bytes of the Open Inference Protocol's binary extension, which raw_input_contents and, for numbers,
// tensor_content have too.
//
// Its errors are for clients. It reads no elements of a tensor whose type no model here takes, and leaves
// the error about the type to repository.Servable.Infer.
package tensor

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/tfbert/go/serve/repository"
)

// ReadBinary reads a tensor's elements: numbers in little endian, and strings, each after its length.
func ReadBinary(t *repository.Tensor, data []byte) error {
	switch t.Type {
	case repository.Int32:
		if len(data)%4 != 0 {
			return repository.Invalidf("input %q has %d bytes: an element of %s has 4", t.Name, len(data), t.Type)
		}
		t.Int32s = make([]int32, len(data)/4)
		for i := range t.Int32s {
			t.Int32s[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case repository.Int64:
		if len(data)%8 != 0 {
			return repository.Invalidf("input %q has %d bytes: an element of %s has 8", t.Name, len(data), t.Type)
		}
		t.Int32s = make([]int32, len(data)/8)
		for i := range t.Int32s {
			if err := set(t, i, int64(binary.LittleEndian.Uint64(data[8*i:]))); err != nil {
				return err
			}
		}
	case repository.Bytes:
		for len(data) > 0 {
			if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
				return repository.Invalidf("input %q ends within an element: each has its length, in 4 bytes, in front",
					t.Name)
			}
			n := 4 + int(binary.LittleEndian.Uint32(data))
			t.Strings = append(t.Strings, string(data[4:n]))
			data = data[n:]
		}
	}
	return nil
}

// SetInt64s sets the elements of a tensor of Int64.
func SetInt64s(t *repository.Tensor, values []int64) error {
	t.Int32s = make([]int32, len(values))
	for i, v := range values {
		if err := set(t, i, v); err != nil {
			return err
		}
	}
	return nil
}

func set(t *repository.Tensor, i int, v int64) error {
	if t.Int32s[i] = int32(v); int64(t.Int32s[i]) != v {
		return repository.Invalidf("input %q holds %d: it must hold whole numbers of 32 bits", t.Name, v)
	}
	return nil
}

// AppendBinary appends a tensor's elements as ReadBinary reads them.
func AppendBinary(b []byte, t *repository.Tensor) []byte {
	b = slices.Grow(b, 4*(len(t.Int32s)+len(t.Float32s)))
	for _, x := range t.Int32s {
		if t.Type == repository.Int64 {
			b = binary.LittleEndian.AppendUint64(b, uint64(x))
			continue
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	for _, x := range t.Float32s {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	for _, x := range t.Strings {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(x)))
		b = append(b, x...)
	}
	return b
}
