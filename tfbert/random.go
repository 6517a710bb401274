package tfbert

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/tf"
)

// BaseConfig returns the shape of BERT-Base, uncased.
func BaseConfig() *Config {
	return &Config{
		VocabSize: 30522, HiddenSize: 768, NumHiddenLayers: 12, NumAttentionHeads: 12, IntermediateSize: 3072,
		HiddenAct: "gelu", MaxPositionEmbeddings: 512, TypeVocabSize: 2,
	}
}

// LargeConfig returns the shape of BERT-Large, uncased.
func LargeConfig() *Config {
	c := BaseConfig()
	c.HiddenSize, c.NumHiddenLayers, c.NumAttentionHeads, c.IntermediateSize = 1024, 24, 16, 4096
	return c
}

// ExportRandom writes a model of the given shape as Export does, to measure speed: its weights are as
// modeling.py initializes them, always the same for one shape, and its vocabulary is of made-up words.
// Options that name files are ignored.
func ExportRandom(ctx context.Context, config *Config, dir string, opts *ExportOptions) (*ExportReport, error) {
	return exportFrom(ctx, "random weights", dir, opts, func(temp string, _ *ExportOptions) (*source, error) {
		return randomSource(config, temp)
	})
}

// randomSource makes a source of random weights, with its files in a new folder.
func randomSource(c *Config, dir string) (*source, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	s := &source{
		variables: newRandomWeights(c), name: "random weights", prefix: dir + string(os.PathSeparator), config: c,
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		path *string
		name string
		text []byte
	}{{&s.configPath, configFile, append(config, '\n')}, {&s.vocabPath, vocabFile, madeUpVocab(c.VocabSize)}} {
		*f.path = s.prefix + f.name
		if err := os.WriteFile(*f.path, f.text, 0o666); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// madeUpVocab returns a vocab.txt of n lines, the first of which are the pieces that every BERT has.
func madeUpVocab(n int) []byte {
	special := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	var b strings.Builder
	for i := range n {
		if i < len(special) {
			b.WriteString(special[i] + "\n")
		} else {
			fmt.Fprintf(&b, "word%d\n", i)
		}
	}
	return []byte(b.String())
}

// randomWeights are the variables of a configuration, made when they are read.
type randomWeights struct {
	list   []checkpoint.Variable
	byName map[string]checkpoint.Variable
}

func newRandomWeights(c *Config) *randomWeights {
	r := &randomWeights{byName: map[string]checkpoint.Variable{}}
	for _, w := range c.weights() {
		v := checkpoint.Variable{Name: w.name, DType: checkpoint.Float32, Shape: w.shape, Kind: checkpoint.Weight}
		r.list, r.byName[w.name] = append(r.list, v), v
	}
	return r
}

func (r *randomWeights) Variables() []checkpoint.Variable { return r.list }

func (r *randomWeights) Variable(name string) (checkpoint.Variable, bool) {
	v, ok := r.byName[name]
	return v, ok
}

func (r *randomWeights) ObjectBased() bool { return false }

func (r *randomWeights) FullNames() (map[string]string, error) { return nil, nil }

func (r *randomWeights) Close() error { return nil }

// Float32s returns 1 for the gain of a layer norm, 0 for its shift, and modeling.py's
// truncated_normal_initializer(stddev=0.02) for the others, also for biases, which could be optimized away.
func (r *randomWeights) Float32s(name string) ([]float32, error) {
	v, ok := r.byName[name]
	if !ok {
		return nil, fmt.Errorf("random weights: no variable %s", name)
	}
	n, _ := tf.Shape(v.Shape).NumElements()
	values := make([]float32, n)
	switch {
	case strings.HasSuffix(name, "/beta"):
	case strings.HasSuffix(name, "/gamma"):
		for i := range values {
			values[i] = 1
		}
	default:
		hash := fnv.New64a()
		hash.Write([]byte(name))
		truncatedNormal(values, rand.NewPCG(hash.Sum64(), 0))
	}
	return values, nil
}

// truncatedNormal fills values from a normal distribution of standard deviation 0.02 without what
// lies beyond two deviations, by quantiles. Four values are made of each number of the source.
func truncatedNormal(values []float32, source *rand.PCG) {
	table := quantiles()
	bits := uint64(0)
	for i := range values {
		if i%4 == 0 {
			bits = source.Uint64()
		}
		values[i] = table[uint16(bits)]
		bits >>= 16
	}
}

// quantiles returns the quantiles of that distribution in equal steps.
var quantiles = sync.OnceValue(func() *[1 << 16]float32 {
	const deviation, bound = 0.02, 2
	inside := math.Erf(bound / math.Sqrt2) // of the whole distribution
	table := new([1 << 16]float32)
	for i := range table {
		p := (float64(i) + 0.5) / float64(len(table))
		table[i] = float32(deviation * math.Sqrt2 * math.Erfinv((2*p-1)*inside))
	}
	return table
})
