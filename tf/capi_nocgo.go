//go:build !cgo || !unix

package tf

import (
	"errors"
	"unsafe"
)

// Without cgo, or on a system without dlopen, the package compiles and Load returns this error. The other
// functions are never reached, because no handle exists before Load has succeeded.
var errNoCgo = errors.New("this binary was built without cgo: build it with CGO_ENABLED=1 and a C compiler, on Linux")

type (
	tensorPtr    = unsafe.Pointer
	graphPtr     = unsafe.Pointer
	operationPtr = unsafe.Pointer
	sessionPtr   = unsafe.Pointer
	output       struct{}
)

func newOutput(operationPtr, int) output { return output{} }

func capiLoad(string) error   { return errNoCgo }
func capiVersion() string     { return "" }
func capiLibraryPath() string { return "" }
func capiSetOnStack() int     { return 0 }
func capiTrim()               {}
func capiLimitArenas(int)     {}

func capiTensorNew(DataType, Shape, unsafe.Pointer, int) tensorPtr { return nil }
func capiStringTensorNew(Shape, []string) tensorPtr                { return nil }
func capiTensorDelete(tensorPtr)                                   {}
func capiTensorInspect(tensorPtr) (DataType, Shape, unsafe.Pointer, int) {
	return 0, nil, nil, 0
}
func capiStrings(unsafe.Pointer, int) []string { return nil }

func capiGraphNew() graphPtr   { return nil }
func capiGraphDelete(graphPtr) {}
func capiGraphAdd(graphPtr, string, string, string, []inputValue, []operationPtr, []attrValue) (operationPtr, error) {
	return nil, errNoCgo
}
func capiGraphOperation(graphPtr, string) operationPtr            { return nil }
func capiGraphNext(graphPtr, *uint64) operationPtr                { return nil }
func capiOperation(operationPtr) (string, string, string, int)    { return "", "", "", 0 }
func capiOutputType(output) DataType                              { return 0 }
func capiOutputShape(graphPtr, output) (Shape, bool, error)       { return nil, false, errNoCgo }
func capiGraphExport(graphPtr) ([]byte, error)                    { return nil, errNoCgo }
func capiGraphImport(graphPtr, []byte, string, string) error      { return errNoCgo }
func capiSessionNew(graphPtr, string, []byte) (sessionPtr, error) { return nil, errNoCgo }
func capiSessionLoad(graphPtr, string, []string, string, []byte) (sessionPtr, error) {
	return nil, errNoCgo
}
func capiSessionClose(sessionPtr) error  { return errNoCgo }
func capiSessionDelete(sessionPtr) error { return errNoCgo }
func capiSessionRun(
	sessionPtr, []byte, []output, []tensorPtr, []output, []operationPtr, bool,
) ([]tensorPtr, []byte, error) {
	return nil, nil, errNoCgo
}
func capiSessionDevices(sessionPtr) ([]Device, error) { return nil, errNoCgo }

func capiOpList() ([]byte, error)            { return nil, errNoCgo }
func capiLoadLibrary(string) ([]byte, error) { return nil, errNoCgo }
func capiLogRegister() bool                  { return false }
