// Package quantize chooses the integers of matrix products: how the rows and the weights of a product in 8 bits
// are rounded so that the product changes little. It computes in float32 and knows no graph.
package quantize

import (
	"fmt"
	"math"
)

// Matrix is a matrix in row-major order.
type Matrix struct {
	Rows, Columns int
	Data          []float32
}

// New returns a matrix of zeros.
func New(rows, columns int) Matrix { return Matrix{rows, columns, make([]float32, rows*columns)} }

// Row returns a row, which shares the matrix's memory.
func (m Matrix) Row(i int) []float32 { return m.Data[i*m.Columns : (i+1)*m.Columns] }

// Sample is what is known about the rows that a product multiplies.
type Sample struct {
	Low, High []float32 // the least and the largest value of each channel, of all rows
	Rows      Matrix    // some of the rows
}

// NewSample returns a sample without rows.
func NewSample(channels int) *Sample {
	s := &Sample{Low: make([]float32, channels), High: make([]float32, channels), Rows: Matrix{Columns: channels}}
	for c := range channels {
		s.Low[c], s.High[c] = float32(math.Inf(1)), float32(math.Inf(-1))
	}
	return s
}

// Add adds a row. It is kept if keep is set.
func (s *Sample) Add(row []float32, keep bool) {
	for c, v := range row {
		s.Low[c], s.High[c] = min(s.Low[c], v), max(s.High[c], v)
	}
	if keep {
		s.Rows.Data = append(s.Rows.Data, row...)
		s.Rows.Rows++
	}
}

// Check returns an error if the sample is empty or holds numbers that have no place on a scale.
func (s *Sample) Check() error {
	if s.Rows.Rows == 0 {
		return fmt.Errorf("no rows to measure")
	}
	for c := range s.Low {
		if v := s.High[c] - s.Low[c]; v-v != 0 { // NaN or infinite
			return fmt.Errorf("channel %d has values from %v to %v", c, s.Low[c], s.High[c])
		}
	}
	return nil
}

// Scale maps numbers to integers of 8 bits: v to round(v/Step) + Zero.
type Scale struct {
	Step float32
	Zero int  // the integer of 0
	Sign bool // integers from -128 to 127, and Zero is 0; else from 0 to 255
}

// symmetric returns the scale of values from -most to most.
func symmetric(most float32) Scale { return Scale{Step: max(most, tiny) / 127, Sign: true} }

// asymmetric returns a scale of values from low to high, both of which it holds. The integer of 0 is exact: products
// round it while quantizing does not.
func asymmetric(low, high float32) Scale {
	low, high = min(low, 0), max(high, 0)
	exact := float64(-low / (max(high-low, tiny) / 255))
	best := Scale{Step: float32(math.Inf(1))}
	for _, zero := range []int{int(math.Floor(exact)), int(math.Ceil(exact))} {
		zero = min(max(zero, 0), 255)
		step := float32(tiny / 255)
		if zero > 0 {
			step = max(step, -low/float32(zero))
		}
		if zero < 255 {
			step = max(step, high/float32(255-zero))
		}
		if holds := zero > 0 || low == 0; holds && step < best.Step {
			best = Scale{Step: step, Zero: zero}
		}
	}
	return best
}

// tiny stands for the range of what is always 0.
const tiny = 1e-8

// Low returns the number of the least integer, or with a sign, of that opposite to the largest.
func (s Scale) Low() float32 {
	if s.Sign {
		return -127 * s.Step
	}
	return -float32(s.Zero) * s.Step
}

// High returns the number of the largest integer.
func (s Scale) High() float32 {
	if s.Sign {
		return 127 * s.Step
	}
	return float32(255-s.Zero) * s.Step
}

// Round returns the number that stands for v.
func (s Scale) Round(v float32) float32 { return float32(s.Integer(v)-s.Zero) * s.Step }

// Integer returns the integer that stands for v.
func (s Scale) Integer(v float32) int {
	i := int(math.RoundToEven(float64(v/s.Step))) + s.Zero
	if s.Sign {
		return min(max(i, -128), 127)
	}
	return min(max(i, 0), 255)
}

// Weights are the weights of a product, with a range for each column: the integer q stands for q*Range/127.
type Weights struct {
	Rows, Columns int
	Integers      []int8
	Ranges        []float32
}

// round rounds weights to integers. With 7 bits, no two weights that a CPU without VNNI multiplies and adds in 16
// bits, those of rows 2i and 2i+1, can exceed that: 255*128 is less than 2^15. Weights of opposite signs cannot, so
// that only the sum of two of the same sign is bounded, and most columns lose less than a bit.
//
// The last rows are those of copies. A copy takes over what rounding has left of the rows of its channel before: where
// the channel is large, all of them count.
func round(k Matrix, bits int, copies []Copy) Weights {
	w := Weights{k.Rows, k.Columns, make([]int8, len(k.Data)), make([]float32, k.Columns)}
	for r := 0; r < k.Rows; r++ {
		row := k.Row(r)
		var before []float32
		if bits < 8 && r%2 == 1 {
			before = k.Row(r - 1)
		}
		for c, v := range row {
			most := abs(v)
			if before != nil && (v < 0) == (before[c] < 0) {
				most += abs(before[c])
			}
			w.Ranges[c] = max(w.Ranges[c], most, tiny)
		}
	}
	integers := func(r int) []int8 { return w.Integers[r*k.Columns : (r+1)*k.Columns] }
	residual := map[int][]float32{} // of the copied channels, in steps
	for _, c := range copies {
		if c.Channel >= 0 {
			residual[c.Channel] = make([]float32, k.Columns)
		}
	}
	first := k.Rows - len(copies)
	for r := range k.Rows {
		channel := r
		if r >= first {
			channel = copies[r-first].Channel
		}
		row, to, carried := k.Row(r), integers(r), residual[channel]
		for c, v := range row {
			exact := v * 127 / w.Ranges[c]
			if carried != nil {
				exact += carried[c]
			}
			q := min(max(int(math.RoundToEven(float64(exact))), -127), 127)
			if bits < 8 && r%2 == 1 {
				before := int(integers(r - 1)[c])
				q = min(max(q, -128-min(before, 0)), 128-max(before, 0))
			}
			if carried != nil {
				carried[c] = exact - float32(q)
			}
			to[c] = int8(q)
		}
	}
	return w
}

// matrix returns the numbers that the integers stand for.
func (w *Weights) matrix() Matrix {
	m := New(w.Rows, w.Columns)
	steps := make([]float32, w.Columns)
	for c, r := range w.Ranges {
		steps[c] = r / 127
	}
	for r := range w.Rows {
		to, from := m.Row(r), w.Integers[r*w.Columns:]
		for c := range to {
			to[c] = float32(from[c]) * steps[c]
		}
	}
	return m
}

// appendColumns appends copies of columns, and columns of zeros for those that are negative.
func (w *Weights) appendColumns(columns []int) {
	wide := Weights{w.Rows, w.Columns + len(columns), nil, w.Ranges}
	for r := range w.Rows {
		row := w.Integers[r*w.Columns : (r+1)*w.Columns]
		wide.Integers = append(wide.Integers, row...)
		for _, c := range columns {
			var v int8
			if c >= 0 {
				v = row[c]
			}
			wide.Integers = append(wide.Integers, v)
		}
	}
	for _, c := range columns {
		v := float32(1)
		if c >= 0 {
			v = w.Ranges[c]
		}
		wide.Ranges = append(wide.Ranges, v)
	}
	*w = wide
}

func abs(v float32) float32 { return max(v, -v) }
