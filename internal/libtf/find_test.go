package libtf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeLibrary is a shared library with a header and nothing else.
func fakeLibrary(t *testing.T, machine elf.Machine, kind elf.Type) []byte {
	var buf bytes.Buffer
	require.NoError(t, binary.Write(&buf, binary.LittleEndian, elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(kind),
		Machine: uint16(machine),
		Version: uint32(elf.EV_CURRENT),
		Ehsize:  64,
	}))
	return buf.Bytes()
}

// putLibrary writes a usable library.
func putLibrary(t *testing.T, elem ...string) string {
	path := filepath.Join(elem...)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, fakeLibrary(t, elf.Machine(elfMachines[runtime.GOARCH]), elf.ET_DYN), 0o644))
	return path
}

// putInstallation makes an installation with a usable library.
func putInstallation(t *testing.T, root, version string, gpu bool) Installation {
	inst := Installation{Version: version, GPU: gpu, Arch: Arch()}
	inst.Dir = filepath.Join(root, inst.Name())
	putLibrary(t, inst.Library())
	putLibrary(t, inst.Dir, FrameworkLibrary)
	require.NoError(t, inst.Record(inst.Dir))
	return inst
}

// bareSystem makes a system without any TensorFlow, and returns the folder of its installations.
func bareSystem(t *testing.T) string {
	if runtime.GOOS != "linux" {
		t.Skip("libraries are looked up as on Linux")
	}
	for _, name := range []string{EnvLibrary, "VIRTUAL_ENV", "LD_LIBRARY_PATH"} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if _, err := Path(); err == nil {
		t.Skip("the dynamic linker's folders have a TensorFlow of their own")
	}
	root, err := DefaultDir()
	require.NoError(t, err)
	return root
}

func TestPathNothingFound(t *testing.T) {
	root := bareSystem(t)
	_, err := Path()
	var notFound *NotFoundError
	require.ErrorAs(t, err, &notFound)
	assert.Len(t, notFound.Candidates, 4)
	for _, want := range []string{
		"no TensorFlow library found; run `tfbert lib install` or set TFBERT_LIBTENSORFLOW (",
		"$TFBERT_LIBTENSORFLOW: not set;", "tfbert lib install: nothing installed in " + root,
		"$VIRTUAL_ENV: not set;", "dynamic linker: no libtensorflow_cc.so.2 or libtensorflow.so.2 or libtensorflow.so in ",
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestPathOrder(t *testing.T) {
	root := bareSystem(t)
	choice := func() string {
		path, err := Path()
		require.NoError(t, err)
		return path
	}
	system := putLibrary(t, t.TempDir(), "libtensorflow.so.2")
	t.Setenv("LD_LIBRARY_PATH", filepath.Dir(system))
	assert.Equal(t, system, choice(), "linker's path")

	env := t.TempDir()
	t.Setenv("VIRTUAL_ENV", env)
	assert.Equal(t, system, choice(), "virtual environment without TensorFlow")
	venv := putLibrary(t, env, "lib/python3.12/site-packages", CCLibrary)
	assert.Equal(t, venv, choice(), "virtual environment")

	inst := putInstallation(t, root, DefaultVersion, false)
	assert.Equal(t, inst.Library(), choice(), "installation")
	require.NoError(t, os.WriteFile(inst.Library(), []byte("cut"), 0o644))
	assert.Equal(t, venv, choice(), "damaged installation")

	own := putLibrary(t, t.TempDir(), "mine.so")
	t.Setenv(EnvLibrary, own)
	assert.Equal(t, own, choice(), EnvLibrary)
}

func TestPathEnvironment(t *testing.T) {
	root := bareSystem(t)
	putInstallation(t, root, DefaultVersion, false)
	dir := t.TempDir()
	wheel := putLibrary(t, dir, "site-packages/tensorflow/libtensorflow_cc.so.2")
	archive := putLibrary(t, dir, "archive/lib/libtensorflow.so.2")
	putLibrary(t, dir, "archive/lib/libtensorflow.so")
	text := filepath.Join(dir, "text.so")
	require.NoError(t, os.WriteFile(text, []byte("INPUT(libtensorflow.so.2)"), 0o644))
	cut := filepath.Join(dir, "cut.so")
	require.NoError(t, os.WriteFile(cut, fakeLibrary(t, elf.Machine(elfMachines[runtime.GOARCH]), elf.ET_DYN)[:40], 0o644))
	empty := filepath.Join(dir, "empty.so")
	require.NoError(t, os.WriteFile(empty, nil, 0o644))
	foreign := filepath.Join(dir, "foreign.so")
	require.NoError(t, os.WriteFile(foreign, fakeLibrary(t, elf.EM_S390, elf.ET_DYN), 0o644))
	program := filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(program, fakeLibrary(t, elf.Machine(elfMachines[runtime.GOARCH]), elf.ET_EXEC), 0o644))

	for _, tt := range []struct{ name, value, want, wantErr string }{
		{"file", wheel, wheel, ""},
		{"folder of the wheel's library", filepath.Dir(wheel), wheel, ""},
		{"folder of the packages", filepath.Join(dir, "site-packages"), wheel, ""},
		{"folder of the archive", filepath.Join(dir, "archive"), archive, ""},
		{"nothing there", filepath.Join(dir, "none"), "", "no such file"},
		{"folder without", dir, "", "no libtensorflow_cc.so.2 or"},
		{"not a library", text, "", "not a shared library"},
		{"cut", cut, "", "not a whole one"},
		{"empty", empty, "", "not a whole one"},
		{"for another machine", foreign, "", "not for this machine, which is "},
		{"a program", program, "", "not a shared library but a program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(EnvLibrary, tt.value)
			path, err := Path()
			if tt.wantErr != "" {
				// Another library than the one that was named must not do instead.
				require.ErrorContains(t, err, tt.wantErr)
				assert.ErrorContains(t, err, EnvLibrary+": ")
				assert.ErrorContains(t, err, tt.value)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, path)
		})
	}
}

