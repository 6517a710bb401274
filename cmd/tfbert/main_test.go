package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/internal/testenv"
)

// The scripts run the real main, in processes of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tfbert": main})
}

// TestScripts runs testdata/script/*.txtar. Beside testscript's own, they have the commands of
// commands_test.go and these variables:
//
//	CKPT    the bundled checkpoint's folder
//	VOCAB   its vocabulary
//	GOLDEN  testdata/golden
//	SHARED  the folder of the SQuAD sets
//	LIBRARY this machine's TensorFlow, as TFBERT_LIBTENSORFLOW also says
//
// The conditions [tensorflow], [model] and [shared] say what this machine has; where TFBERT_REQUIRE
// names what it has not, the script that asks fails. [tmpfs] and [linker] are explained below.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs(testenv.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(root, "testdata", "models")
	library, libraryErr := libtf.Path()
	shared := os.Getenv("TFBERT_SHARED")
	if shared != "" && !filepath.IsAbs(shared) {
		shared = filepath.Join(root, shared)
	}
	_, modelErr := os.Stat(filepath.Join(models, bundledName))
	pieces := map[string]bool{"tensorflow": libraryErr == nil, "model": modelErr == nil, "shared": shared != ""}
	exported := sync.OnceValues(func() (string, error) { return exportBundled(t, models) })

	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		Cmds:                commands(exported),
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
				return machine.ThisCPU().Has("avx512f"), nil
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
			env.Setenv("LIBRARY", library)
			env.Setenv(libtf.EnvLibrary, library)
			env.Setenv("CKPT", filepath.Join(models, bundledName))
			env.Setenv("VOCAB", filepath.Join(models, bundledName, "vocab.txt"))
			env.Setenv("GOLDEN", filepath.Join(root, "testdata", "golden"))
			env.Setenv("SHARED", shared)
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

func (e *unknownCondition) Error() string { return "no such condition: " + e.name }

type missingPiece struct{ name string }

func (e *missingPiece) Error() string {
	return "TFBERT_REQUIRE names " + e.name + ", which is not here"
}

// exportBundled exports the bundled model for all scripts that predict with it.
func exportBundled(t *testing.T, models string) (string, error) {
	dir := filepath.Join(t.TempDir(), "model")
	cmd := exec.Command("tfbert", "export", filepath.Join(models, bundledName), dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("%s", out)
	}
	return dir, err
}
