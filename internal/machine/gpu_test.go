package machine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/libtf"
)

func TestGPUBuild(t *testing.T) {
	dir := bareSystem(t)
	cc, framework := filepath.Join(dir, libtf.CCLibrary), filepath.Join(dir, libtf.FrameworkLibrary)
	compileC(t, cc, "-Wl,-rpath,$ORIGIN/")
	compileC(t, framework)
	assert.False(t, isGPUBuild(cc))

	compileC(t, framework, "-Wl,-rpath,$ORIGIN/../nvidia/cudnn/lib:$ORIGIN/../nvidia/cublas/lib")
	assert.True(t, isGPUBuild(cc))
	assert.Len(t, missingCUDA(libtf.Linker{}, cc, ""), len(cudaLibraries(""))+1)
	for _, lib := range cudaLibraries("") {
		compileC(t, filepath.Join(dir, "nvidia", lib.folder, "lib", lib.name))
	}
	assert.Equal(t, []string{libtf.DriverLibrary}, missingCUDA(libtf.Linker{}, cc, "2.21.0"))
	driver := filepath.Join(dir, "driver", libtf.DriverLibrary)
	compileC(t, driver)
	system := libtf.Linker{Dirs: []string{filepath.Dir(driver)}}
	assert.Empty(t, missingCUDA(system, cc, ""))
	assert.Equal(t, []string{"libcudnn.so.8"}, missingCUDA(system, cc, "2.17.1"))

	// CUDA 13 has other versions of the same libraries.
	cudart := filepath.Join(dir, "nvidia", "cuda_runtime", "lib", "libcudart.so.1")
	require.NoError(t, os.Rename(cudart+"2", cudart+"3"))
	assert.Equal(t, []string{"libcudart.so.12"}, missingCUDA(system, cc, ""))
	compileC(t, filepath.Join(dir, "driver", "libcudart.so.12")) // the system's
	assert.Empty(t, missingCUDA(system, cc, ""))
}

func TestFindGPUs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("libraries are looked up as on Linux")
	}
	dir := t.TempDir()
	f := gpuFinder{libtf.Linker{Dirs: []string{filepath.Join(dir, "lib")}}, filepath.Join(dir, "proc"),
		filepath.Join(dir, "dev")}
	write := func(mode os.FileMode, text string, elem ...string) {
		path := filepath.Join(append([]string{dir}, elem...)...)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":/usr/bin:/bin")
	require.NoError(t, os.Unsetenv("CUDA_VISIBLE_DEVICES"))
	write(0o644, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n", "proc", "version")
	write(0o644, "Model: NVIDIA H200\n", "proc", "gpus", "0", "information")
	write(0o755, "#!/bin/sh\necho broken; exit 12\n", "bin", "nvidia-smi")

	// A container without a GPU on a machine with one.
	gpus, err := f.find(t.Context())
	require.NoError(t, err)
	assert.Equal(t, GPUs{Driver: "550.54.15", Unused: "libnvidia-ml.so.1, which is a part of NVIDIA's driver, is missing"},
		gpus)

	compileC(t, filepath.Join(dir, "lib", managementLibrary))
	gpus, err = f.find(t.Context())
	require.EqualError(t, err, "there is a GPU, but no device "+dir+"/dev/nvidia0: start the container with its GPUs, "+
		"or run nvidia-modprobe")
	assert.Equal(t, GPUs{Driver: "550.54.15", Devices: []GPU{{Name: "NVIDIA H200"}}}, gpus)

	write(0o644, "", "dev", "nvidiactl") // which is not of a GPU
	_, err = f.find(t.Context())
	require.ErrorContains(t, err, "no device")
	write(0o644, "", "dev", "nvidia3")
	gpus, err = f.find(t.Context())
	require.ErrorContains(t, err, "exit status 12: broken")
	assert.Len(t, gpus.Devices, 1)

	write(0o755, "#!/bin/sh\necho NVIDIA H200, 9.0, 580.1, 143771 MiB\n", "bin", "nvidia-smi")
	gpus, err = f.find(t.Context())
	require.NoError(t, err)
	assert.Equal(t, GPUs{Driver: "580.1", Devices: []GPU{{"NVIDIA H200", "9.0", "143771 MiB"}}}, gpus)

	for _, hidden := range []string{"", "-1"} {
		t.Setenv("CUDA_VISIBLE_DEVICES", hidden)
		gpus, err = f.find(t.Context())
		require.NoError(t, err)
		assert.Equal(t, GPUs{Driver: "550.54.15", Unused: "CUDA_VISIBLE_DEVICES hides them"}, gpus)
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "0")
	gpus, err = f.find(t.Context())
	require.NoError(t, err)
	assert.Len(t, gpus.Devices, 1)
}

func TestParseSMI(t *testing.T) {
	gpus, err := parseSMI(strings.NewReader(
		"NVIDIA H100 80GB HBM3, 9.0, 550.54.15, 81559 MiB\n" + "Tesla T4, 7.5, 550.54.15, 15360 MiB\n"))
	require.NoError(t, err)
	assert.Equal(t, GPUs{Driver: "550.54.15", Devices: []GPU{
		{"NVIDIA H100 80GB HBM3", "9.0", "81559 MiB"}, {"Tesla T4", "7.5", "15360 MiB"},
	}}, gpus)
	_, err = parseSMI(strings.NewReader("No devices were found\n"))
	assert.ErrorContains(t, err, "nvidia-smi")
}

func TestReadProcNVIDIA(t *testing.T) {
	dir := t.TempDir()
	assert.Zero(t, readProcNVIDIA(dir))
	gpu := filepath.Join(dir, "gpus", "0000:00:04.0")
	require.NoError(t, os.MkdirAll(gpu, 0o755))
	information := []byte("Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 11\n")
	require.NoError(t, os.WriteFile(filepath.Join(gpu, "information"), information, 0o644))
	for version, text := range map[string]string{
		"535.104.05": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: 12\n",
		"550.54.15": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  " +
			"(dvs-builder@U16)  Tue\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "version"), []byte(text), 0o644))
		assert.Equal(t, GPUs{Driver: version, Devices: []GPU{{Name: "NVIDIA A100-SXM4-40GB"}}}, readProcNVIDIA(dir))
	}
}
