package savedmodel

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tfbert/go/tf"
)

// nodeDef makes a NodeDef on the wire, with a constant's data in the way.
func nodeDef(op, device string, types map[string]tf.DataType) []byte {
	bytesField := func(b []byte, num protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
	}
	n := bytesField(nil, 1, []byte("name"))
	n = bytesField(n, 2, []byte(op))
	n = bytesField(n, 4, []byte(device))
	for key, dtype := range types {
		value := protowire.AppendVarint(protowire.AppendTag(nil, 6, protowire.VarintType), uint64(dtype))
		n = bytesField(n, 5, bytesField(bytesField(nil, 1, []byte(key)), 2, value))
	}
	n = bytesField(n, 5, bytesField(bytesField(nil, 1, []byte("value")), 2, bytesField(nil, 8, make([]byte, 64))))
	return bytesField(nil, 1, n)
}

func TestCountOps(t *testing.T) {
	const cpu, gpu = "/job:localhost/replica:0/task:0/device:CPU:0", "/job:localhost/replica:0/task:0/device:GPU:0"
	half, float := map[string]tf.DataType{"T": tf.Half}, map[string]tf.DataType{"T": tf.Float}
	var first, second []byte
	for _, op := range []string{"MatMul", "_MklNativeFusedMatMul", "_MklFusedBatchMatMulV2", "BatchMatMulV2",
		"_FusedMatMul", "Einsum"} {
		first = append(first, nodeDef(op, gpu, half)...)
	}
	first = append(first, nodeDef("Softmax", gpu, float)...)
	first = append(first, nodeDef("MatMulish", gpu, half)...)
	first = append(first, nodeDef("Cast", gpu, map[string]tf.DataType{"SrcT": tf.Float, "DstT": tf.Half})...)
	second = append(second, nodeDef("_MklLayerNorm", cpu, float)...)
	second = append(second, nodeDef("MatMul", cpu, float)...)

	r, err := countOps([][]byte{first, second})
	require.NoError(t, err)
	assert.Equal(t, "MatMul 6 float16, 1 float32; Softmax 1 float32; LayerNorm 1 float32; 1 cast; on CPU:0, GPU:0",
		r.String())
	assert.Contains(t, r.Ops, OpCount{Kind: "Cast", Op: "Cast", Type: "float32>float16", Device: "GPU:0", Count: 1})
	require.NoError(t, r.Require(FP16))
	require.NoError(t, r.Require(FP32))
	require.ErrorContains(t, r.Require(BF16), "no matrix product runs in bf16: ")
	require.EqualError(t, r.Require(INT8),
		"no matrix product runs in int8: a model is in int8 only if it was exported so")

	integers := nodeDef("_QuantizedMatMul", cpu, map[string]tf.DataType{"T1": tf.Quint8, "T2": tf.Qint8, "Tout": tf.Float})
	r, err = countOps([][]byte{append(integers, second...)})
	require.NoError(t, err)
	assert.Equal(t, "MatMul 1 float32, 1 qint8; LayerNorm 1 float32; 0 casts; on CPU:0", r.String())
	require.NoError(t, r.Require(INT8))

	for _, broken := range [][]byte{{0x0a}, {0x0a, 0x05, 0x01}, append(nodeDef("Cast", cpu, nil), 0xff)} {
		_, err := countOps([][]byte{broken})
		require.Error(t, err)
	}
}

// TensorFlow does not tell what is in a cluster: it is read from a session without XLA, or is missing.
func TestReadClusters(t *testing.T) {
	const gpu = "/job:localhost/replica:0/task:0/device:GPU:0"
	compiled := func() *PrecisionReport {
		r, err := countOps([][]byte{nodeDef("_XlaRun", gpu, nil)})
		require.NoError(t, err)
		return r
	}
	r := compiled()
	plain, err := countOps([][]byte{nodeDef("MatMul", gpu, map[string]tf.DataType{"T": tf.Half})})
	require.NoError(t, err)
	r.readClusters(plain, nil)
	assert.Equal(t, "MatMul 1 float16; 0 casts; 1 XLA cluster, counted before XLA; on GPU:0", r.String())
	require.NoError(t, r.Require(FP16))
	require.EqualError(t, r.Require(BF16), "no matrix product runs in bf16: "+r.reason(BF16))

	r = compiled()
	r.readClusters(nil, errors.New("out of memory"))
	assert.Equal(t, "0 casts; 1 XLA cluster without a count; on GPU:0", r.String())
	err = r.Require(FP16)
	require.EqualError(t, err,
		"no matrix product runs in fp16: XLA has compiled operations that cannot be read: out of memory")
	unread, ok := errors.AsType[*PrecisionError](err)
	assert.True(t, ok && unread.Unread)

	r = compiled()
	r.readClusters(compiled(), nil)
	require.ErrorContains(t, r.Require(FP16), "TF_XLA_FLAGS turns XLA on for every session")
}

func TestRequireFP16WithoutGPU(t *testing.T) {
	err := (&PrecisionReport{}).Require(FP16)
	require.EqualError(t, err,
		"no matrix product runs in fp16: the rewrite to fp16 is for GPUs, and TensorFlow sees none here")
	err = (&PrecisionReport{gpu: true}).Require(FP16)
	require.ErrorContains(t, err, "no matrix product runs in fp16: ")
	assert.NotContains(t, err.Error(), "sees none")
}

func TestChangeRewriteListAfterLoad(t *testing.T) {
	if err := tf.Load(""); err != nil {
		t.Skip(err)
	}
	require.ErrorContains(t, ChangeRewriteList(AllowList, []string{"Softmax"}, nil),
		"must be set before TensorFlow is loaded")
}
