package tfbert_test

import (
	"fmt"
	"math"

	"github.com/tfbert/go/squad"
)

// forward is the forward pass of modeling.py and run_squad.py in float64, written from the
// description of the reference and not from the graph.
func (k *toy) forward(f squad.Feature) (start, end []float64) {
	length, hidden := len(f.InputIDs), k.HiddenSize
	word := k.values("bert/embeddings/word_embeddings")
	kind := k.values("bert/embeddings/token_type_embeddings")
	place := k.values("bert/embeddings/position_embeddings")
	x := newMatrix(length, hidden)
	for pos := range length {
		for j := range hidden {
			x[pos][j] = float64(word[int(f.InputIDs[pos])*hidden+j]) +
				float64(kind[int(f.SegmentIDs[pos])*hidden+j]) + float64(place[pos*hidden+j])
		}
	}
	k.norm(x, "bert/embeddings")
	for n := range k.NumHiddenLayers {
		layer := fmt.Sprintf("bert/encoder/layer_%d", n)
		attention := k.dense(k.attention(x, f.InputMask, layer+"/attention/self"), layer+"/attention/output/dense")
		add(attention, x)
		k.norm(attention, layer+"/attention/output")
		inner := k.dense(attention, layer+"/intermediate/dense")
		for _, row := range inner {
			for j := range row {
				row[j] = k.activate(row[j])
			}
		}
		x = k.dense(inner, layer+"/output/dense")
		add(x, attention)
		k.norm(x, layer+"/output")
	}
	weights, bias := k.values("cls/squad/output_weights"), k.values("cls/squad/output_bias")
	start, end = make([]float64, length), make([]float64, length)
	for pos := range length {
		start[pos], end[pos] = float64(bias[0]), float64(bias[1])
		for j := range hidden {
			start[pos] += x[pos][j] * float64(weights[j])
			end[pos] += x[pos][j] * float64(weights[hidden+j])
		}
	}
	return start, end
}

func (k *toy) attention(x matrix, mask []int32, scope string) matrix {
	query, key, value := k.dense(x, scope+"/query"), k.dense(x, scope+"/key"), k.dense(x, scope+"/value")
	size := k.HiddenSize / k.NumAttentionHeads
	out := newMatrix(len(x), k.HiddenSize)
	for head := range k.NumAttentionHeads {
		lo, hi := head*size, (head+1)*size
		for from := range x {
			scores := make([]float64, len(x))
			highest := math.Inf(-1)
			for to := range x {
				for j := lo; j < hi; j++ {
					scores[to] += query[from][j] * key[to][j]
				}
				scores[to] = scores[to]/math.Sqrt(float64(size)) + (1-float64(mask[to]))*-10000
				highest = max(highest, scores[to])
			}
			sum := 0.0
			for to := range scores {
				scores[to] = math.Exp(scores[to] - highest)
				sum += scores[to]
			}
			for to := range scores {
				for j := lo; j < hi; j++ {
					out[from][j] += scores[to] / sum * value[to][j]
				}
			}
		}
	}
	return out
}

func (k *toy) dense(x matrix, scope string) matrix {
	kernel, bias := k.values(scope+"/kernel"), k.values(scope+"/bias")
	out := newMatrix(len(x), len(bias))
	for i, row := range out {
		for j := range row {
			row[j] = float64(bias[j])
			for m, v := range x[i] {
				row[j] += v * float64(kernel[m*len(bias)+j])
			}
		}
	}
	return out
}

func (k *toy) norm(x matrix, scope string) {
	gamma, beta := k.values(scope+"/LayerNorm/gamma"), k.values(scope+"/LayerNorm/beta")
	for _, row := range x {
		mean, variance := 0.0, 0.0
		for _, v := range row {
			mean += v / float64(len(row))
		}
		for _, v := range row {
			variance += (v - mean) * (v - mean) / float64(len(row))
		}
		for j, v := range row {
			row[j] = (v-mean)/math.Sqrt(variance+1e-12)*float64(gamma[j]) + float64(beta[j])
		}
	}
}

func (k *toy) activate(v float64) float64 {
	switch k.HiddenAct {
	case "relu":
		return max(0, v)
	case "tanh":
		return math.Tanh(v)
	case "linear":
		return v
	case "swish", "silu":
		return v / (1 + math.Exp(-v))
	case "quick_gelu":
		return v / (1 + math.Exp(-1.702*v))
	case "gelu_python", "gelu_erf":
		return 0.5 * v * (1 + math.Erf(v/math.Sqrt2))
	}
	return 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
}

type matrix [][]float64

func newMatrix(rows, columns int) matrix {
	x := make(matrix, rows)
	for i := range x {
		x[i] = make([]float64, columns)
	}
	return x
}

func add(to, x matrix) {
	for i, row := range to {
		for j := range row {
			row[j] += x[i][j]
		}
	}
}
