// Package probe measures what TensorFlow does with a small graph on this machine.
package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// BFloat16Cost returns the time of a matrix product of BERT-Base's size in bfloat16 on this CPU as a
// multiple of its time in float32. The names of a CPU's extensions do not tell it: with AMX a product
// takes a fraction of the time, while some CPUs that have only AVX512-BF16 take longer than in float32.
// The measurement takes some hundredths of a second. TensorFlow must be loaded.
func BFloat16Cost() (float64, error) {
	const rows, width = 256, 768
	float, err := productTime(make([]float32, rows*width), make([]float32, width*width), width)
	if err != nil {
		return 0, err
	}
	bfloat, err := productTime(make([]tf.BFloat16, rows*width), make([]tf.BFloat16, width*width), width)
	if err != nil {
		return 0, err
	}
	return float64(bfloat) / float64(float), nil
}

// productTime times a product of x and constant weights, matrices of so many columns.
func productTime[T tf.Element](x, weights []T, columns int) (_ time.Duration, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("time of a product in %v: %w", tf.TypeOf[T](), err)
		}
	}()
	matrix := func(values []T) tf.Shape { return tf.Shape{int64(len(values) / columns), int64(columns)} }
	g, err := tf.NewGraph()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	b := &tf.Builder{Graph: g}
	input := b.Add(tf.OpSpec{Type: "Placeholder", Name: "x", Attrs: map[string]tf.Attr{"dtype": tf.TypeOf[T]()}})
	product := b.Add(tf.OpSpec{Type: "MatMul", Name: "product", Inputs: []tf.Input{
		input, tf.AddConst(b, "weights", matrix(weights), weights...),
	}})
	if b.Err != nil {
		return 0, b.Err
	}
	session, err := NewSession(g)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	t, err := tf.NewTensor(matrix(x), x)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	var times []time.Duration
	for range 8 { // the first ones prepare the weights
		start := time.Now()
		feeds := []tf.Feed{{Output: input, Tensor: t}}
		out, _, err := session.Run(context.Background(), feeds, []tf.Output{product}, nil)
		if err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
		tf.CloseAll(out)
	}
	return slices.Min(times), nil
}

// NewSession makes a session that runs a graph as it is, without TensorFlow's graph optimizers.
func NewSession(g *tf.Graph) (*tf.Session, error) {
	config, err := (&savedmodel.Config{NoGrappler: true}).Bytes()
	if err != nil {
		return nil, err
	}
	return tf.NewSession(g, &tf.SessionOptions{Config: config})
}
