package tf

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"
)

// Tensor is an immutable array of one type in TensorFlow's memory.
type Tensor struct {
	users   users
	ptr     tensorPtr
	cleanup runtime.Cleanup
	dtype   DataType
	shape   Shape
	data    unsafe.Pointer
	length  int
}

// NewTensor copies data, in row-major order, into a new tensor. A scalar has an empty shape and one
// element.
func NewTensor[T Element](shape Shape, data []T) (*Tensor, error) {
	dtype := TypeOf[T]()
	if err := checkNew(dtype, shape, len(data)); err != nil {
		return nil, err
	}
	if s, ok := any(data).([]string); ok {
		return adopt(capiStringTensorNew(shape, s), dtype)
	}
	t, err := adopt(capiTensorNew(dtype, shape, unsafe.Pointer(unsafe.SliceData(data)),
		len(data)*dtype.Size()), dtype)
	runtime.KeepAlive(data)
	return t, err
}

// NewTensorFromBytes makes a tensor of any type of a fixed size from the little-endian bytes of its elements.
func NewTensorFromBytes(dtype DataType, shape Shape, data []byte) (*Tensor, error) {
	size := dtype.Size()
	if size == 0 {
		return nil, fmt.Errorf("new tensor: %v has no fixed size", dtype)
	}
	if len(data)%size != 0 {
		return nil, fmt.Errorf("new tensor: %d bytes are not a whole number of %v elements", len(data), dtype)
	}
	if err := checkNew(dtype, shape, len(data)/size); err != nil {
		return nil, err
	}
	t, err := adopt(capiTensorNew(dtype, shape, unsafe.Pointer(unsafe.SliceData(data)), len(data)), dtype)
	runtime.KeepAlive(data)
	return t, err
}

func checkNew(dtype DataType, shape Shape, elements int) error {
	if !Loaded() {
		return ErrNotLoaded
	}
	n, ok := shape.NumElements()
	if !ok {
		return fmt.Errorf("new tensor: shape %v has no definite size", shape)
	}
	if n != int64(elements) {
		return fmt.Errorf("new tensor: shape %v holds %d elements, got %d", shape, n, elements)
	}
	return nil
}

// adopt takes ownership of a C tensor.
func adopt(ptr tensorPtr, want DataType) (*Tensor, error) {
	if ptr == nil {
		return nil, fmt.Errorf("new tensor: TensorFlow could not allocate a tensor of %v", want)
	}
	t := &Tensor{ptr: ptr}
	t.dtype, t.shape, t.data, t.length = capiTensorInspect(ptr)
	if t.data == nil && t.length > 0 {
		capiTensorDelete(ptr)
		return nil, fmt.Errorf("new tensor: TensorFlow has no data of a tensor of %v %v", t.dtype, t.shape)
	}
	alive.tensors.Add(1)
	t.cleanup = runtime.AddCleanup(t, freeTensor, ptr)
	return t, nil
}

func freeTensor(ptr tensorPtr) {
	capiTensorDelete(ptr)
	alive.tensors.Add(-1)
}

// Close releases the tensor's memory, at once or when the last run that it was fed to has ended. A second Close
// does nothing.
func (t *Tensor) Close() error {
	if t != nil && t.users.close() {
		t.free()
	}
	return nil
}

// CloseAll closes tensors, such as the results of a run. It ignores nil.
func CloseAll(tensors []*Tensor) {
	for _, t := range tensors {
		_ = t.Close() // which never fails
	}
}

func (t *Tensor) free() {
	t.cleanup.Stop()
	freeTensor(t.ptr)
	t.ptr, t.data = nil, nil
}

func (t *Tensor) leave() {
	if t.users.leave() {
		t.free()
	}
}

// DataType returns the type of the elements.
func (t *Tensor) DataType() DataType { return t.dtype }

// Shape returns a copy of the tensor's shape.
func (t *Tensor) Shape() Shape { return slices.Clone(t.shape) }

// Values returns a copy of a tensor's elements, in row-major order. T must be the Go type of the tensor's data
// type.
func Values[T Element](t *Tensor) ([]T, error) {
	if dtype := TypeOf[T](); dtype != t.dtype {
		return nil, fmt.Errorf("values: the tensor holds %v, not %v", t.dtype, dtype)
	}
	if err := t.users.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	n, _ := t.shape.NumElements()
	if t.dtype == String {
		return any(capiStrings(t.data, int(n))).([]T), nil
	}
	if n == 0 {
		return []T{}, nil
	}
	return slices.Clone(unsafe.Slice((*T)(t.data), int(n))), nil
}

// Bytes returns a copy of the little-endian bytes of a tensor whose type has a fixed size.
func (t *Tensor) Bytes() ([]byte, error) {
	if t.dtype.Size() == 0 {
		return nil, fmt.Errorf("bytes: %v has no fixed size", t.dtype)
	}
	if err := t.users.enter(); err != nil {
		return nil, err
	}
	defer t.leave()
	if t.length == 0 {
		return []byte{}, nil
	}
	return slices.Clone(unsafe.Slice((*byte)(t.data), t.length)), nil
}

// lend holds the tensors open while C uses them. release must be called when it is done.
func lend(tensors []*Tensor) (ptrs []tensorPtr, release func(), err error) {
	ptrs = make([]tensorPtr, len(tensors))
	lent := 0
	release = func() {
		for _, t := range tensors[:lent] {
			t.leave()
		}
	}
	for i, t := range tensors {
		if t == nil {
			err = errors.New("a tensor is nil")
		} else {
			err = t.users.enter()
		}
		if err != nil {
			release()
			return nil, nil, err
		}
		lent++
		ptrs[i] = t.ptr
	}
	return ptrs, release, nil
}
