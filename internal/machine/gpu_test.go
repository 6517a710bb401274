package machine

import (
	"os"
	"path/filepath"
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
	assert.Len(t, missingCUDA(libtf.Linker{}, cc), len(cudaLibraries)+1)
	for _, lib := range cudaLibraries {
		compileC(t, filepath.Join(dir, "nvidia", lib.folder, "lib", lib.name+".12"))
	}
	assert.Equal(t, []string{libtf.DriverLibrary}, missingCUDA(libtf.Linker{}, cc))
	driver := filepath.Join(dir, "driver", libtf.DriverLibrary)
	compileC(t, driver)
	assert.Empty(t, missingCUDA(libtf.Linker{Dirs: []string{filepath.Dir(driver)}}, cc))
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
