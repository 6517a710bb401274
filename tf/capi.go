//go:build cgo && unix

package tf

/*
#cgo CFLAGS: -std=gnu11 -Wall -Wextra -O2
#cgo linux LDFLAGS: -ldl
#cgo noescape tfb_tensor_inspect
#cgo noescape tfb_tensor_dims
#cgo nocallback tfb_tensor_inspect
#cgo nocallback tfb_tensor_dims
#include <stdlib.h>
#include "capi.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"math"
	"unsafe"
)

// Only the functions of this file call C. Each is one action, takes and returns Go values, and leaves no C
// memory behind except the handles, which their callers own.
type (
	tensorPtr    = *C.TF_Tensor
	graphPtr     = *C.TF_Graph
	operationPtr = *C.TF_Operation
	sessionPtr   = C.tfb_session
	output       = C.TF_Output
)

func newOutput(op operationPtr, index int) output { return output{oper: op, index: C.int(index)} }

// cstr returns a NUL-terminated copy of s in Go's memory, for the length of one call of C.
func cstr(s string) *C.char {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return (*C.char)(unsafe.Pointer(&b[0]))
}

// take turns a C error into a Go one and frees it.
func take(op string, e C.tfb_error) error {
	if e.code == 0 {
		return nil
	}
	err := &Error{Op: op, Code: Code(e.code), Message: C.GoString(e.message)}
	if e.status != nil {
		C.tfb_status_delete(e.status)
	}
	return err
}

// goBytes copies a buffer's bytes, which may be more than the 2 GiB that C.GoBytes takes.
func goBytes(b *C.TF_Buffer) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(b.data), int(b.length)))
}

// takeBuffer copies a buffer's bytes and deletes it.
func takeBuffer(b *C.TF_Buffer) []byte {
	defer C.tfb_buffer_delete(b)
	return goBytes(b)
}

func bytesPtr(b []byte) (unsafe.Pointer, C.size_t) {
	return unsafe.Pointer(unsafe.SliceData(b)), C.size_t(len(b))
}

func cDims(shape Shape) *C.int64_t {
	return (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(shape)))
}

func capiLoad(path string) error {
	message := make([]byte, 4096)
	p := (*C.char)(unsafe.Pointer(unsafe.SliceData(message)))
	if C.tfb_load(cstr(path), p, C.size_t(len(message))) == 0 {
		return nil
	}
	return errors.New(C.GoString(p))
}

func capiVersion() string { return C.GoString(C.tfb_version()) }

func capiLibraryPath() string { return C.GoString(C.tfb_library_path()) }

func capiSetOnStack() int { return int(C.tfb_set_onstack()) }

func capiTrim() { _ = C.tfb_trim() }

func capiLimitArenas(n int) { C.tfb_limit_arenas(C.int(n)) }

// ---- tensors ----

func capiTensorNew(dtype DataType, shape Shape, data unsafe.Pointer, length int) tensorPtr {
	return C.tfb_tensor_new(C.int(dtype), cDims(shape), C.int(len(shape)), data, C.size_t(length))
}

func capiStringTensorNew(shape Shape, values []string) tensorPtr {
	var blob []byte
	lengths := make([]C.uint64_t, len(values))
	for i, v := range values {
		blob = append(blob, v...)
		lengths[i] = C.uint64_t(len(v))
	}
	return C.tfb_string_tensor_new(cDims(shape), C.int(len(shape)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(blob))), unsafe.SliceData(lengths),
		C.size_t(len(values)))
}

func capiTensorDelete(t tensorPtr) { C.tfb_tensor_delete(t) }

func capiTensorInspect(t tensorPtr) (dtype DataType, shape Shape, data unsafe.Pointer, length int) {
	var info C.tfb_tensor_info
	C.tfb_tensor_inspect(t, &info)
	shape = make(Shape, int(info.num_dims))
	C.tfb_tensor_dims(t, cDims(shape), info.num_dims)
	return DataType(info.dtype), shape, info.data, int(info.length)
}

func capiStrings(data unsafe.Pointer, n int) []string {
	if n == 0 {
		return []string{}
	}
	strings := (*C.TF_TString)(data)
	lengths := make([]C.uint64_t, n)
	C.tfb_string_lengths(strings, unsafe.SliceData(lengths), C.size_t(n))
	total := 0
	for _, l := range lengths {
		total += int(l)
	}
	blob := make([]byte, total)
	C.tfb_string_copy(strings, (*C.char)(unsafe.Pointer(unsafe.SliceData(blob))), C.size_t(n))
	values := make([]string, n)
	for i, l := range lengths {
		values[i] = string(blob[:l])
		blob = blob[l:]
	}
	return values
}

// ---- graphs ----

func capiGraphNew() graphPtr { return C.tfb_graph_new() }

func capiGraphDelete(g graphPtr) { C.tfb_graph_delete(g) }

func capiGraphAdd(g graphPtr, typ, name, device string, inputs []inputValue,
	controls []operationPtr, attrs []attrValue) (operationPtr, error) {
	var outputs []output
	lists := make([]C.tfb_input_list, len(inputs))
	for i, in := range inputs {
		lists[i] = C.tfb_input_list{first: C.int(len(outputs)), count: C.int(len(in.outputs))}
		if in.list {
			lists[i].is_list = 1
		}
		outputs = append(outputs, in.outputs...)
	}
	var protos []byte
	var tensors []tensorPtr
	// The names are C's memory because the attributes that point to them are passed by pointer.
	cattrs := make([]C.tfb_attr, len(attrs))
	for i, a := range attrs {
		cattrs[i] = C.tfb_attr{name: C.CString(a.name), first: -1}
		defer C.free(unsafe.Pointer(cattrs[i].name))
		if a.proto != nil {
			cattrs[i].proto_offset = C.size_t(len(protos))
			cattrs[i].proto_length = C.size_t(len(a.proto))
			protos = append(protos, a.proto...)
			continue
		}
		cattrs[i].first = C.int(len(tensors))
		cattrs[i].count = C.int(len(a.tensors))
		if a.list {
			cattrs[i].is_list = 1
		}
		tensors = append(tensors, a.tensors...)
	}
	var result operationPtr
	err := take("add operation "+name, C.tfb_graph_add(g, cstr(typ), cstr(name), cstr(device),
		unsafe.SliceData(outputs), unsafe.SliceData(lists), C.int(len(lists)),
		unsafe.SliceData(controls), C.int(len(controls)),
		unsafe.SliceData(cattrs), C.int(len(cattrs)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(protos))), unsafe.SliceData(tensors), &result))
	return result, err
}

func capiGraphOperation(g graphPtr, name string) operationPtr {
	return C.tfb_graph_operation(g, cstr(name))
}

func capiGraphNext(g graphPtr, pos *uint64) operationPtr {
	p := C.size_t(*pos)
	op := C.tfb_graph_next(g, &p)
	*pos = uint64(p)
	return op
}

func capiOperation(op operationPtr) (name, typ, device string, outputs int) {
	return C.GoString(C.tfb_operation_name(op)), C.GoString(C.tfb_operation_type(op)),
		C.GoString(C.tfb_operation_device(op)), int(C.tfb_operation_num_outputs(op))
}

func capiOutputType(o output) DataType {
	return DataType(C.tfb_output_type(o.oper, o.index))
}

// maxRank is the largest number of dimensions of a TensorFlow shape (kMaxTensorDims is 254).
const maxRank = 254

func capiOutputShape(g graphPtr, o output) (shape Shape, known bool, err error) {
	var dims [maxRank]C.int64_t
	var n C.int
	err = take("shape of output", C.tfb_output_shape(g, o.oper, o.index, &dims[0], maxRank, &n))
	if err != nil || n < 0 {
		return nil, false, err
	}
	shape = make(Shape, int(n))
	for i := range shape {
		shape[i] = int64(dims[i])
	}
	return shape, true, nil
}

func capiGraphExport(g graphPtr) ([]byte, error) {
	var b *C.TF_Buffer
	if err := take("export graph", C.tfb_graph_export(g, &b)); err != nil {
		return nil, err
	}
	return takeBuffer(b), nil
}

func capiGraphImport(g graphPtr, def []byte, prefix, device string) error {
	p, n := bytesPtr(def)
	return take("import graph", C.tfb_graph_import(g, p, n, cstr(prefix), cstr(device)))
}

// ---- sessions ----

func capiSessionNew(g graphPtr, target string, config []byte) (sessionPtr, error) {
	var s sessionPtr
	p, n := bytesPtr(config)
	err := take("new session", C.tfb_session_new(g, cstr(target), p, n, &s))
	return s, err
}

func capiSessionLoad(g graphPtr, dir string, tags []string, target string, config []byte) (sessionPtr, error) {
	ctags := make([]*C.char, len(tags))
	for i, tag := range tags {
		ctags[i] = C.CString(tag)
		defer C.free(unsafe.Pointer(ctags[i]))
	}
	var s sessionPtr
	p, n := bytesPtr(config)
	err := take("load "+dir, C.tfb_session_load(g, cstr(dir), unsafe.SliceData(ctags),
		C.int(len(ctags)), cstr(target), p, n, &s))
	return s, err
}

func capiSessionClose(s sessionPtr) error { return take("close session", C.tfb_session_close(s)) }

func capiSessionDelete(s sessionPtr) error { return take("delete session", C.tfb_session_delete(s)) }

func capiSessionRun(s sessionPtr, options []byte, feeds []output, values []tensorPtr,
	fetches []output, targets []operationPtr, wantMetadata bool) ([]tensorPtr, []byte, error) {
	if len(feeds) > math.MaxInt32 || len(fetches) > math.MaxInt32 || len(targets) > math.MaxInt32 {
		return nil, nil, errors.New("too many feeds, fetches or targets")
	}
	results := make([]tensorPtr, len(fetches))
	var metadata **C.TF_Buffer
	if wantMetadata {
		metadata = new(*C.TF_Buffer)
	}
	p, n := bytesPtr(options)
	err := take("run session", C.tfb_session_run(s.session, p, n,
		unsafe.SliceData(feeds), unsafe.SliceData(values), C.int(len(feeds)),
		unsafe.SliceData(fetches), unsafe.SliceData(results), C.int(len(fetches)),
		unsafe.SliceData(targets), C.int(len(targets)), metadata))
	if err != nil {
		return nil, nil, err
	}
	if metadata == nil {
		return results, nil, nil
	}
	return results, takeBuffer(*metadata), nil
}

func capiSessionDevices(s sessionPtr) ([]Device, error) {
	var list *C.TF_DeviceList
	var count C.int
	if err := take("list devices", C.tfb_session_devices(s.session, &list, &count)); err != nil {
		return nil, err
	}
	defer C.tfb_devices_delete(list)
	devices := make([]Device, int(count))
	for i := range devices {
		var name, typ *C.char
		var memory C.int64_t
		if err := take("list devices", C.tfb_device(list, C.int(i), &name, &typ, &memory)); err != nil {
			return nil, err
		}
		devices[i] = Device{Name: C.GoString(name), Type: C.GoString(typ), MemoryLimit: int64(memory)}
	}
	return devices, nil
}

// ---- the library ----

func capiOpList() ([]byte, error) {
	var b *C.TF_Buffer
	if err := take("list operations", C.tfb_op_list(&b)); err != nil {
		return nil, err
	}
	return takeBuffer(b), nil
}

func capiLoadLibrary(path string) ([]byte, error) {
	var library *C.TF_Library
	var ops C.TF_Buffer
	if err := take("load library "+path, C.tfb_load_library(cstr(path), &library, &ops)); err != nil {
		return nil, err
	}
	defer C.tfb_library_delete(library)
	return goBytes(&ops), nil
}

func capiLogRegister() bool { return C.tfb_log_register() != 0 }

//export tfbLogLine
func tfbLogLine(line *C.char) { logLine(C.GoString(line)) }
