package libtf

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
)

// compile makes a shared library with a C compiler.
func compile(t *testing.T, path string, flags ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	args := append([]string{"-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed", "-Wl,-soname," + filepath.Base(path), "-o", path}, flags...)
	out, err := exec.Command("cc", args...).CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestMissing(t *testing.T) {
	dir := bareSystem(t)
	beside, below, leaf := filepath.Join(dir, "libbeside.so.1"), filepath.Join(dir, "nvidia/below/lib/libbelow.so.2"), filepath.Join(dir, "nvidia/below/lib/libleaf.so")
	compile(t, leaf)
	compile(t, below, leaf) // finds libleaf.so by nothing but LD_LIBRARY_PATH
	compile(t, beside)
	top := filepath.Join(dir, "tensorflow", "libtop.so")
	compile(t, top, beside, below, "-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/..:${ORIGIN}/../nvidia/below/lib", "-Wl,--allow-shlib-undefined")

	missing, err := systemLinker().missing(top)
	require.NoError(t, err)
	assert.Equal(t, []MissingLibrary{{"libleaf.so", "libbelow.so.2"}}, missing, "a RUNPATH counts for its own library only")

	t.Setenv("LD_LIBRARY_PATH", filepath.Dir(leaf))
	missing, err = systemLinker().missing(top)
	require.NoError(t, err)
	assert.Empty(t, missing)

	require.NoError(t, os.Remove(beside))
	missing, err = systemLinker().missing(top)
	require.NoError(t, err)
	assert.Equal(t, []MissingLibrary{{"libbeside.so.1", "libtop.so"}}, missing)

	// A library of that name for another machine is none.
	require.NoError(t, os.WriteFile(beside, fakeLibrary(t, 0x1234, 3), 0o644))
	missing, err = systemLinker().missing(top)
	require.NoError(t, err)
	assert.Len(t, missing, 1)
}

func TestReadConf(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ld.so.conf":       "# comment\n/one\ninclude conf.d/*.conf\n\n /two # why\nrelative\n",
		"conf.d/a.conf":    "/a\n",
		"conf.d/b.conf":    "/b\ninclude " + dir + "/ld.so.conf\n", // a loop
		"conf.d/readme.md": "/c\n",
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	var l linker
	l.readConf(filepath.Join(dir, "ld.so.conf"), 0)
	require.GreaterOrEqual(t, len(l.dirs), 4)
	assert.Equal(t, []string{"/one", "/a", "/b", "/one"}, l.dirs[:4])
	assert.Contains(t, l.dirs, "/two")
	assert.NotContains(t, l.dirs, "/c")

	var none linker
	none.readConf(filepath.Join(dir, "none"), 0)
	assert.Empty(t, none.dirs)
}

func TestGlibc(t *testing.T) {
	out, err := exec.Command("getconf", "GNU_LIBC_VERSION").Output()
	if err != nil {
		t.Skip("no glibc here")
	}
	version, err := systemLinker().glibc()
	require.NoError(t, err)
	assert.Equal(t, "glibc "+version+"\n", string(out))

	_, err = linker{}.glibc()
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
	compile(t, path, source)
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
