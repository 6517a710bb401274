package tfbert_test

import (
	"archive/zip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/tfbert"
)

// toyVocab is the vocabulary of the toy checkpoint.
const toyVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwho\nwrote\nit\n?\nada\n" +
	"love\n##lace\nthe\nengine\n.\nby\nwas\nwritten\nin\n1843\n"

// A toy is a small checkpoint with random weights: multiples of 1/64 between -1.25 and 1.25, which
// every floating-point type holds exactly.
type toy struct {
	tfbert.Config
	variables []toyVariable
}

type toyVariable struct {
	name   string
	shape  []int64
	dtype  checkpoint.DType
	values []float32
}

func newToy(hiddenAct string) *toy { return newToyOf(hiddenAct, 48) }

func newToyOf(hiddenAct string, positions int) *toy {
	k := &toy{Config: tfbert.Config{
		VocabSize: strings.Count(toyVocab,
			"\n"), HiddenSize: 8, NumHiddenLayers: 2, NumAttentionHeads: 2, IntermediateSize: 12,
		HiddenAct: hiddenAct, MaxPositionEmbeddings: positions, TypeVocabSize: 2,
	}}
	r := rand.New(rand.NewPCG(1, 2))
	add := func(name string, middle, spread int, shape ...int64) {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(middle+r.IntN(2*spread+1)-spread) / 64
		}
		k.variables = append(k.variables, toyVariable{name, shape, checkpoint.Float32, values})
	}
	h, inner := int64(k.HiddenSize), int64(k.IntermediateSize)
	weights := func(name string, shape ...int64) { add(name, 0, 64, shape...) }
	norm := func(scope string) {
		add(scope+"/LayerNorm/beta", 0, 16, h)
		add(scope+"/LayerNorm/gamma", 64, 16, h)
	}
	dense := func(scope string, in, out int64) {
		weights(scope+"/kernel", in, out)
		add(scope+"/bias", 0, 16, out)
	}
	weights("bert/embeddings/word_embeddings", int64(k.VocabSize), h)
	weights("bert/embeddings/token_type_embeddings", int64(k.TypeVocabSize), h)
	weights("bert/embeddings/position_embeddings", int64(k.MaxPositionEmbeddings), h)
	norm("bert/embeddings")
	for n := range k.NumHiddenLayers {
		layer := fmt.Sprintf("bert/encoder/layer_%d", n)
		dense(layer+"/attention/self/query", h, h)
		dense(layer+"/attention/self/key", h, h)
		dense(layer+"/attention/self/value", h, h)
		dense(layer+"/attention/output/dense", h, h)
		norm(layer + "/attention/output")
		dense(layer+"/intermediate/dense", h, inner)
		dense(layer+"/output/dense", inner, h)
		norm(layer + "/output")
	}
	weights("cls/squad/output_weights", 2, h)
	weights("cls/squad/output_bias", 2)
	return k
}

// as returns the toy with its weights in another type.
func (k *toy) as(dtype checkpoint.DType) *toy {
	cast := &toy{Config: k.Config, variables: slices.Clone(k.variables)}
	for i := range cast.variables {
		cast.variables[i].dtype = dtype
	}
	return cast
}

// trained returns the toy as a training leaves it: with the unused pooler, Adam's slots and the step.
func (k *toy) trained() *toy {
	full := &toy{Config: k.Config}
	for _, v := range k.variables {
		m, s := v, v
		m.name, s.name = v.name+"/adam_m", v.name+"/adam_v"
		full.variables = append(full.variables, v, m, s)
	}
	h := int64(k.HiddenSize)
	full.variables = append(full.variables,
		toyVariable{"bert/pooler/dense/kernel", []int64{h, h}, checkpoint.Float32, make([]float32, h*h)},
		toyVariable{"bert/pooler/dense/bias", []int64{h}, checkpoint.Float32, make([]float32, h)},
		toyVariable{"global_step", nil, checkpoint.Int64, []float32{5474}})
	return full
}

// without returns the toy without the variables that drop finds.
func (k *toy) without(drop func(name string) bool) *toy {
	less := &toy{Config: k.Config, variables: slices.Clone(k.variables)}
	less.variables = slices.DeleteFunc(less.variables, func(v toyVariable) bool { return drop(v.name) })
	return less
}

func (k *toy) values(name string) []float32 {
	for _, v := range k.variables {
		if v.name == name {
			return v.values
		}
	}
	panic("no variable " + name)
}

// write writes the checkpoint with the prefix name and the files beside it, and returns its folder.
func (k *toy) write(t testing.TB, name string) string {
	t.Helper()
	dir := t.TempDir()
	w, err := checkpoint.Create(filepath.Join(dir, name))
	require.NoError(t, err)
	defer w.Abort()
	for _, v := range k.variables {
		require.NoError(t, w.Add(v.name, v.dtype, v.shape, v.bytes()))
	}
	require.NoError(t, w.Close())
	config, err := json.Marshal(k.Config)
	require.NoError(t, err)
	for name, text := range map[string]string{"bert_config.json": string(config), "vocab.txt": toyVocab} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
	}
	return dir
}

func (v *toyVariable) bytes() (b []byte) {
	le := binary.LittleEndian
	for _, x := range v.values {
		bits := math.Float32bits(x)
		switch v.dtype {
		case checkpoint.Float32:
			b = le.AppendUint32(b, bits)
		case checkpoint.BFloat16:
			b = le.AppendUint16(b, uint16(bits>>16))
		case checkpoint.Float16:
			half := uint16(0)
			if x != 0 { // normal numbers, so only the exponent's bias differs
				half = uint16(bits>>16)&0x8000 | uint16(bits>>23&0xff-127+15)<<10 | uint16(bits>>13)&0x3ff
			}
			b = le.AppendUint16(b, half)
		case checkpoint.Float64:
			b = le.AppendUint64(b, math.Float64bits(float64(x)))
		case checkpoint.Int64:
			b = le.AppendUint64(b, uint64(x))
		case checkpoint.Int32:
			b = le.AppendUint32(b, uint32(int32(x)))
		}
	}
	return b
}

// zipFolder puts the files of a folder into a zip, below a folder of the zip.
func zipFolder(t testing.TB, dir, below string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bert_tf_ckpt_base_qa_squad11_amp_128.zip")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	z := zip.NewWriter(f)
	require.NoError(t, filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		r, err := os.Open(file)
		if err != nil {
			return err
		}
		defer r.Close()
		w, err := z.Create(below + d.Name())
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r)
		return err
	}))
	require.NoError(t, z.Close())
	return path
}

// randomWindows makes n features of random tokens, a fifth of them padding.
func randomWindows(n, length int) []squad.Feature {
	r := rand.New(rand.NewPCG(3, uint64(length)))
	features := make([]squad.Feature, n)
	for i := range features {
		f := squad.Feature{UniqueID: int32(1000000000 + i), Len: length - r.IntN(length/5+1)}
		for pos := range length {
			id, mask, segment := int32(0), int32(0), int32(0)
			if pos < f.Len {
				id, mask = int32(r.IntN(strings.Count(toyVocab, "\n"))), 1
				if pos > length/3 {
					segment = 1
				}
			}
			f.InputIDs, f.InputMask, f.SegmentIDs = append(f.InputIDs, id), append(f.InputMask, mask), append(f.SegmentIDs,
				segment)
		}
		features[i] = f
	}
	return features
}
