package tf_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/tf"
)

// compileC builds a shared library from C source.
func compileC(t *testing.T, source string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	src, lib := filepath.Join(dir, "lib.c"), filepath.Join(dir, "lib.so")
	require.NoError(t, os.WriteFile(src, []byte(source), 0o644))
	out, err := exec.Command("cc", append([]string{"-shared", "-fPIC", "-o", lib, src}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return lib
}

func TestLoad(t *testing.T) {
	loadLibrary(t)
	assert.True(t, tf.Loaded())
	assert.Regexp(t, `^\d+\.\d+\.\d+`, tf.Version())
	assert.FileExists(t, tf.Path())
	require.NoError(t, tf.Load(""), "once is enough")
	require.NoError(t, tf.Load(testenv.TensorFlow(t)))
	require.ErrorContains(t, tf.Load("/other/libtensorflow.so"), "is loaded already")
}

// Load can succeed only once in a process, so its failures are watched in processes of their own.
func TestLoadErrors(t *testing.T) {
	wrong := compileC(t, "int x;")
	old := compileC(t, `const char* TF_Version(void) { return "1.0.1"; }`)
	text := filepath.Join(t.TempDir(), "text.so")
	require.NoError(t, os.WriteFile(text, []byte("not a library"), 0o644))
	for name, tc := range map[string]struct{ path, want string }{
		"missing": {"/nowhere/libtensorflow.so", "No such file"},
		"text":    {text, "file too short"},
		"wrong":   {wrong, "not a TensorFlow library: it has no TF_Version"},
		"too old": {old, "TensorFlow 1.0.1 lacks symbols that tfbert needs: TF_NewStatus"},
	} {
		t.Run(name, func(t *testing.T) {
			out := runTestAlone(t, "TestLoadHelper", "TFBERT_TEST_LOAD="+tc.path)
			assert.Contains(t, out, "load "+tc.path+": ")
			assert.Contains(t, out, tc.want)
		})
	}
}

func TestLoadHelper(t *testing.T) {
	path := os.Getenv("TFBERT_TEST_LOAD")
	if path == "" {
		t.Skip("helper of TestLoadErrors")
	}
	_, err := tf.NewGraph()
	require.ErrorIs(t, err, tf.ErrNotLoaded)
	_, err = tf.NewTensor(nil, []float32{1})
	require.ErrorIs(t, err, tf.ErrNotLoaded)
	_, err = tf.LoadSession("x", nil, nil)
	require.ErrorIs(t, err, tf.ErrNotLoaded)
	_, err = tf.OpList()
	require.ErrorIs(t, err, tf.ErrNotLoaded)
	assert.Empty(t, tf.Version())
	assert.Empty(t, tf.Path())
	err = tf.Load(path)
	require.Error(t, err)
	t.Log(err)
	assert.False(t, tf.Loaded())
}

func opNames(t *testing.T, list []byte) []string {
	t.Helper()
	p := &tfproto.OpList{}
	require.NoError(t, proto.Unmarshal(list, p))
	var names []string
	for _, op := range p.Op {
		names = append(names, op.Name)
	}
	return names
}

func TestOpList(t *testing.T) {
	loadLibrary(t)
	list, err := tf.OpList()
	require.NoError(t, err)
	names := opNames(t, list)
	assert.Contains(t, names, "MatMul")
	assert.Contains(t, names, "PrintV2")
}

func TestLoadLibrary(t *testing.T) {
	loadLibrary(t)
	list, err := tf.LoadLibrary(compileC(t, "int x;"))
	require.NoError(t, err)
	assert.Empty(t, opNames(t, list))
	_, err = tf.LoadLibrary("/nowhere/custom.so")
	require.Equal(t, tf.NotFound, tf.ErrCode(err), "%v", err)
}

func TestLoadLibraryRegisters(t *testing.T) {
	loadLibrary(t)
	realLibrary(t, "operations that can be registered")
	lib := compileC(t, `
		typedef struct B B;
		typedef struct S S;
		extern B* TF_NewOpDefinitionBuilder(const char*);
		extern void TF_OpDefinitionBuilderAddInput(B*, const char*);
		extern void TF_OpDefinitionBuilderAddOutput(B*, const char*);
		extern void TF_OpDefinitionBuilderSetShapeInferenceFunction(B*, void (*)(void*, S*));
		extern void TF_ShapeInferenceContextSetUnknownShape(void*, S*);
		extern void TF_RegisterOpDefinition(B*, S*);
		extern S* TF_NewStatus(void);
		extern void TF_DeleteStatus(S*);
		__attribute__((constructor)) static void addOperation(void) {
			B* b = TF_NewOpDefinitionBuilder("TfbertTestOp");
			TF_OpDefinitionBuilderAddInput(b, "x: float");
			TF_OpDefinitionBuilderAddOutput(b, "y: float");
			TF_OpDefinitionBuilderSetShapeInferenceFunction(b, TF_ShapeInferenceContextSetUnknownShape);
			S* s = TF_NewStatus();
			TF_RegisterOpDefinition(b, s);
			TF_DeleteStatus(s);
		}`,
		"-L"+filepath.Dir(tf.Path()), "-l:libtensorflow_framework.so.2")
	list, err := tf.LoadLibrary(lib)
	require.NoError(t, err)
	assert.Equal(t, []string{"TfbertTestOp"}, opNames(t, list))

	g := newGraph(t)
	x := addPlaceholder(t, g, "x", tf.Float)
	assert.Equal(t, tf.Float, addOperation(t, g, tf.OpSpec{Type: "TfbertTestOp", Inputs: []tf.Input{x}}).DataType())
}

// The C declarations are our own; they must be those of the library's headers.
func TestDeclarationsMatchHeaders(t *testing.T) {
	realLibrary(t, "headers")
	include := filepath.Join(filepath.Dir(testenv.TensorFlow(t)), "include")
	if _, err := os.Stat(filepath.Join(include, "tensorflow", "c", "c_api.h")); err != nil {
		testenv.Missing(t, "tensorflow", "the library stands without its headers: "+err.Error())
	}
	var source strings.Builder
	source.WriteString(`
		#include "tensorflow/c/c_api.h"
		#define TFBERT_REAL_HEADERS
		#include "capi.h"
		#define CHECK(result, name, params) result (*check_##name) params = name;
		TFB_REQUIRED(CHECK)
		TFB_OPTIONAL(CHECK)
		_Static_assert(sizeof(TF_TString) == 24, "TF_TString");
		_Static_assert(sizeof(TF_Output) == 16 && offsetof(TF_Output, index) == 8, "TF_Output");
		_Static_assert(sizeof(TF_Buffer) == 24 && offsetof(TF_Buffer, length) == 8 &&
		               offsetof(TF_Buffer, data_deallocator) == 16, "TF_Buffer");
		_Static_assert(TF_INTERNAL == 13 && TF_DATA_LOSS == 15 && TF_RESOURCE_EXHAUSTED == 8, "TF_Code");
	`)
	for name, dtype := range map[string]tf.DataType{
		"TF_FLOAT": tf.Float, "TF_DOUBLE": tf.Double, "TF_INT32": tf.Int32, "TF_UINT8": tf.Uint8,
		"TF_INT16": tf.Int16, "TF_INT8": tf.Int8, "TF_STRING": tf.String, "TF_COMPLEX64": tf.Complex64,
		"TF_INT64": tf.Int64, "TF_BOOL": tf.Bool, "TF_QINT8": tf.Qint8, "TF_QUINT8": tf.Quint8,
		"TF_QINT32": tf.Qint32, "TF_BFLOAT16": tf.Bfloat16, "TF_QINT16": tf.Qint16,
		"TF_QUINT16": tf.Quint16, "TF_UINT16": tf.Uint16, "TF_COMPLEX128": tf.Complex128,
		"TF_HALF": tf.Half, "TF_RESOURCE": tf.Resource, "TF_VARIANT": tf.Variant,
		"TF_UINT32": tf.Uint32, "TF_UINT64": tf.Uint64, "TF_FLOAT8_E5M2": tf.Float8E5M2,
		"TF_FLOAT8_E4M3FN": tf.Float8E4M3FN, "TF_INT4": tf.Int4, "TF_UINT4": tf.Uint4,
	} {
		source.WriteString("_Static_assert(" + name + " == " + strconv.Itoa(int(dtype)) + `, "` + name + "\");\n")
	}
	file := filepath.Join(t.TempDir(), "check.c")
	require.NoError(t, os.WriteFile(file, []byte(source.String()), 0o644))
	out, err := exec.Command("cc", "-std=gnu11", "-Wall", "-Werror", "-fsyntax-only", "-I", include, "-I", ".",
		file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TensorFlow's log becomes records; the process's own standard error is left alone.
func TestCaptureLogs(t *testing.T) {
	if tf.Loaded() { // too late: in a process of its own, then
		runTestAlone(t, "TestCaptureLogs")
		return
	}
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil))
	stop, err := tf.CaptureLogs(log)
	require.NoError(t, err)
	_, err = tf.CaptureLogs(log)
	require.ErrorContains(t, err, "has them already")
	g := newGraph(t)
	text := addConstant(t, g, tf.Shape{}, "printed by an operation")
	printed := addOperation(t, g, tf.OpSpec{Type: "PrintV2", Inputs: []tf.Input{text}, Attrs: map[string]tf.Attr{
		"output_stream": "log(info)"}})
	s := newSession(t, g)
	dir := writeModel(t)
	_, _, err = s.Run(t.Context(), nil, nil, &tf.RunOptions{Targets: []*tf.Operation{printed.Op}})
	require.NoError(t, err)
	loaded, err := tf.LoadSession(dir, []string{"serve"}, nil)
	require.NoError(t, err)
	require.NoError(t, loaded.Close())
	require.NoError(t, stop())
	require.NoError(t, stop(), "a second stop does nothing")
	logged := buf.String()
	assert.Regexp(t, `level=INFO msg="Reading SavedModel from: .*" source=.*reader.cc:\d+`, logged)
	assert.Contains(t, logged, `level=INFO msg="printed by an operation"`)

	loaded, err = tf.LoadSession(dir, []string{"serve"}, nil)
	require.NoError(t, err)
	require.NoError(t, loaded.Close())
	assert.Equal(t, logged, buf.String(), "nothing comes after stop")
}
