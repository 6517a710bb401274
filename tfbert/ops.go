package tfbert

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/tfbert/go/internal/probe"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// The operations that a fused graph is made of.
const (
	oneDNNOps = "onednn" // for a CPU, of a TensorFlow that is built with oneDNN
	directOps = "direct" // the same by the names of their kernels, for a CPU on which TensorFlow does not choose them
	plainOps  = "plain"  // of every TensorFlow: for a GPU, where XLA fuses them, and for a CPU without oneDNN
)

// plainMatMul is matMul, with an operation for each step.
func (b *fused) plainMatMul(name string, x, w tf.Output, transposed bool, ops []string, args []tf.Output) tf.Output {
	x = b.op("MatMul", name, attrs{"transpose_b": transposed}, x, w)
	for _, op := range ops {
		switch op {
		case "BiasAdd":
			x = b.op("BiasAdd", name+"/BiasAdd", nil, x, args[0])
		case "Add":
			x = b.op("AddV2", name+"/add", nil, x, args[1])
		default:
			x = b.activation(name, b.config.activation(), x)
		}
	}
	return x
}

// plainLayerNorm computes in float32, whose sums of squares do not overflow.
func (b *fused) plainLayerNorm(scope string, x tf.Output) tf.Output {
	dtype := x.DataType()
	x = b.graphBuilder.layerNorm(scope, b.cast(scope+"/input", x, tf.Float), 1, func(_, variable string) tf.Output {
		return b.weight(variable, tf.Float, int64(b.config.HiddenSize))
	})
	return b.cast(scope+"/output", x, dtype)
}

// chooseOps returns the operations for a fused graph. What the library has for a CPU is found by
// running it: a library may know an operation and have no kernel for it.
func chooseOps(device string, p savedmodel.Precision) string {
	switch {
	case device == GPU || p == savedmodel.FP16:
		return plainOps
	case p == savedmodel.INT8 || probeOneDNN(oneDNNOps, dtypes[p]) == nil:
		return oneDNNOps
	case p == savedmodel.FP32 && !oneDNNIsOff() && probeOneDNN(directOps, tf.Float) == nil:
		return directOps
	}
	return plainOps
}

// oneDNNIsOff reports whether the user has turned oneDNN off. TensorFlow itself leaves it off on some CPUs.
func oneDNNIsOff() bool {
	on, err := strconv.ParseBool(os.Getenv("TF_ENABLE_ONEDNN_OPTS"))
	return err == nil && !on
}

// probeOneDNN runs one of each of oneDNN's operations, and returns an error if it cannot.
func probeOneDNN(ops string, dtype tf.DataType) (err error) {
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	b := &fused{
		graphBuilder: graphBuilder{tf.Builder{Graph: g}, &Config{HiddenSize: 2}}, weights: zeros{},
		dtype: dtype, ops: ops,
	}
	x := b.weight("x", dtype, 2, 2)
	y := b.layerNorm("norm", b.dense("add", x, 2, 2, "Add", x))
	for _, activation := range fusedActivation {
		y = b.dense(activation, y, 2, 2, activation)
	}
	y = b.reshape("heads", y, static(1), static(1), static(2), static(2))
	y = b.context("context", y, y, y, y)
	return b.withSession(func(session *tf.Session, constants []tf.Feed) error {
		out, _, err := session.Run(context.Background(), constants, []tf.Output{y}, nil)
		tf.CloseAll(out)
		return err
	})
}

// withSession runs use with a session of a graph that is not written, and with feeds of its constants.
func (b *fused) withSession(use func(session *tf.Session, constants []tf.Feed) error) (err error) {
	if b.Err != nil {
		return b.Err
	}
	session, err := probe.NewSession(b.Graph)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	constants, err := constantFeeds(b.Graph, b.constants)
	defer func() { closeFeeds(&err, constants) }()
	if err != nil {
		return err
	}
	return use(session, constants)
}

// zeros are the weights of the probe, each of at most four values.
type zeros struct{}

func (zeros) Float32s(string) ([]float32, error) { return make([]float32, 4), nil }

// constantFeeds returns feeds of constants into their placeholders, to run a graph that is not written.
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
