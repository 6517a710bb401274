package savedmodel_test

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// Field numbers: config.proto and rewriter_config.proto. Soft placement, on by default, is 38 01.
func TestConfigBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		config savedmodel.Config
		want   string
	}{
		{"defaults", savedmodel.Config{}, "38 01"},
		{"rewrite to fp16", savedmodel.Config{MixedPrecision: savedmodel.FP16}, "38 01  52 05 52 03 b8 01 01"},
		{"rewrite to bf16", savedmodel.Config{MixedPrecision: savedmodel.BF16}, "38 01  52 05 52 03 f8 01 01"},
		{"no Grappler", savedmodel.Config{NoGrappler: true}, "38 01  52 05 52 03 98 01 01"},
		{"XLA", savedmodel.Config{XLA: true}, "38 01  52 04 1a 02 28 01"},
		{"XLA and fp16", savedmodel.Config{XLA: true, MixedPrecision: savedmodel.FP16},
			"38 01  52 09 1a 02 28 01 52 03 b8 01 01"},
		{"threads", savedmodel.Config{IntraOpThreads: 1, InterOpThreads: 300}, "10 01  28 ac 02  38 01"},
		{"no soft placement", savedmodel.Config{NoSoftPlacement: true}, ""},
		{"log placement", savedmodel.Config{LogPlacement: true}, "38 01  40 01"},
		{"GPU memory", savedmodel.Config{GPU: savedmodel.GPUOptions{MemoryFraction: 0.5}},
			"32 09 09 00 00 00 00 00 00 e0 3f  38 01"},
		{"GPU growth", savedmodel.Config{GPU: savedmodel.GPUOptions{AllowGrowth: true}}, "32 02 20 01  38 01"},
		{"GPU devices", savedmodel.Config{GPU: savedmodel.GPUOptions{VisibleDevices: "0,2"}}, "32 05 2a 03 30 2c 32  38 01"},
		{"extra comes last", savedmodel.Config{IntraOpThreads: 4, Extra: []byte{0x10, 0x02}}, "10 04  38 01  10 02"},
		{"extra that tfbert does not know", savedmodel.Config{Extra: []byte{0x50, 0x07}}, "38 01  50 07"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
			require.NoError(t, err)
			got, err := c.config.Bytes()
			require.NoError(t, err)
			assert.Equal(t, hex.EncodeToString(want), hex.EncodeToString(got))
		})
	}
	got, err := (*savedmodel.Config)(nil).Bytes()
	require.NoError(t, err)
	assert.Equal(t, []byte{0x38, 0x01}, got)
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		config savedmodel.Config
		want   string
	}{
		{"threads", savedmodel.Config{IntraOpThreads: -1}, "-1 is not a number of threads"},
		{"operations at once", savedmodel.Config{InterOpThreads: math.MaxInt32 + 1}, "2147483648 is not a number of threads"},
		{"devices", savedmodel.Config{CPUDevices: -1}, "-1 is not a number of CPU devices"},
		{"rewrite without Grappler", savedmodel.Config{MixedPrecision: savedmodel.BF16, NoGrappler: true},
			"the mixed-precision rewrite to bf16 is one of the graph optimizers"},
		{"precision", savedmodel.Config{MixedPrecision: 7}, "unknown precision: 7"},
		{"rewrite to int8", savedmodel.Config{MixedPrecision: savedmodel.INT8}, "no rewrite turns a graph into int8"},
		{"memory above 1", savedmodel.Config{GPU: savedmodel.GPUOptions{MemoryFraction: 1.5}},
			"GPU memory fraction 1.5 is not between 0 and 1"},
		{"memory NaN", savedmodel.Config{GPU: savedmodel.GPUOptions{MemoryFraction: math.NaN()}},
			"GPU memory fraction NaN is not between 0 and 1"},
		{"extra", savedmodel.Config{Extra: []byte{0x10}}, "Extra is not a serialized ConfigProto: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.config.Bytes()
			require.ErrorContains(t, err, "config: "+c.want)
			_, err = savedmodel.Load(halfPlusTwo(t), &savedmodel.Options{Config: c.config})
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestPrecisionString(t *testing.T) {
	assert.Equal(t, "fp32 fp16 bf16 int8 Precision(-1) Precision(4)", strings.Join([]string{
		savedmodel.FP32.String(), savedmodel.FP16.String(), savedmodel.BF16.String(), savedmodel.INT8.String(),
		savedmodel.Precision(-1).String(), savedmodel.Precision(4).String()}, " "))
}

// Sessions take each configuration and run with it.
func TestConfigInSession(t *testing.T) {
	for _, c := range []struct {
		name   string
		config savedmodel.Config
	}{
		{"one thread", savedmodel.Config{IntraOpThreads: 1, InterOpThreads: 1}},
		{"XLA", savedmodel.Config{XLA: true}},
		{"fp16", savedmodel.Config{MixedPrecision: savedmodel.FP16}},
		{"bf16", savedmodel.Config{MixedPrecision: savedmodel.BF16}},
		{"GPU options", savedmodel.Config{GPU: savedmodel.GPUOptions{MemoryFraction: 0.25, AllowGrowth: true}}},
		{"placement", savedmodel.Config{NoSoftPlacement: true}},
		{"extra", savedmodel.Config{Extra: []byte{0x10, 0x01}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := loadModel(t, halfPlusTwo(t), &savedmodel.Options{Config: c.config})
			f := function(t, m, savedmodel.DefaultSignature, []string{"x"}, []string{"y"})
			out, err := f.Run(t.Context(), newTensor[float32](t, tf.Shape{2, 1}, 1, 2))
			assert.Equal(t, []float32{2.5, 3}, valuesOf[float32](t, out, err))
		})
	}
}
