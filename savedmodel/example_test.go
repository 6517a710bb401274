package savedmodel_test

import (
	"context"
	"fmt"
	"log"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

func Example() {
	m, err := savedmodel.Load("half_plus_two/00000123", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	f, err := m.Func("serving_default", []string{"x"}, []string{"y"})
	if err != nil {
		log.Fatal(err)
	}
	x, err := tf.NewTensor(tf.Shape{2, 1}, []float32{2, 4})
	if err != nil {
		log.Fatal(err)
	}
	defer x.Close()
	out, err := f.Run(context.Background(), x)
	if err != nil {
		log.Fatal(err)
	}
	defer out[0].Close()
	y, err := tf.Values[float32](out[0])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(y)
}

func ExampleInspect() {
	info, err := savedmodel.Inspect("half_plus_two/00000123")
	if err != nil {
		log.Fatal(err)
	}
	m, err := info.MetaGraph([]string{savedmodel.ServeTag})
	if err != nil {
		log.Fatal(err)
	}
	s, err := m.Signature(savedmodel.DefaultSignature)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.TensorFlowVersion, s.Inputs, s.Outputs)
}

// The examples need a model, and the first one TensorFlow.
func TestExamples(t *testing.T) {
	models := foreignModel(t)
	t.Chdir(models)
	assert.Equal(t, "1.14.0 [x float32 [?,1]] [y float32 [?,1]]\n", testenv.Stdout(t, ExampleInspect))
	testenv.TensorFlow(t)
	assert.Equal(t, "[3 4]\n", testenv.Stdout(t, Example))
}
