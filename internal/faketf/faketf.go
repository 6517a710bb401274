//go:build cgo && unix

package faketf

/*
#cgo CFLAGS: -I${SRCDIR}/testdata
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include "faketf.h"

static const faketf_api* find(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  return library != NULL ? dlsym(library, "faketf") : NULL;
}

static faketf_live live(const faketf_api* f) { return f->live(); }
static void fail(const faketf_api* f, long n, int code) { f->fail(n, code); }
static void fail_allocation(const faketf_api* f, long n) { f->fail_allocation(n); }
static const char* fired(const faketf_api* f) { return f->fired(); }
static void hold(const faketf_api* f, const char* function) { f->hold(function); }
static void release(const faketf_api* f) { f->release(); }
static int held(const faketf_api* f) { return f->held(); }
static int most_runs(const faketf_api* f) { return f->most_runs(); }
static void take_signals(const faketf_api* f) { f->take_signals(); }

#define NAME(function) #function,
static const char* fallible(size_t i) {
  static const char* const names[] = {FAKETF_FALLIBLE(NAME)};
  return i < sizeof names / sizeof *names ? names[i] : NULL;
}
*/
import "C"

import "unsafe"

// Library steers a fake library that is loaded.
type Library struct{ api *C.faketf_api }

// Find returns the library at path. ok reports whether that library is loaded.
func Find(path string) (l Library, ok bool) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	l.api = C.find(p)
	return l, l.api != nil
}

// Live counts the objects and bytes that the library has allocated and not freed.
type Live struct {
	Statuses, Buffers, Tensors, Graphs, Operations, Options, Sessions, DeviceLists, Libraries int64
	Bytes                                                                                     int64
}

// Live returns what is alive now.
func (l Library) Live() Live {
	c := C.live(l.api)
	n := func(kind int) int64 { return int64(c.objects[kind]) }
	return Live{
		Statuses: n(C.FAKETF_STATUS), Buffers: n(C.FAKETF_BUFFER), Tensors: n(C.FAKETF_TENSOR),
		Graphs: n(C.FAKETF_GRAPH), Operations: n(C.FAKETF_OPERATION), Options: n(C.FAKETF_OPTIONS),
		Sessions: n(C.FAKETF_SESSION), DeviceLists: n(C.FAKETF_DEVICES), Libraries: n(C.FAKETF_LIBRARY),
		Bytes: int64(c.bytes),
	}
}

// Fail makes the n-th call from now on fail, counted from 1, of those that can fail: with the code if it has a
// status. With 0, none fails.
func (l Library) Fail(n, code int) { C.fail(l.api, C.long(n), C.int(code)) }

// FailAllocation makes the n-th allocation from now on fail.
func (l Library) FailAllocation(n int) { C.fail_allocation(l.api, C.long(n)) }

// Fired returns the name of the function that failed since the last Fail, or "" if none did.
func (l Library) Fired() string {
	name := C.fired(l.api)
	if name == nil {
		return ""
	}
	return C.GoString(name)
}

// Hold makes calls of a function wait until Release.
func (l Library) Hold(function string) {
	name := C.CString(function)
	defer C.free(unsafe.Pointer(name))
	C.hold(l.api, name)
}

// Release ends the Hold.
func (l Library) Release() { C.release(l.api) }

// Held counts the calls that wait.
func (l Library) Held() int { return int(C.held(l.api)) }

// MostRuns returns the most runs at once since the last MostRuns.
func (l Library) MostRuns() int { return int(C.most_runs(l.api)) }

// TakeSignals installs handlers of SIGINT and SIGTERM such as a C++ runtime's.
func (l Library) TakeSignals() { C.take_signals(l.api) }

// Fallible names the functions that can fail.
func Fallible() (names []string) {
	for {
		name := C.fallible(C.size_t(len(names)))
		if name == nil {
			return names
		}
		names = append(names, C.GoString(name))
	}
}
