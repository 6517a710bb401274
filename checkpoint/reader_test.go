package checkpoint

import (
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tfbert/go/internal/testenv"
)

// openTest opens a checkpoint for the length of a test.
func openTest(t testing.TB, path string) *Reader {
	t.Helper()
	r, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.Close()) })
	return r
}

// copyFiles copies the files of a checkpoint into a fresh folder and returns its prefix there.
func copyFiles(t testing.TB, prefix string) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob(prefix + ".*")
	require.NoError(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o666))
	}
	return filepath.Join(dir, filepath.Base(prefix))
}

// testdata/types is TensorFlow's writing: see testdata/make.py for the values.
func TestTypes(t *testing.T) {
	r := openTest(t, "testdata/types")

	var got []string
	for _, v := range r.Variables() {
		got = append(got, fmt.Sprintf("%s %s %v %d %s", v.Name, v.DType, v.Shape, v.Size, v.Kind))
	}
	assert.Equal(t, []string{
		"bool bool [2] 2 weight",
		"empty float32 [0 3] 0 weight",
		"float/bfloat16 bfloat16 [9] 18 weight",
		"float/float16 float16 [9] 18 weight",
		"float/float32 float32 [9] 36 weight",
		"float/float64 float64 [9] 72 weight",
		"global_step int64 [] 8 bookkeeping",
		"int/int16 int16 [5] 10 weight",
		"int/int32 int32 [5] 20 weight",
		"int/int64 int64 [5] 40 weight",
		"int/int8 int8 [5] 5 weight",
		"int/uint16 uint16 [5] 10 weight",
		"int/uint32 uint32 [5] 20 weight",
		"int/uint64 uint64 [5] 40 weight",
		"int/uint8 uint8 [5] 5 weight",
		"matrix float32 [2 3] 24 weight",
		"scalar float32 [] 4 weight",
		"string string [2] 9 weight",
	}, got)

	inf := float32(math.Inf(1))
	zero := float32(math.Copysign(0, -1))
	floats := map[string][]float32{
		"float/float16":  {0, zero, 1, -1.5, 65504, 0x1p-24, inf, -inf, 0x1.554p-2},
		"float/bfloat16": {0, zero, 1, -1.5, 65536, 0x1.02p-24, inf, -inf, 0x1.56p-2},
		"float/float32":  {0, zero, 1, -1.5, 65504, 6e-8, inf, -inf, 1. / 3},
		"float/float64":  {0, zero, 1, -1.5, 65504, 6e-8, inf, -inf, 1. / 3},
		"scalar":         {3.5},
		"matrix":         {1, 2, 3, 4, 5, 6},
		"empty":          {},
	}
	for name, want := range floats {
		got, err := r.Float32s(name)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		for i := range want { // -0 == 0, so compare the bits too
			assert.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s[%d]", name, i)
		}
	}

	int64s, err := r.Int64s("int/int64")
	require.NoError(t, err)
	assert.Equal(t, []int64{0, 1, -1, 127, -128}, int64s)
	int64s, err = r.Int64s("int/int32")
	require.NoError(t, err)
	assert.Equal(t, []int64{0, 1, -1, 127, -128}, int64s)
	step, err := r.Int64s("global_step")
	require.NoError(t, err)
	assert.Equal(t, []int64{5474}, step)
	raw, err := r.Read("int/int16")
	require.NoError(t, err)
	assert.Equal(t, []byte{0, 0, 1, 0, 255, 255, 127, 0, 128, 255}, raw)
}

func TestReadRefuses(t *testing.T) {
	r := openTest(t, "testdata/types")
	tests := []struct {
		name string
		read func() error
		want string
	}{
		{"unknown name", func() error {
			_, err := r.Read("nope")
			return err
		}, "read nope: no such variable in testdata/types"},
		{"string", func() error { _, err := r.Read("string"); return err }, "read string: string tensors are not supported"},
		{"float of ints", func() error {
			_, err := r.Float32s("int/int32")
			return err
		}, "read int/int32: int32 is not a floating-point type"},
		{"ints of float", func() error {
			_, err := r.Int64s("scalar")
			return err
		}, "read scalar: float32 is neither int64 nor int32"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { assert.EqualError(t, test.read(), test.want) })
	}
}

func TestVariableDoesNotLendItsShape(t *testing.T) {
	r := openTest(t, "testdata/types")
	r.Variables()[15].Shape[0] = 99
	v, ok := r.Variable("matrix")
	require.True(t, ok)
	assert.Equal(t, []int64{2, 3}, v.Shape)
	_, ok = r.Variable("matri")
	assert.False(t, ok)
}

