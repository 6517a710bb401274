package tfbert

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/savedmodel"
)

func TestParsePrecision(t *testing.T) {
	for _, p := range []Precision{DefaultPrecision, AutoPrecision, FP32, FP16, BF16, INT8} {
		parsed, err := ParsePrecision(string(p))
		require.NoError(t, err)
		assert.Equal(t, p, parsed)
	}
	_, err := ParsePrecision("int4")
	require.EqualError(t, err, `unknown precision "int4": it is fp32, fp16, bf16, int8 or auto`)
}

// What is asked for by name is not checked against the machine.
func TestChooseByName(t *testing.T) {
	for p, want := range map[Precision]savedmodel.Precision{
		DefaultPrecision: savedmodel.FP32, FP32: savedmodel.FP32, FP16: savedmodel.FP16, BF16: savedmodel.BF16,
	} {
		choice, err := p.Choose("")
		require.NoError(t, err)
		assert.Equal(t, Choice{Precision: want}, choice)
	}
	_, err := Precision("fp8").Choose("")
	require.Error(t, err)
}

func TestChooseForFusedWeights(t *testing.T) {
	weights := Settings{Graph: FusedGraph, Precision: savedmodel.BF16}
	for _, p := range []Precision{DefaultPrecision, AutoPrecision, BF16} {
		choice, err := p.chooseFor("m", weights)
		require.NoError(t, err)
		assert.Equal(t, Choice{Precision: savedmodel.BF16}, choice)
	}
	_, err := FP32.chooseFor("m", weights)
	require.EqualError(t, err, "the weights of m are of bf16, not of fp32")
	assert.Equal(t, &PrecisionMismatchError{Dir: "m", Weights: savedmodel.BF16, Asked: FP32}, err)
	_, err = INT8.chooseFor("m", Settings{Graph: ReferenceGraph})
	require.EqualError(t, err, "the weights of m are of fp32, not of int8")
}

func TestFP16GPU(t *testing.T) {
	gpus := func(capabilities ...string) (g machine.GPUs) {
		for _, c := range capabilities {
			g.Devices = append(g.Devices, machine.GPU{Name: "GPU " + c, ComputeCapability: c})
		}
		return g
	}
	cuda := &machine.Library{Path: "lib.so", GPU: true}
	for name, c := range map[string]struct {
		machine machine.Report
		want    string // of the error
	}{
		"no GPU": {machine.Report{Library: cuda}, "fp16 is for GPUs, and this machine has none"},
		"an old GPU": {machine.Report{Library: cuda, GPUs: gpus("6.1")},
			"fp16 needs a GPU of compute capability 7.0, and GPU 6.1 has 6.1"},
		"an unknown GPU": {machine.Report{Library: cuda, GPUs: gpus("")},
			"fp16 needs a GPU of compute capability 7.0, and that of GPU  is unknown"},
		"no library": {machine.Report{GPUs: gpus("8.0")},
			"fp16 needs a TensorFlow library that is built for CUDA, and none is installed"},
		"a library for CPUs": {machine.Report{GPUs: gpus("8.0"), Library: &machine.Library{Path: "lib.so"}},
			"fp16 needs a TensorFlow library that is built for CUDA, and lib.so is built for the CPU"},
		"no CUDA": {
			machine.Report{GPUs: gpus("8.0"), Library: &machine.Library{GPU: true, MissingForGPU: []string{"libcudnn.so"}}},
			"fp16 needs CUDA's libraries, and libcudnn.so is missing",
		},
	} {
		_, err := fp16GPU(&c.machine)
		assert.EqualError(t, err, c.want, name)
	}
	gpu, err := fp16GPU(&machine.Report{Library: cuda, GPUs: gpus("6.1", "9.0")})
	require.NoError(t, err)
	assert.Equal(t, "GPU 9.0", gpu.Name)
}
