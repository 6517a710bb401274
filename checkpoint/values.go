package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// Float32s returns the elements of a floating-point variable. Float64 is rounded to the nearest float32.
func (r *Reader) Float32s(name string) ([]float32, error) {
	e, err := r.lookup(name)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	switch e.DType {
	case Float32:
		return readValues(r, e, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) })
	case Float16:
		return readValues(r, e, func(b []byte) float32 { return fromFloat16(le.Uint16(b)) })
	case BFloat16:
		return readValues(r, e, func(b []byte) float32 { return math.Float32frombits(uint32(le.Uint16(b)) << 16) })
	case Float64:
		return readValues(r, e, func(b []byte) float32 { return float32(math.Float64frombits(le.Uint64(b))) })
	}
	return nil, fmt.Errorf("read %s: %s is not a floating-point type", name, e.DType)
}

// Int64s returns the elements of an Int64 or Int32 variable.
func (r *Reader) Int64s(name string) ([]int64, error) {
	e, err := r.lookup(name)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	switch e.DType {
	case Int64:
		return readValues(r, e, func(b []byte) int64 { return int64(le.Uint64(b)) })
	case Int32:
		return readValues(r, e, func(b []byte) int64 { return int64(int32(le.Uint32(b))) })
	}
	return nil, fmt.Errorf("read %s: %s is neither int64 nor int32", name, e.DType)
}

func readValues[T any](r *Reader, e *entry, decode func([]byte) T) ([]T, error) {
	size := int(e.DType.Size())
	values := make([]T, e.Size/int64(size))
	rest := values
	err := r.readChunks(e, func(chunk []byte) {
		n := len(chunk) / size
		for i := range rest[:n] {
			rest[i] = decode(chunk[i*size:])
		}
		rest = rest[n:]
	})
	if err != nil {
		return nil, err
	}
	return values, nil
}

// fromFloat16 widens an IEEE 754 half.
func fromFloat16(h uint16) float32 { return float16.Frombits(h).Float32() }