func TestShards(t *testing.T) {
	r := openTest(t, "testdata/sharded")
	for name, want := range map[string][]float32{"a": {1, 2}, "b": {3}, "w": {4, 5}, "w/adam_m": {.5, .25}} {
		got, err := r.Float32s(name)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
}

func TestOpenNames(t *testing.T) {
	prefix := copyFiles(t, "testdata/types")
	dir := filepath.Dir(prefix)
	for _, path := range []string{prefix, prefix + ".index", prefix + ".data-00000-of-00001", dir} {
		r := openTest(t, path)
		assert.Equal(t, prefix, r.Prefix(), path)
	}

	_, err := Open(filepath.Join(dir, "other"))
	assert.EqualError(t, err, fmt.Sprintf(
		"open %s/other: no checkpoint here: %[1]s/other.index does not exist; there is types in that folder", dir))

	old := filepath.Join(dir, "model.ckpt")
	require.NoError(t, os.WriteFile(old, []byte("x"), 0o666))
	_, err = Open(old)
	assert.ErrorContains(t, err, "model.ckpt is not a checkpoint of version 2: there is no")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "second.index"), nil, 0o666))
	_, err = Open(dir)
	assert.EqualError(t, err, fmt.Sprintf("open %s: several checkpoints in this folder; name one of second, types", dir))

	states := map[string]string{
		"relative":       `model_checkpoint_path: "types"`,
		"absolute":       `model_checkpoint_path: "` + prefix + `"`,
		"elsewhere once": `model_checkpoint_path: "/results/run/types"`,
		"escaped":        `model_checkpoint_path: "\164ypes"`,
		"others listed":  "all_model_checkpoint_paths: \"second\"\nmodel_checkpoint_path: \"types\"\n",
	}
	for name, state := range states {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint"), []byte(state), 0o666))
			assert.Equal(t, prefix, openTest(t, dir).Prefix())
		})
	}

	empty := t.TempDir()
	_, err = Open(empty)
	assert.EqualError(t, err, fmt.Sprintf("open %s: no checkpoint in this folder: it has no *.index file", empty))
}

func TestOpenRefuses(t *testing.T) {
	change := func(file string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, prefix string) {
			b, err := os.ReadFile(prefix + file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(prefix+file, change(b), 0o666))
		}
	}
	tests := []struct {
		name   string
		prefix string
		spoil  func(t *testing.T, prefix string)
		want   []string
	}{
		{"partitioned variable", "partition", func(*testing.T, string) {},
			[]string{`partition.index: variable "p": partitioned variables are not supported`}},
		{"missing shard", "sharded", func(t *testing.T, prefix string) {
			require.NoError(t, os.Remove(prefix+".data-00001-of-00003"))
		}, []string{`variable "b": open `, "sharded.data-00001-of-00003: no such file", "copy all files of the checkpoint"}},
		{"truncated shard", "sharded", change(".data-00002-of-00003", func(b []byte) []byte { return b[:7] }),
			[]string{`variable "w": `,
				"sharded.data-00002-of-00003 has 7 bytes but the variable ends at 8: the file is damaged; copy it again"}},
		{"empty index", "types", change(".index", func([]byte) []byte { return nil }),
			[]string{"types.index is an empty file"}},
		{"index cut short", "types", change(".index", func(b []byte) []byte { return b[:len(b)-1] }),
			[]string{"types.index: not a table file"}},
		{"index cut in front", "types", change(".index", func(b []byte) []byte { return b[1:] }),
			[]string{"types.index: ", "the file is damaged; copy it again"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			prefix := copyFiles(t, "testdata/"+test.prefix)
			test.spoil(t, prefix)
			_, err := Open(prefix)
			require.Error(t, err)
			for _, want := range append(test.want, "open "+prefix+": ") {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

// Every flipped bit of a data file must be noticed by the variable it lies in, and by no other.
func TestFlippedData(t *testing.T) {
	prefix := copyFiles(t, "testdata/types")
	path := prefix + ".data-00000-of-00001"
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	r := openTest(t, prefix)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()

	for i := range data {
		_, err := f.WriteAt([]byte{data[i] ^ 1<<(i%8)}, int64(i))
		require.NoError(t, err)
		for _, e := range r.entries {
			if e.DType == String {
				continue
			}
			_, err := r.Read(e.Name)
			if int64(i) < e.offset || int64(i) >= e.offset+e.Size {
				assert.NoError(t, err)
				continue
			}
			assert.EqualError(t, err,
				fmt.Sprintf("read %s: %s: checksum mismatch: the file is damaged; copy it again", e.Name, path))
		}
		_, err = f.WriteAt(data[i:i+1], int64(i))
		require.NoError(t, err)
	}
}

func TestTruncatedAfterOpen(t *testing.T) {
	prefix := copyFiles(t, "testdata/types")
	r := openTest(t, prefix)
	require.NoError(t, os.Truncate(prefix+".data-00000-of-00001", 3))
	_, err := r.Float32s("matrix")
	assert.ErrorContains(t, err, "cut short: the file is damaged; copy it again")
}

// Every flipped bit of an index is noticed, except for the one that spells a handle's last 0 as the
// overlong varint 80 00, at the expense of the padding behind it.
func TestFlippedIndex(t *testing.T) {
	for _, name := range []string{"types", "sharded"} {
		table, err := os.ReadFile("testdata/" + name + ".index")
		require.NoError(t, err)
		nshards, entries, err := parseIndex(table)
		require.NoError(t, err)
		var unnoticed int
		for i := range table {
			for bit := range 8 {
				table[i] ^= 1 << bit
				if n, e, err := parseIndex(table); err == nil {
					unnoticed++
					assert.Equal(t, nshards, n)
					assert.Equal(t, entries, e)
				}
				table[i] ^= 1 << bit
			}
		}
		assert.LessOrEqual(t, unnoticed, 1)
	}
}

func TestConcurrentReads(t *testing.T) {
	r := openTest(t, "testdata/types")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				got, err := r.Float32s("matrix")
				assert.NoError(t, err)
				assert.Equal(t, []float32{1, 2, 3, 4, 5, 6}, got)
			}
		})
	}
	wg.Wait()
}

