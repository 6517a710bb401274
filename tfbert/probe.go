package tfbert

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
// multiple of its time in float32. The name of a CPU's extension does not tell: with AMX a product
// takes a fraction of the time, while some with AVX512-BF16 alone take longer than in float32. It
// takes some hundredths of a second; TensorFlow is loaded.
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
	b := &graphBuilder{tf.Builder{Graph: g}}
	input := b.op("Placeholder", "x", attrs{"dtype": tf.TypeOf[T]()})
	product := b.op("MatMul", "product", nil, input, tf.AddConst(&b.Builder, "weights", matrix(weights), weights...))
	if b.Err != nil {
		return 0, b.Err
	}
	session, err := newPlainSession(g)
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
		out, _, err := session.Run(context.Background(), []tf.Feed{{Output: input, Tensor: t}}, []tf.Output{product}, nil)
		if err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
		tf.CloseAll(out)
	}
	return slices.Min(times), nil
}

// newPlainSession makes a session that runs a graph as it is.
func newPlainSession(g *tf.Graph) (*tf.Session, error) {
	config, err := (&savedmodel.Config{NoGrappler: true}).Bytes()
	if err != nil {
		return nil, err
	}
	return tf.NewSession(g, &tf.SessionOptions{Config: config})
}

// chooseOps returns the operations for a fused graph. What the library has for a CPU is found by
// running it: a library may know an operation and have no kernel for it.
func chooseOps(device string, p savedmodel.Precision) string {
	if device == GPU || p == savedmodel.FP16 || probeOneDNN(dtypes[p]) != nil {
		return PlainOps
	}
	return OneDNNOps
}

// probeOneDNN runs one of each of oneDNN's operations, and returns an error if it cannot.
func probeOneDNN(dtype tf.DataType) (err error) {
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	b := &fused{graphBuilder: graphBuilder{tf.Builder{Graph: g}}, config: &Config{HiddenSize: 2}, dtype: dtype, weights: zeros{}}
	x := b.weight("x", dtype, 2, 2)
	y := b.layerNorm("norm", b.dense("add", x, 2, 2, "Add", x))
	for _, activation := range fusedActivation {
		y = b.dense(activation, y, 2, 2, activation)
	}
	y = b.reshape("heads", y, static(1), static(1), static(2), static(2))
	y = b.scores("scores", y, y, y)
	if b.Err != nil {
		return b.Err
	}
	session, err := newPlainSession(g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	feeds, err := constantFeeds(g, b.constants)
	defer func() {
		for _, f := range feeds {
			err = errors.Join(err, f.Tensor.Close())
		}
	}()
	if err != nil {
		return err
	}
	out, _, err := session.Run(context.Background(), feeds, []tf.Output{y}, nil)
	tf.CloseAll(out)
	return err
}

// zeros are weights of the probe, none of which is over four values.
type zeros struct{}

func (zeros) Float32s(string) ([]float32, error) { return make([]float32, 4), nil }

// constantFeeds returns the placeholders of constants their values, to run a graph that is not written.
func constantFeeds(g *tf.Graph, constants []savedmodel.Constant) (feeds []tf.Feed, err error) {
	for _, c := range constants {
		data, err := c.Data()
		if err != nil {
			return feeds, err
		}
		n, _ := c.Shape.NumElements()
		t, err := tf.NewTensorFromBytes(c.DType, c.Shape, data[:int(n)*c.DType.Size()])
		if err != nil {
			return feeds, err
		}
		output, err := g.Output(c.Name)
		if err != nil {
			return feeds, errors.Join(err, t.Close())
		}
		feeds = append(feeds, tf.Feed{Output: output, Tensor: t})
	}
	return feeds, nil
}
