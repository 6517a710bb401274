package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/libtf"
)

// bareSystem makes a system without any TensorFlow, and returns the folder of its installations.
func bareSystem(t *testing.T) string {
	if runtime.GOOS != "linux" {
		t.Skip("libraries are looked up as on Linux")
	}
	for _, name := range []string{libtf.EnvLibrary, "VIRTUAL_ENV", "LD_LIBRARY_PATH"} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := libtf.Path(); err == nil {
		t.Skip("the dynamic linker's folders have a TensorFlow of their own")
	}
	root, err := libtf.DefaultDir()
	require.NoError(t, err)
	return root
}

// compileC makes a shared library with a C compiler.
func compileC(t *testing.T, path string, flags ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	args := append([]string{"-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed",
		"-Wl,-soname," + filepath.Base(path), "-o", path}, flags...)
	out, err := exec.Command("cc", args...).CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestMissing(t *testing.T) {
	dir := bareSystem(t)
	beside := filepath.Join(dir, "libbeside.so.1")
	below, leaf := filepath.Join(dir, "nvidia/below/lib/libbelow.so.2"), filepath.Join(dir, "nvidia/below/lib/libleaf.so")
	compileC(t, leaf)
	compileC(t, below, leaf) // finds libleaf.so only by LD_LIBRARY_PATH
	compileC(t, beside)
	top := filepath.Join(dir, "tensorflow", "libtop.so")
	compileC(t, top, beside, below, "-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/..:${ORIGIN}/../nvidia/below/lib",
		"-Wl,--allow-shlib-undefined")

	lacking, err := missing(libtf.SystemLinker(), top)
	require.NoError(t, err)
	assert.Equal(t, []MissingLibrary{{"libleaf.so", "libbelow.so.2"}}, lacking,
		"a RUNPATH counts for its own library only")

	t.Setenv("LD_LIBRARY_PATH", filepath.Dir(leaf))
	lacking, err = missing(libtf.SystemLinker(), top)
	require.NoError(t, err)
	assert.Empty(t, lacking)

	require.NoError(t, os.Remove(beside))
	lacking, err = missing(libtf.SystemLinker(), top)
	require.NoError(t, err)
	assert.Equal(t, []MissingLibrary{{"libbeside.so.1", "libtop.so"}}, lacking)

	// A library of that name for another machine is none.
	other, err := os.ReadFile(leaf)
	require.NoError(t, err)
	other[18], other[19] = 0x34, 0x12 // e_machine
	require.NoError(t, os.WriteFile(beside, other, 0o644))
	lacking, err = missing(libtf.SystemLinker(), top)
	require.NoError(t, err)
	assert.Len(t, lacking, 1)
}

func TestGlibc(t *testing.T) {
	out, err := exec.Command("getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		t.Skip("no glibc here")
	}
	version, err := Glibc()
	require.NoError(t, err)
	assert.Equal(t, "glibc "+version+"\n", string(out))

	_, err = glibc(libtf.Linker{})
	assert.ErrorContains(t, err, "glibc")
}

// TensorFlow's string table is 82 MB; looking at a library must not read it.
func TestMissingReadsLittle(t *testing.T) {
	dir := bareSystem(t)
	source := filepath.Join(t.TempDir(), "names.c")
	var names strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&names, "int a_name_of_a_symbol_that_is_as_long_as_those_of_cplusplus_%d;\n", i)
	}
	require.NoError(t, os.WriteFile(source, []byte(names.String()), 0o644))
	path := filepath.Join(dir, "libnames.so")
	compileC(t, path, source)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(1<<20))

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = readLibrary(path)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100<<10))
}
