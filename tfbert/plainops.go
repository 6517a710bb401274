package tfbert

import (
	"errors"
	"fmt"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// The operations that a fused graph is made of.
const (
	// OneDNNOps are those of a TensorFlow that is built with oneDNN, for a CPU.
	OneDNNOps = "onednn"
	// PlainOps are those that every TensorFlow has: for a GPU, where XLA fuses them, and for a CPU
	// without oneDNN.
	PlainOps = "plain"
)

// The devices that Export writes for.
const (
	CPU = "cpu"
	GPU = "gpu"
)

// plainMatMul is matMul in operations of their own.
func (b *fused) plainMatMul(name string, x, w tf.Output, transposed bool, ops []string, args []tf.Output) tf.Output {
	x = b.op("MatMul", name, attrs{"transpose_b": transposed}, x, w)
	for _, op := range ops {
		switch op {
		case "BiasAdd":
			x = b.op("BiasAdd", name+"/BiasAdd", nil, x, args[0])
		case "Add":
			x = b.op("AddV2", name+"/add", nil, x, args[1])
		default:
			x = b.activation(name, b.config.HiddenAct, x)
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

// checkPrecision returns an error if a graph cannot be written in a precision for a device.
func checkPrecision(graph, device string, p savedmodel.Precision) error {
	switch {
	case graph != ReferenceGraph && graph != FusedGraph:
		return fmt.Errorf("unknown graph %q: it is %s or %s", graph, ReferenceGraph, FusedGraph)
	case device != "" && device != CPU && device != GPU:
		return fmt.Errorf("unknown device %q: it is %s or %s", device, CPU, GPU)
	case graph == ReferenceGraph && p != savedmodel.FP32:
		return fmt.Errorf("the reference graph is written in fp32, not %v: choose the fused graph", p)
	case dtypes[p] == 0:
		return fmt.Errorf("unknown precision: %v", p)
	case p == savedmodel.FP16 && device == CPU:
		return errors.New("fp16 is for GPUs: choose bf16 or fp32 for a CPU")
	}
	return nil
}