func TestPreferredInstallation(t *testing.T) {
	installed := []Installation{
		{Version: "2.9.0"}, {Version: "2.22.0"}, {Version: DefaultVersion},
		{Version: "2.15.0", GPU: true}, {Version: DefaultVersion, GPU: true},
	}
	order := func(gpu bool) (names []string) {
		list := slices.Clone(installed)
		slices.SortFunc(list, preferred(gpu))
		for _, inst := range list {
			names = append(names, inst.Name())
		}
		return names
	}
	assert.Equal(t, []string{"2.21.0-cpu-", "2.22.0-cpu-", "2.9.0-cpu-", "2.21.0-gpu-", "2.15.0-gpu-"}, order(false))
	assert.Equal(t, []string{"2.21.0-gpu-", "2.15.0-gpu-", "2.21.0-cpu-", "2.22.0-cpu-", "2.9.0-cpu-"}, order(true))
}

func TestInstallationsOfThisMachine(t *testing.T) {
	root := bareSystem(t)
	inst := putInstallation(t, root, "2.20.0", false)
	other := Installation{Version: "2.21.0", Arch: "riscv64", Dir: filepath.Join(root, "2.21.0-cpu-riscv64")}
	putLibrary(t, other.Library())
	putLibrary(t, other.Dir, FrameworkLibrary)
	require.NoError(t, other.Record(other.Dir))
	half := filepath.Join(root, ".installing-1", "tree") // must not be taken for one
	putLibrary(t, half, CCLibrary)

	found, err := installations(root)
	require.NoError(t, err)
	assert.Equal(t, []Installation{inst}, found)
}

func TestCandidateJSON(t *testing.T) {
	data, err := json.Marshal([]Candidate{{Path: "/a.so", Source: "s"}, {Source: "t", Err: errors.New("why")}})
	require.NoError(t, err)
	assert.JSONEq(t, `[{"path":"/a.so","source":"s"},{"source":"t","error":"why"}]`, string(data))
}

func TestCompareVersions(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"2.21.0", "2.21.0", 0}, {"2.21", "2.21.0", 0}, {"2.9.0", "2.21.0", -1}, {"2.21.1", "2.21", 1},
		{"2.15.0.post1", "2.15.0", 0}, {"3", "2.99", 1}, {"2.22.0rc1", "2.22.0", 0}, {"", "0.1", -1},
	} {
		got := CompareVersions(tt.a, tt.b)
		assert.Equal(t, tt.want, max(-1, min(1, got)), tt)
		assert.Equal(t, -got, CompareVersions(tt.b, tt.a), tt)
	}
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
	var l Linker
	l.readConf(filepath.Join(dir, "ld.so.conf"), 0)
	require.GreaterOrEqual(t, len(l.Dirs), 4)
	assert.Equal(t, []string{"/one", "/a", "/b", "/one"}, l.Dirs[:4])
	assert.Contains(t, l.Dirs, "/two")
	assert.NotContains(t, l.Dirs, "/c")

	var none Linker
	none.readConf(filepath.Join(dir, "none"), 0)
	assert.Empty(t, none.Dirs)
}

// A download that broke off leaves a library without the table of its sections.
func TestCutLibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cut.so")
	header := fakeLibrary(t, elf.Machine(elfMachines[runtime.GOARCH]), elf.ET_DYN)
	binary.LittleEndian.PutUint64(header[40:], 1<<20) // e_shoff
	require.NoError(t, os.WriteFile(path, header, 0o644))
	assert.ErrorContains(t, CheckLibrary(path), "not a whole one")
}

func ExamplePath() {
	os.Setenv(EnvLibrary, "/opt/none/libtensorflow_cc.so.2")
	defer os.Unsetenv(EnvLibrary)
	_, err := Path()
	fmt.Println(err)
	// Output: TFBERT_LIBTENSORFLOW: stat /opt/none/libtensorflow_cc.so.2: no such file or directory
}
