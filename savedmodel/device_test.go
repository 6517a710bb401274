package savedmodel_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// second places a model on the second of two devices, which every machine has for a CPU.
var second = &savedmodel.Options{Device: "/CPU:1", Config: savedmodel.Config{CPUDevices: 2}}

// A model on a device does what it does anywhere, with its variables and assets, and runs there.
func TestDevice(t *testing.T) {
	dir := t.TempDir()
	writeLinear(t, dir, 2, 1)
	f := function(t, loadModel(t, dir, second), savedmodel.DefaultSignature, []string{"x"}, []string{"y"})
	out, metadata, err := f.RunWith(t.Context(), &tf.RunOptions{Trace: true}, newTensor[float32](t, tf.Shape{1, 2}, 3, 4))
	assert.Equal(t, []float32{7, 9}, valuesOf[float32](t, out, err))
	nodes, err := metadata.Nodes()
	require.NoError(t, err)
	on := map[string]string{}
	for _, n := range nodes {
		on[n.Node] = n.Device
	}
	assert.Equal(t, "/job:localhost/replica:0/task:0/device:CPU:1", on["product"], "%v", on)
}

func TestNoSuchDevice(t *testing.T) {
	testenv.TensorFlow(t)
	dir := t.TempDir()
	writeLinear(t, dir, 2, 1)
	for device, want := range map[string]string{
		"/CPU:2": "/CPU:2", "gpu:7": "/GPU:7", "/device:TPU:0": "/TPU:0", "nonsense": "/NONSENSE",
	} {
		_, err := savedmodel.Load(dir, &savedmodel.Options{Device: device, Config: second.Config})
		require.EqualError(t, err, "there is no device "+want+": TensorFlow has /CPU:0, /CPU:1")
	}
	for _, name := range []string{"device:cpu:1", "CPU:1", "/device:CPU:1"} {
		loadModel(t, dir, &savedmodel.Options{Device: name, Config: second.Config})
	}
}

func TestDamagedModelOnDevice(t *testing.T) {
	testenv.TensorFlow(t)
	dir := t.TempDir()
	writeLinear(t, dir, 2, 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "variables", "variables.index"), []byte("garbage"), 0o666))
	_, err := savedmodel.Load(dir, second)
	require.ErrorContains(t, err, "restore the variables of "+dir+": ")
}
