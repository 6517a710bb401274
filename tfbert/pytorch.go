package tfbert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/safetensors"
)

// pytorchWeights are the tensors of a model of PyTorch, as a checkpoint has them: with slashes in their names, and with
// the kernels of dense layers as [in,out].
type pytorchWeights struct {
	file   *safetensors.File
	list   []checkpoint.Variable
	byName map[string]pytorchTensor
}

type pytorchTensor struct {
	tensor     safetensors.Tensor
	variable   checkpoint.Variable
	transposed bool
}

// The files in a folder of transformers, beside vocab.txt.
const (
	safetensorsFile   = "model.safetensors"
	huggingFaceConfig = "config.json"
)

// findSafetensors returns the file of weights that a path means, or "" if it means a checkpoint of TensorFlow.
func findSafetensors(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return ""
	case !info.IsDir():
		if file.KindOfPath(path) == file.Safetensors {
			return path
		}
		return ""
	}
	if found := filepath.Join(path, safetensorsFile); file.KindOfPath(found) == file.Safetensors {
		return found
	}
	return ""
}

func openPyTorch(path string) (*pytorchWeights, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	p := &pytorchWeights{file: f, byName: map[string]pytorchTensor{}}
	for _, t := range f.Tensors() {
		v := checkpoint.Variable{Shape: t.Shape, DType: dtypeOf(t)}
		var transposed bool
		if v.Name, transposed = pytorchName(t); transposed {
			v.Shape = []int64{t.Shape[1], t.Shape[0]}
		}
		if !t.IsFloat() {
			v.Kind = checkpoint.Bookkeeping // the positions, which older versions saved
		}
		if other, ok := p.byName[v.Name]; ok {
			err := fmt.Errorf("%s has %s and %s, which are the same weight", path, other.tensor.Name, t.Name)
			return nil, errors.Join(err, f.Close())
		}
		p.byName[v.Name] = pytorchTensor{t, v, transposed}
		p.list = append(p.list, v)
	}
	return p, nil
}

var pytorchTypes = map[string]checkpoint.DType{
	"F32": checkpoint.Float32, "F16": checkpoint.Float16, "BF16": checkpoint.BFloat16, "F64": checkpoint.Float64,
	"I64": checkpoint.Int64, "I32": checkpoint.Int32, "BOOL": checkpoint.Bool,
}

func dtypeOf(t safetensors.Tensor) checkpoint.DType { return pytorchTypes[t.DType] }

var (
	pytorchNorm      = regexp.MustCompile(`(LayerNorm)/(weight|bias)$`)
	pytorchEmbedding = regexp.MustCompile(`(_embeddings)/weight$`)
)

// pytorchName returns the name of a tensor in a checkpoint, and whether it is transposed there.
func pytorchName(t safetensors.Tensor) (name string, transposed bool) {
	name = strings.ReplaceAll(t.Name, ".", "/")
	if m := pytorchNorm.FindStringSubmatch(name); m != nil {
		part := map[string]string{"weight": "gamma", "bias": "beta"}[m[2]]
		return strings.TrimSuffix(name, m[2]) + part, false
	}
	if pytorchEmbedding.MatchString(name) {
		return strings.TrimSuffix(name, "/weight"), false
	}
	dense, ok := strings.CutSuffix(name, "/weight")
	if kernel := dense + "/kernel"; ok && len(t.Shape) == 2 && len(name) <= longestName && parsePart(kernel).name != "" {
		return kernel, true
	}
	return name, false
}

func (p *pytorchWeights) Variables() []checkpoint.Variable { return p.list }

func (p *pytorchWeights) Variable(name string) (checkpoint.Variable, bool) {
	t, ok := p.byName[name]
	return t.variable, ok
}

func (p *pytorchWeights) Float32s(name string) ([]float32, error) {
	t, ok := p.byName[name]
	if !ok {
		return nil, fmt.Errorf("there is no tensor %s", name)
	}
	values, err := p.file.Float32s(t.tensor.Name)
	if err != nil || !t.transposed {
		return values, err
	}
	return transpose(values, int(t.tensor.Shape[0]), int(t.tensor.Shape[1])), nil
}

// transpose returns a matrix of rows and columns as one of columns and rows.
func transpose(values []float32, rows, columns int) []float32 {
	turned := make([]float32, len(values))
	for i := range rows {
		for k := range columns {
			turned[k*rows+i] = values[i*columns+k]
		}
	}
	return turned
}

func (p *pytorchWeights) ObjectBased() bool { return false }

func (p *pytorchWeights) FullNames() (map[string]string, error) { return nil, nil }

func (p *pytorchWeights) Close() error { return p.file.Close() }
