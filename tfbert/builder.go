package tfbert

import (
	"fmt"
	"math"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// The names of run_squad.py's signature (model_fn and serving_input_fn).
const (
	uniqueIDs   = "unique_ids"
	inputIDs    = "input_ids"
	inputMask   = "input_mask"
	segmentIDs  = "segment_ids"
	startLogits = "start_logits"
	endLogits   = "end_logits"
)

// graphBuilder builds the graphs of this package.
type graphBuilder struct {
	tf.Builder
	config *Config
}

// dim is the size of a dimension: a number, or a tensor if it is known only at run time.
type dim struct {
	size   int64
	tensor tf.Output
}

func static(n int) dim { return dim{size: int64(n)} }

type attrs = map[string]tf.Attr

func (b *graphBuilder) op(typ, name string, a attrs, inputs ...tf.Input) tf.Output {
	return b.Add(tf.OpSpec{Type: typ, Name: name, Inputs: inputs, Attrs: a})
}

func (b *graphBuilder) scalar(name string, v float64) tf.Output {
	return tf.AddConst(&b.Builder, name, nil, float32(v))
}

// scalarOf is scalar in a floating-point type.
func (b *graphBuilder) scalarOf(dtype tf.DataType, name string, v float64) tf.Output {
	switch dtype {
	case tf.Half:
		return tf.AddConst(&b.Builder, name, nil, roundFloat16(float32(v)))
	case tf.Bfloat16:
		return tf.AddConst(&b.Builder, name, nil, roundBFloat16(float32(v)))
	}
	return b.scalar(name, v)
}

func (b *graphBuilder) ints(name string, v ...int32) tf.Output {
	return tf.AddConst(&b.Builder, name, tf.Shape{int64(len(v))}, v...)
}

// shape returns a shape as a tensor: a constant if all of it is known.
func (b *graphBuilder) shape(name string, dims ...dim) tf.Output {
	sizes := make([]int32, len(dims))
	known := true
	for i, d := range dims {
		sizes[i] = int32(d.size)
		known = known && d.tensor.Op == nil
	}
	if known {
		return b.ints(name, sizes...)
	}
	parts := make(tf.OutputList, len(dims))
	for i, d := range dims {
		if parts[i] = d.tensor; d.tensor.Op == nil {
			parts[i] = tf.AddConst(&b.Builder, fmt.Sprintf("%s/%d", name, i), nil, sizes[i])
		}
	}
	return b.op("Pack", name, nil, parts)
}

// size returns one dimension of a tensor at run time.
func (b *graphBuilder) size(name string, x tf.Output, axis int32) dim {
	return dim{tensor: b.op("StridedSlice", name, attrs{"shrink_axis_mask": 1},
		b.op("Shape", name+"/Shape", nil, x),
		b.ints(name+"/stack", axis), b.ints(name+"/stack_1", axis+1), b.ints(name+"/stack_2", 1))}
}

func (b *graphBuilder) reshape(name string, x tf.Output, dims ...dim) tf.Output {
	return b.op("Reshape", name, nil, x, b.shape(name+"/shape", dims...))
}

func (b *graphBuilder) transpose(name string, x tf.Output, perm ...int32) tf.Output {
	return b.op("Transpose", name, nil, x, b.ints(name+"/perm", perm...))
}

// inputs adds the placeholders of run_squad.py's signature. A length of 0 leaves the sequence length
// dynamic.
func (b *graphBuilder) inputs(length int) (ids, mask, segments tf.Output, batch, seq dim) {
	shape := tf.Shape{-1, -1}
	if length > 0 {
		shape[1] = int64(length)
	}
	placeholder := func(name string, shape tf.Shape) tf.Output {
		return b.op("Placeholder", name, attrs{"dtype": tf.Int32, "shape": shape})
	}
	placeholder(uniqueIDs, tf.Shape{-1})
	ids, mask, segments = placeholder(inputIDs, shape), placeholder(inputMask, shape), placeholder(segmentIDs, shape)
	batch, seq = b.size("bert/batch_size", ids, 0), static(length)
	if length == 0 {
		seq = b.size("bert/seq_length", ids, 1)
	}
	return ids, mask, segments, batch, seq
}

// signature returns the signature, whose outputs are the computed logits.
func (b *graphBuilder) signature(start, end tf.Output) savedmodel.Signature {
	unique, ok := b.Graph.Operation(uniqueIDs)
	if !ok {
		return savedmodel.Signature{} // the builder has failed
	}
	info := func(key string, o tf.Output) savedmodel.TensorInfo {
		return savedmodel.TensorInfo{Key: key, Name: o.String()}
	}
	return savedmodel.Signature{
		Key: savedmodel.DefaultSignature,
		Inputs: []savedmodel.TensorInfo{
			{Key: uniqueIDs, Name: uniqueIDs}, {Key: inputIDs, Name: inputIDs},
			{Key: inputMask, Name: inputMask}, {Key: segmentIDs, Name: segmentIDs},
		},
		Outputs: []savedmodel.TensorInfo{
			info(uniqueIDs, b.op("Identity", "unique_ids/identity", nil, unique.Output(0))),
			info(startLogits, start), info(endLogits, end),
		},
	}
}

// activation computes the activation of a configuration. gelu by tanh is get_activation's, with the cube as a Pow.
func (b *graphBuilder) activation(scope, name string, x tf.Output) tf.Output {
	scalar := func(name string, v float64) tf.Output { return b.scalarOf(x.DataType(), name, v) }
	switch name {
	case linear:
		return x
	case relu:
		return b.op("Relu", scope+"/Relu", nil, x)
	case tanh:
		return b.op("Tanh", scope+"/Tanh", nil, x)
	case swish:
		return b.op("Mul", scope+"/mul", nil, x, b.op("Sigmoid", scope+"/Sigmoid", nil, x))
	case geluQuick:
		inner := b.op("Mul", scope+"/mul", nil, x, scalar(scope+"/mul/y", 1.702))
		return b.op("Mul", scope+"/mul_1", nil, x, b.op("Sigmoid", scope+"/Sigmoid", nil, inner))
	case geluErf:
		inner := b.op("Mul", scope+"/mul", nil, x, scalar(scope+"/mul/y", 1/math.Sqrt2))
		inner = b.op("Erf", scope+"/Erf", nil, inner)
		inner = b.op("AddV2", scope+"/add", nil, scalar(scope+"/add/x", 1), inner)
		inner = b.op("Mul", scope+"/mul_1", nil, scalar(scope+"/mul_1/x", 0.5), inner)
		return b.op("Mul", scope+"/mul_2", nil, x, inner)
	}
	inner := b.op("Pow", scope+"/Pow", nil, x, scalar(scope+"/Pow/y", 3))
	inner = b.op("Mul", scope+"/mul", nil, scalar(scope+"/mul/x", 0.044715), inner)
	inner = b.op("AddV2", scope+"/add", nil, x, inner)
	inner = b.op("Mul", scope+"/mul_1", nil, scalar(scope+"/mul_1/x", math.Sqrt(2/math.Pi)), inner)
	inner = b.op("Tanh", scope+"/Tanh", nil, inner)
	inner = b.op("AddV2", scope+"/add_1", nil, scalar(scope+"/add_1/x", 1), inner)
	inner = b.op("Mul", scope+"/mul_2", nil, scalar(scope+"/mul_2/x", 0.5), inner)
	return b.op("Mul", scope+"/mul_3", nil, x, inner)
}

// layerNorm is tf.contrib.layers.layer_norm over the last axis: tf.nn.moments and
// tf.nn.batch_normalization. read returns the value of a variable for its user.
func (b *graphBuilder) layerNorm(
	scope string, x tf.Output, axis int32, read func(user, variable string) tf.Output,
) tf.Output {
	mean := func(name string, x tf.Output) tf.Output {
		return b.op("Mean", name, attrs{"keep_dims": true}, x, b.ints(name+"/reduction_indices", axis))
	}
	m := mean(scope+"/moments/mean", x)
	difference := b.op("SquaredDifference", scope+"/moments/SquaredDifference", nil, x,
		b.op("StopGradient", scope+"/moments/StopGradient", nil, m))
	variance := mean(scope+"/moments/variance", difference)

	epsilon := b.scalar(scope+"/batchnorm/add/y", b.config.layerNormEpsilon())
	inv := b.op("AddV2", scope+"/batchnorm/add", nil, variance, epsilon)
	inv = b.op("Rsqrt", scope+"/batchnorm/Rsqrt", nil, inv)
	inv = b.op("Mul", scope+"/batchnorm/mul", nil, inv, read(scope+"/batchnorm/mul", scope+"/gamma"))
	scaled := b.op("Mul", scope+"/batchnorm/mul_1", nil, x, inv)
	offset := b.op("Sub", scope+"/batchnorm/sub", nil, read(scope+"/batchnorm/sub", scope+"/beta"),
		b.op("Mul", scope+"/batchnorm/mul_2", nil, m, inv))
	return b.op("AddV2", scope+"/batchnorm/add_1", nil, scaled, offset)
}
