package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tfbert/go/internal/cpu"
	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/testenv"
)

// The scripts run the real main, in processes of their own.
func TestMain(m *testing.M) {
	testscript.Main(cleaning{m}, map[string]func(){"tfbert": main})
}

// cleaning removes the shared models when the tests have run.
type cleaning struct{ *testing.M }

func (m cleaning) Run() int {
	defer shared.remove()
	return m.M.Run()
}

// TestScripts runs testdata/script/*.txtar. Beside testscript's own, they have the commands of
// commands_test.go and these variables:
//
//	CKPT    the bundled checkpoint's folder
//	VOCAB   its vocabulary
//	GOLDEN  testdata/golden
//	SHARED  the folder of the SQuAD sets
//	LIBRARY this machine's TensorFlow, which TFBERT_LIBTENSORFLOW names too
//
// The conditions [tensorflow], [model] and [shared] report whether the machine has them. A script that asks for
// one that is missing fails if TFBERT_REQUIRE names it. [short] is testscript's own. [tmpfs], [linker],
// [avx512] and [int8] are explained below.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs(testenv.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(root, "testdata", "models")
	library, libraryErr := libtf.Path()
	sets := os.Getenv("TFBERT_SHARED")
	if sets != "" && !filepath.IsAbs(sets) {
		sets = filepath.Join(root, sets)
	}
	_, modelErr := os.Stat(filepath.Join(models, bundledName))
	pieces := map[string]bool{"tensorflow": libraryErr == nil, "model": modelErr == nil, "shared": sets != ""}

	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		Cmds:                commands(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(name string) (bool, error) {
			have, known := pieces[name]
			switch {
			case name == "tmpfs": // a disk that can be filled
				return canMount(), nil
			case name == "linker": // a library that the system's linker finds
				return slices.ContainsFunc(libtf.Candidates(), func(c libtf.Candidate) bool {
					return c.Source == "dynamic linker" && c.Err == nil
				}), nil
			case name == "avx512": // the mixed-precision rewrite to bf16
				return cpu.This().Has("avx512f"), nil
			case name == "int8": // the products of integers
				return int8Runs(), nil
			case !known:
				return false, &unknownCondition{name}
			case !have && slices.Contains(strings.Split(os.Getenv("TFBERT_REQUIRE"), ","), name):
				return false, &missingPiece{name}
			}
			return have, nil
		},
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, ".home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
			env.Setenv("GOPROXY", "off") // nothing is downloaded unless a script says so
			env.Setenv("LIBRARY", library)
			env.Setenv(libtf.EnvLibrary, library)
			env.Setenv("CKPT", filepath.Join(models, bundledName))
			env.Setenv("VOCAB", filepath.Join(models, bundledName, "vocab.txt"))
			env.Setenv("GOLDEN", filepath.Join(root, "testdata", "golden"))
			env.Setenv("SHARED", sets)
			if modelErr != nil {
				return nil
			}
			// The program finds what comes with the source in the clone that it runs in.
			if err := os.Mkdir(filepath.Join(env.WorkDir, "testdata"), 0o777); err != nil {
				return err
			}
			return os.Symlink(models, filepath.Join(env.WorkDir, "testdata", "models"))
		},
	})
}

type unknownCondition struct{ name string }

func (e *unknownCondition) Error() string { return "unknown condition: " + e.name }

type missingPiece struct{ name string }

func (e *missingPiece) Error() string {
	return "TFBERT_REQUIRE names " + e.name + ", which is not here"
}

// shared holds the models that scripts use together and do not change.
var shared sharedModels

type sharedModels struct {
	mu     sync.Mutex
	folder string                            // which lasts as long as the tests run; "" before the first model
	models map[string]func() (string, error) // by their flags
}

// export returns the folder of the bundled model, exported with flags by the first script that asks for it.
func (s *sharedModels) export(flags ...string) (string, error) {
	exported, err := s.exporter(flags)
	if err != nil {
		return "", err
	}
	return exported()
}

func (s *sharedModels) exporter(flags []string) (func() (string, error), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder == "" {
		folder, err := os.MkdirTemp("", "tfbert-test-")
		if err != nil {
			return nil, err
		}
		s.folder, s.models = folder, map[string]func() (string, error){}
	}
	key := strings.Join(flags, " ")
	if s.models[key] == nil {
		dir := filepath.Join(s.folder, strconv.Itoa(len(s.models)), "model")
		s.models[key] = sync.OnceValues(func() (string, error) { return dir, exportBundled(dir, flags) })
	}
	return s.models[key], nil
}

// int8Runs reports whether the library and the CPU have the products of int8. An export says so before it reads the
// file that it is calibrated by.
var int8Runs = sync.OnceValue(func() bool {
	checkpoint := filepath.Join("..", "..", "testdata", "models", bundledName)
	out, _ := exec.Command("tfbert", "export", checkpoint, "none", "--graph", "fused", "--precision", "int8",
		"--calibrate", "none.json").CombinedOutput()
	return !strings.Contains(string(out), "int8 cannot run here")
})

func exportBundled(dir string, flags []string) error {
	if err := os.Mkdir(filepath.Dir(dir), 0o777); err != nil {
		return err
	}
	checkpoint, err := filepath.Abs(filepath.Join("..", "..", "testdata", "models", bundledName))
	if err != nil {
		return err
	}
	out, err := exec.Command("tfbert", append([]string{"export", checkpoint, dir}, flags...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("export the bundled model: %w: %s", err, out)
	}
	return nil
}

func (s *sharedModels) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder != "" {
		_ = os.RemoveAll(s.folder)
	}
}

// The version is that of the first heading of the changelog, and a build that is not the tag's says so.
func TestVersion(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\n## ")
	heading, _, _ := strings.Cut(after, "\n")
	if version, _, _ := strings.Cut(heading, " "); version != release {
		t.Errorf("the program is %s, the changelog begins with %s", release, version)
	}
	if v := readVersion().Version; v != release && !strings.HasPrefix(v, release+"+") {
		t.Errorf("version %s", v)
	}
}
