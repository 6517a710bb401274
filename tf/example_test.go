package tf_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// A graph is built from operations, given by type and attributes, and run in a session.
func Example() {
	if err := tf.Load(""); err != nil {
		log.Fatal(err)
	}
	g, err := tf.NewGraph()
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()

	b := tf.Builder{Graph: g}
	a := tf.AddConst[int32](&b, "a", tf.Shape{2, 2}, 1, 2, -1, -2)
	x := tf.AddConst[int32](&b, "x", tf.Shape{2, 1}, 10, 100)
	c := tf.AddConst[int32](&b, "c", tf.Shape{2, 1}, -10, 10)
	y := b.Add(tf.OpSpec{Type: "MatMul", Inputs: []tf.Input{a, x}})
	y = b.Add(tf.OpSpec{Type: "AddV2", Inputs: []tf.Input{y, c}})
	if b.Err != nil {
		log.Fatal(b.Err)
	}

	s, err := tf.NewSession(g, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	out, _, err := s.Run(context.Background(), nil, []tf.Output{y}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer out[0].Close()
	values, err := tf.Values[int32](out[0])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(out[0].Shape(), values) // [2,1] [200 -200]
}

// A SavedModel is loaded by its tags, and its operations are found by name.
func ExampleLoadSession() {
	dir := halfPlusTwo()
	defer os.RemoveAll(dir)

	if err := tf.Load(""); err != nil {
		log.Fatal(err)
	}
	s, err := tf.LoadSession(dir, []string{"serve"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	x, err := s.Graph().Output("x:0")
	if err != nil {
		log.Fatal(err)
	}
	y, err := s.Graph().Output("y:0")
	if err != nil {
		log.Fatal(err)
	}

	in, err := tf.NewTensor(tf.Shape{3, 1}, []float32{1, 2, 10})
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	out, _, err := s.Run(context.Background(), []tf.Feed{{Output: x, Tensor: in}}, []tf.Output{y}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer out[0].Close()
	values, err := tf.Values[float32](out[0])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(values) // [2.5 3 7]
}

// The same by signature: package savedmodel looks the names up, checks types and shapes, and makes
// the session's configuration.
func ExampleLoadSession_signature() {
	dir := halfPlusTwo()
	defer os.RemoveAll(dir)

	m, err := savedmodel.Load(dir, &savedmodel.Options{Config: savedmodel.Config{IntraOpThreads: 1}})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	half, err := m.Func("serving_default", []string{"x"}, []string{"y"})
	if err != nil {
		log.Fatal(err)
	}

	in, err := tf.NewTensor(tf.Shape{3, 1}, []float32{1, 2, 10})
	if err != nil {
		log.Fatal(err)
	}
	defer in.Close()
	out, err := half.Run(context.Background(), in)
	if err != nil {
		log.Fatal(err)
	}
	defer out[0].Close()
	values, err := tf.Values[float32](out[0])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(values) // [2.5 3 7]
}

// Strings are elements like any others; they may hold any bytes.
func ExampleNewTensor_strings() {
	if err := tf.Load(""); err != nil {
		log.Fatal(err)
	}
	t, err := tf.NewTensor(tf.Shape{2, 2}, []string{"a", "", "c", "\xff\x00"})
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	values, err := tf.Values[string](t)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v %v %q\n", t.DataType(), t.Shape(), values) // string [2,2] ["a" "" "c" "\xff\x00"]
}

// TensorFlow's own errors have a code.
func ExampleErrCode() {
	dir := halfPlusTwo()
	defer os.RemoveAll(dir)

	_, err := tf.LoadSession(dir, []string{"train"}, nil)
	fmt.Println(tf.ErrCode(err) == tf.NotFound) // true
}

// A graph goes into another one by way of a serialized GraphDef.
func ExampleGraph_Import() {
	if err := tf.Load(""); err != nil {
		log.Fatal(err)
	}
	from, err := tf.NewGraph()
	if err != nil {
		log.Fatal(err)
	}
	defer from.Close()
	if _, err := from.AddOperation(tf.OpSpec{
		Type: "Placeholder", Name: "x", Attrs: map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{-1, 2}},
	}); err != nil {
		log.Fatal(err)
	}
	def, err := from.GraphDef()
	if err != nil {
		log.Fatal(err)
	}

	to, err := tf.NewGraph()
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	if err := to.Import(def, &tf.ImportOptions{Prefix: "model"}); err != nil {
		log.Fatal(err)
	}
	x, err := to.Output("model/x:0")
	if err != nil {
		log.Fatal(err)
	}
	shape, _, err := x.Shape()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(x, x.DataType(), shape) // model/x:0 float32 [?,2]
}

// The examples need a library, and so a test runs them.
func TestExamples(t *testing.T) {
	loadLibrary(t)
	for _, tt := range []struct {
		name    string
		example func()
		want    string
	}{
		{"Example", Example, `[2,1] [200 -200]`},
		{"ExampleLoadSession", ExampleLoadSession, `[2.5 3 7]`},
		{"ExampleLoadSession_signature", ExampleLoadSession_signature, `[2.5 3 7]`},
		{"ExampleNewTensor_strings", ExampleNewTensor_strings, `string [2,2] ["a" "" "c" "\xff\x00"]`},
		{"ExampleErrCode", ExampleErrCode, `true`},
		{"ExampleGraph_Import", ExampleGraph_Import, `model/x:0 float32 [?,2]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want+"\n", testenv.Stdout(t, tt.example))
		})
	}
}

// halfPlusTwo writes a SavedModel that maps x to x/2 + 2.
func halfPlusTwo() (dir string) {
	if err := tf.Load(""); err != nil {
		log.Fatal(err)
	}
	g, err := tf.NewGraph()
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	b := tf.Builder{Graph: g}
	x := b.Add(tf.OpSpec{Type: "Placeholder", Name: "x",
		Attrs: map[string]tf.Attr{"dtype": tf.Float, "shape": tf.Shape{-1, 1}}})
	y := b.Add(tf.OpSpec{Type: "Mul", Inputs: []tf.Input{x, tf.AddConst[float32](&b, "a", nil, 0.5)}})
	b.Add(tf.OpSpec{Type: "AddV2", Name: "y", Inputs: []tf.Input{y, tf.AddConst[float32](&b, "b", nil, 2)}})
	if b.Err != nil {
		log.Fatal(b.Err)
	}
	if dir, err = os.MkdirTemp("", "half_plus_two-*"); err != nil {
		log.Fatal(err)
	}
	if err := savedmodel.Write(dir, savedmodel.Content{Graph: g, Signatures: []savedmodel.Signature{{
		Key:     savedmodel.DefaultSignature,
		Inputs:  []savedmodel.TensorInfo{{Key: "x", Name: "x:0"}},
		Outputs: []savedmodel.TensorInfo{{Key: "y", Name: "y:0"}},
	}}}); err != nil {
		log.Fatal(err)
	}
	return dir
}
