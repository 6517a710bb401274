// Package rules holds the module to its own structure.
package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

const module = "github.com/tfbert/go/"

// allowed says which packages of the module each package may import. What is not named here may
// import none.
var allowed = map[string][]string{
	"cmd/tfbert": {
		"corpus", "serve", "serve/batch", "serve/repository", "serve/tfmodel", "tfbert", "savedmodel", "checkpoint",
		"squad", "squad/compare", "squad/logits", "wordpiece", "tf", "tf/install",
		"internal/archive", "internal/bench", "internal/escape", "internal/file", "internal/libtf", "internal/machine",
		"internal/models", "internal/npy", "internal/prcurve", "internal/probe", "internal/pyjson", "internal/serveproto",
	},
	"tfbert": {
		"savedmodel", "checkpoint", "squad", "wordpiece", "tf",
		"internal/archive", "internal/cpu", "internal/escape", "internal/file", "internal/libtf", "internal/machine",
		"internal/probe", "internal/quantize", "internal/safetensors",
	},
	"savedmodel": {
		"tf", "internal/cpu", "internal/escape", "internal/file", "internal/libtf", "internal/machine",
		"internal/tfproto",
	},
	"squad":         {"wordpiece", "internal/file", "internal/pyjson", "internal/pymath", "internal/pytext"},
	"corpus":        {"squad", "internal/file"},
	"squad/compare": {"squad", "squad/logits", "internal/file"},
	"squad/logits":  {"squad", "internal/file", "internal/npy"},
	"serve": {
		"serve/batch", "serve/repository", "serve/internal/access", "serve/internal/cloud", "serve/internal/huggingface",
		"serve/internal/intake", "serve/internal/native", "serve/internal/oip", "serve/internal/page",
		"serve/internal/shm", "serve/internal/tfserving", "serve/internal/transport", "serve/internal/warmup",
		"internal/serveproto",
	},
	"serve/internal/access":      {"serve/repository"},
	"serve/internal/cloud":       {"serve/internal/native", "serve/internal/transport", "serve/repository"},
	"serve/internal/huggingface": {"serve/internal/transport", "serve/repository"},
	"serve/internal/native":      {"serve/internal/transport", "serve/repository"},
	"serve/internal/oip": {
		"serve/internal/shm", "serve/internal/tensor", "serve/internal/transport", "serve/repository",
		"internal/serveproto",
	},
	"serve/internal/shm":    {"serve/repository"},
	"serve/internal/warmup": {"serve/internal/tensor", "serve/repository", "internal/file", "internal/serveproto"},
	"serve/internal/tensor": {"serve/repository", "internal/tfproto"},
	"serve/internal/tfserving": {
		"serve/internal/tensor", "serve/internal/transport", "serve/repository",
		"internal/serveproto", "internal/tfproto",
	},
	"serve/internal/intake": {"serve/repository"},
	"serve/internal/transport": {
		"serve/batch", "serve/internal/access", "serve/internal/intake", "serve/internal/shm", "serve/repository",
	},
	"serve/repository":   {"serve/batch", "squad", "wordpiece", "internal/file", "internal/serveproto"},
	"serve/tfmodel":      {"serve/repository", "savedmodel", "tf", "tfbert"},
	"serve/batch":        {"squad"},
	"wordpiece":          {"internal/pytext"},
	"checkpoint":         {"internal/escape", "internal/file", "internal/tfproto"},
	"tf":                 {"internal/libtf", "internal/tfproto"},
	"tf/install":         {"internal/fetch", "internal/libtf", "internal/machine"},
	"internal/archive":   {"internal/file"},
	"internal/bench":     {"internal/figure"},
	"internal/fakemodel": {"serve/repository", "squad", "wordpiece"},
	"internal/figure":    {"internal/file"},
	"internal/libtf":     {"internal/file"},
	"internal/machine":   {"internal/cpu", "internal/libtf"},
	"internal/models": {
		"checkpoint", "savedmodel", "tfbert", "internal/archive", "internal/fetch", "internal/file",
	},
	"scripts/peer":         {"savedmodel", "squad", "squad/logits", "tfbert"},
	"internal/npy":         {"internal/file"},
	"internal/prcurve":     {"squad", "internal/figure"},
	"internal/probe":       {"savedmodel", "tf"},
	"internal/safetensors": {"internal/file"},
	"internal/serveproto":  {"internal/tfproto"},
	"internal/testenv":     {"internal/libtf", "internal/machine", "tf/install"},
}

// pure packages never reach the binding, whatever they import.
var pure = []string{
	"corpus", "squad", "squad/compare", "squad/logits", "wordpiece", "checkpoint",
	"serve", "serve/batch", "serve/repository", "internal/bench", "internal/prcurve",
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = testenv.Root(t)
	out, err := cmd.Output()
	require.NoError(t, err)
	var list []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else {
			require.NoError(t, err)
		}
		list = append(list, p)
	}
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, i := range p.Imports {
			if imported, ok := strings.CutPrefix(i, module); ok {
				assert.Contains(t, allowed[name], imported, "%s must not import %s", name, imported)
			}
		}
		if slices.Contains(pure, name) {
			assert.NotContains(t, p.Deps, module+"tf", "%s must do without TensorFlow", name)
		}
	}
}

// A program that runs TensorFlow does not link what installs it.
func TestNoInstaller(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath == module+"tf" {
			for _, installer := range []string{"archive/zip", "debug/elf", "encoding/csv", "os/exec", "github.com/gofrs/flock",
				"golang.org/x/sync/errgroup", module + "tf/install", module + "internal/machine"} {
				assert.NotContains(t, p.Deps, installer)
			}
			return
		}
	}
	t.Fatal("package tf is not listed")
}

// cgo and unsafe are package tf's alone, and of the library that its tests load.
func TestConfinement(t *testing.T) {
	root := testenv.Root(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || slices.Contains([]string{"tf", "internal/faketf"}, filepath.Dir(rel)) ||
			strings.HasSuffix(rel, ".pb.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			assert.NotContains(t, []string{"C", "unsafe"}, imported, rel)
		}
		return nil
	})
	require.NoError(t, err)
}
