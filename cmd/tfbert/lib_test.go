package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/tf"
)

func TestDoctorComparesGPUs(t *testing.T) {
	const unused = "there is a GPU, but TensorFlow does not use it: --verbose shows its log"
	gpus := machine.GPUs{Driver: "580.1", Devices: []machine.GPU{{Name: "H200", ComputeCapability: "9.0"}}}
	cpu, gpu := tf.Device{Name: "/device:CPU:0", Type: "CPU"}, tf.Device{Name: "/device:GPU:0", Type: "GPU"}
	build := &machine.Library{Path: "lib.so", GPU: true}
	for name, c := range map[string]struct {
		doctor doctor
		want   []string
	}{
		"used": {doctor{Report: machine.Report{GPUs: gpus, Library: build}, Devices: []tf.Device{cpu, gpu}}, nil},
		"unused": {
			doctor{Report: machine.Report{GPUs: gpus, Library: build}, Devices: []tf.Device{cpu}}, []string{unused},
		},
		"no GPU":    {doctor{Report: machine.Report{Library: build}, Devices: []tf.Device{cpu}}, nil},
		"explained": {doctor{Report: machine.Report{GPUs: gpus, Library: build, Problems: []string{"p"}}}, []string{"p"}},
	} {
		c.doctor.compareGPUs()
		assert.Equal(t, c.want, c.doctor.Problems, name)
	}
}

func TestDoctorPrintsGPUs(t *testing.T) {
	for want, gpus := range map[string]machine.GPUs{
		"gpu         none\n":               {},
		"gpu         none: it is hidden\n": {Driver: "580.1", Unused: "it is hidden"},
		"gpu driver  580.1\ngpu         H200, compute capability 9.0, 141 GiB\n": {
			Driver: "580.1", Devices: []machine.GPU{{Name: "H200", ComputeCapability: "9.0", Memory: "141 GiB"}},
		},
	} {
		var b strings.Builder
		d := doctor{Report: machine.Report{GPUs: gpus}, TensorFlow: "2.21.0"}
		require.NoError(t, d.print(&b))
		assert.Contains(t, b.String(), want)
	}
}

// TensorFlow is not loaded where it would miss CUDA's libraries.
func TestDoctorKeepsTensorFlowFromGPU(t *testing.T) {
	d := doctor{Report: machine.Report{
		GPUs:    machine.GPUs{Devices: []machine.GPU{{Name: "H200"}}},
		Library: &machine.Library{GPU: true, MissingForGPU: []string{"libcudart.so.12"}},
	}}
	require.ErrorContains(t, d.load(), "TensorFlow may end the process when it looks for the GPU without libcudart.so.12")
	assert.Empty(t, d.TensorFlow)
}