func TestFloat16(t *testing.T) {
	tests := []struct {
		half uint16
		want float32
	}{
		{0x0000, 0}, {0x0001, 0x1p-24}, {0x03ff, 0x3ffp-24}, {0x0400, 0x1p-14},
		{0x3c00, 1}, {0x3c01, 1 + 0x1p-10}, {0xc000, -2}, {0x7bff, 65504},
		{0x7c00, float32(math.Inf(1))}, {0xfc00, float32(math.Inf(-1))}, {0x8001, -0x1p-24},
	}
	for _, test := range tests {
		assert.Equal(t, test.want, fromFloat16(test.half), "%#04x", test.half)
	}
	assert.Equal(t, uint32(0x80000000), math.Float32bits(fromFloat16(0x8000)))
	assert.Equal(t, uint32(0x7fc02000), math.Float32bits(fromFloat16(0x7e01)), "NaN keeps its payload")

	// Against the definition, for every half.
	for h := range 1 << 16 {
		exp, frac := h>>10&31, float64(h&0x3ff)
		want := math.Ldexp(1+frac/1024, exp-15)
		switch exp {
		case 0:
			want = math.Ldexp(frac/1024, -14)
		case 31:
			want = math.Inf(1)
			if frac != 0 {
				want = math.NaN()
			}
		}
		if h>>15 == 1 {
			want = -want
		}
		got := float64(fromFloat16(uint16(h)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Fatalf("half %#04x: got %v, want %v", h, got, want)
		}
	}
}

// What stands below a variable's name is its state, whatever the optimizer is called.
func TestKindBelowAVariable(t *testing.T) {
	entries := []entry{}
	for _, name := range []string{
		"a/kernel", "a/kernel/BERTAdam", "a/kernel/some/optimizer/m", "a/kernel_1", "a/kernel_1x/y", "b/adapter/w",
	} {
		entries = append(entries, entry{Variable: Variable{Name: name}})
	}
	findSlots(entries)
	var kinds []Kind
	for _, e := range entries {
		kinds = append(kinds, e.Kind)
	}
	assert.Equal(t, []Kind{Weight, Slot, Slot, Weight, Weight, Weight}, kinds)
}

func TestKind(t *testing.T) {
	tests := map[string]Kind{
		"bert/embeddings/word_embeddings":                          Weight,
		"bert/embeddings/word_embeddings/adam_m":                   Slot,
		"bert/embeddings/word_embeddings/adam_v":                   Slot,
		"bert/embeddings/LayerNorm/gamma/shadow":                   Slot,
		"cls/squad/output_bias/accum":                              Slot,
		"dense/kernel/Adam_1":                                      Slot,
		"dense/kernel/Momentum":                                    Slot,
		"accum":                                                    Weight,
		"bert/adam_m/kernel":                                       Weight,
		"global_step":                                              Bookkeeping,
		"training/beta1_power":                                     Bookkeeping,
		"current_loss_scale":                                       Bookkeeping,
		"loss_scale":                                               Bookkeeping,
		"num_good_steps":                                           Bookkeeping,
		"_CHECKPOINTABLE_OBJECT_GRAPH":                             Bookkeeping,
		"save_counter/.ATTRIBUTES/VARIABLE_VALUE":                  Bookkeeping,
		"w/.ATTRIBUTES/VARIABLE_VALUE":                             Weight,
		"w/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE": Slot,
		"optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE":                Bookkeeping,
	}
	for name, want := range tests {
		assert.Equal(t, want, kindOf(name), name)
	}
}

// Digests of the bytes TensorFlow 2.21 reads:
//
//	r = tf.train.load_checkpoint(dir); hashlib.sha256(r.get_tensor(name).tobytes()).hexdigest()
//	hashlib.sha256(r.get_tensor(name).astype("float32").tobytes()).hexdigest()
func TestBundledModel(t *testing.T) {
	r := openTest(t, testenv.Model(t))
	vars := r.Variables()
	assert.Len(t, vars, 105)
	for _, v := range vars {
		assert.Equal(t, Float16, v.DType, v.Name)
		assert.Equal(t, Weight, v.Kind, v.Name)
	}
	for name, want := range bundledDigests {
		raw, err := r.Read(name)
		require.NoError(t, err)
		assert.Equal(t, want.float16, fmt.Sprintf("%x", sha256.Sum256(raw)), name)
		values, err := r.Float32s(name)
		require.NoError(t, err)
		h := sha256.New()
		for _, v := range values {
			bits := math.Float32bits(v)
			h.Write([]byte{byte(bits), byte(bits >> 8), byte(bits >> 16), byte(bits >> 24)})
		}
		assert.Equal(t, want.float32, fmt.Sprintf("%x", h.Sum(nil)), name)
	}
}

var bundledDigests = map[string]struct{ float16, float32 string }{
	"bert/embeddings/word_embeddings": {
		"8c1ee80a9ea4f65aa385ba30112010068af3d209bebc6e149d3d4589c2cd0a5a",
		"63e1c0228a183e34e6f975dd8530ac1a9c49ef94233a347e4d73f643cc661937",
	},
	"bert/encoder/layer_3/attention/self/query/kernel": {
		"ec9410f51d972ab27eef7be1ba9e650dfa86a05893feb44cdbfd010228b41c19",
		"370bdb38285b9d318b1afb002b8c1f801917c5bc52eb0efa00aa0d8d4e7d39d3",
	},
	"cls/squad/output_bias": {
		"00605f214fd4f1f2957434338c0e59cf7786f24c7de2c7fddac78e48819d703c",
		"3e3df71f7e0724ae96fa0b7791aa0e63a83160a66dadcfc82a1ea17b517a57fc",
	},
}

func TestForeignCheckpoints(t *testing.T) {
	t.Run("toy checkpoint with training state", func(t *testing.T) {
		r := openTest(t, testenv.Shared(t, "data", "toy-checkpoint"))
		kinds := map[Kind]int{}
		for _, v := range r.Variables() {
			kinds[v.Kind]++
			_, err := r.Read(v.Name)
			assert.NoError(t, err)
		}
		assert.Equal(t, map[Kind]int{Weight: 46, Slot: 92, Bookkeeping: 1}, kinds)
	})
	for _, model := range []string{"half_plus_two/00000123", "graft_half_plus_two/00000123", "java_saved_model"} {
		t.Run(model, func(t *testing.T) {
			r := openTest(t, testenv.Shared(t, "data", "savedmodels", model, "variables"))
			for name, want := range map[string]float32{"a": .5, "b": 2, "c": 3} {
				got, err := r.Float32s(name)
				require.NoError(t, err)
				assert.Equal(t, []float32{want}, got, name)
			}
		})
	}
	t.Run("java_keras_model", func(t *testing.T) {
		r := openTest(t, testenv.Shared(t, "data", "savedmodels", "java_keras_model", "variables"))
		var names []string
		for _, v := range r.Variables() {
			names = append(names, strings.TrimSuffix(v.Name, "/.ATTRIBUTES/VARIABLE_VALUE")+" "+v.Kind.String())
		}
		assert.Equal(t, []string{"_CHECKPOINTABLE_OBJECT_GRAPH bookkeeping", "variable weight"}, names)
	})
}

func BenchmarkFloat32s(b *testing.B) {
	r := openTest(b, testenv.Model(b))
	v, ok := r.Variable("bert/embeddings/word_embeddings")
	require.True(b, ok)
	b.SetBytes(v.Size)
	b.ReportAllocs()
	for b.Loop() {
		_, err := r.Float32s(v.Name)
		require.NoError(b, err)
	}
}
