package quantize

import "math"

// Product is x*K + b in integers of 8 bits.
type Product struct {
	Input  Scale
	Kernel Weights
	Bias   []float32
	// Noise is the squared error of the product on the sample, as a share of the variance of the exact one.
	Noise float64
}

// Decibels returns the ratio of signal to noise.
func (p *Product) Decibels() float64 { return -10 * math.Log10(max(p.Noise, 1e-30)) }

// Fold says what a product takes in place of x: (x - Shift) / Factor, by channel. What computes x can have it for
// nothing.
type Fold struct{ Shift, Factor []float32 }

// Quantizer chooses the integers of products.
type Quantizer struct {
	Bits   int // of the weights: 8, or 7 for a CPU whose products add in 16 bits
	MatMul func(a, b Matrix) (Matrix, error)
}

// margin widens the range that the sample has, since other text goes beyond it.
const margin = 1.25

// alphas say how much of a channel's range goes over to the weights. 0 leaves only the weights even.
var alphas = []float64{0, 0.5, 0.75, 0.85, 1}

// Fold chooses a shift and a scale of each channel for the least error of the product x*kernel + bias: channels that
// are far from 0, or much wider than others, would take the integers from all the rest.
func (q *Quantizer) Fold(x *Sample, kernel Matrix, bias []float32) (*Product, *Fold, error) {
	exact, err := q.MatMul(x.Rows, kernel)
	if err != nil {
		return nil, nil, err
	}
	var best *Product
	var fold *Fold
	var offset []float32
	for _, alpha := range alphas {
		f := newFold(x, kernel, alpha)
		most := float32(0)
		for c := range f.Shift {
			most = max(most, (x.High[c]-f.Shift[c])/f.Factor[c], (f.Shift[c]-x.Low[c])/f.Factor[c])
		}
		p := &Product{Input: symmetric(margin * most), Kernel: round(f.kernel(kernel), q.Bits, nil)}
		got, err := q.MatMul(f.round(x.Rows, p.Input), p.Kernel.matrix())
		if err != nil {
			return nil, nil, err
		}
		moved := f.bias(kernel)
		mean, noise := compare(exact, got, moved)
		if p.Noise = noise; best == nil || noise < best.Noise {
			best, fold, offset = p, f, moved
			for c := range offset {
				offset[c] += mean[c]
			}
		}
	}
	best.Bias = sum(bias, offset)
	return best, fold, nil
}

// newFold moves the middle of each channel to 0, and divides channels by a mean of their ranges and their weights.
func newFold(x *Sample, kernel Matrix, alpha float64) *Fold {
	f := &Fold{make([]float32, kernel.Rows), make([]float32, kernel.Rows)}
	logs, total := make([]float64, kernel.Rows), 0.0
	for c := range f.Shift {
		f.Shift[c] = (x.Low[c] + x.High[c]) / 2
		weight := float32(0)
		for _, v := range kernel.Row(c) {
			weight = max(weight, abs(v))
		}
		const least = 1e-5
		spread := max(x.High[c]-f.Shift[c], f.Shift[c]-x.Low[c], least)
		logs[c] = alpha*math.Log(float64(spread)) - (1-alpha)*math.Log(float64(max(weight, least)))
		total += logs[c]
	}
	for c, l := range logs {
		f.Factor[c] = float32(math.Exp(l - total/float64(len(logs))))
	}
	return f
}

// kernel returns the weights that multiply the folded rows.
func (f *Fold) kernel(k Matrix) Matrix {
	folded := New(k.Rows, k.Columns)
	for r := range k.Rows {
		to := folded.Row(r)
		for c, v := range k.Row(r) {
			to[c] = v * f.Factor[r]
		}
	}
	return folded
}

// bias returns the product of the shift.
func (f *Fold) bias(k Matrix) []float32 {
	sums := make([]float64, k.Columns)
	for r := range k.Rows {
		for c, v := range k.Row(r) {
			sums[c] += float64(f.Shift[r]) * float64(v)
		}
	}
	bias := make([]float32, k.Columns)
	for c, v := range sums {
		bias[c] = float32(v)
	}
	return bias
}

// round folds rows and rounds them.
func (f *Fold) round(x Matrix, s Scale) Matrix {
	rounded := New(x.Rows, x.Columns)
	for r := range x.Rows {
		to := rounded.Row(r)
		for c, v := range x.Row(r) {
			to[c] = s.Round((v - f.Shift[c]) / f.Factor[c])
		}
	}
	return rounded
}

// Copy is a copy of a channel of an activation, whose input is lowered.
type Copy struct {
	Channel int
	Lower   float32
}

// maxCopies is the most copies, and copiesAligned what their number is filled up to a multiple of.
const (
	maxCopies     = 64
	copiesAligned = 64
)

// Split chooses a scale from 0 to a limit for the product x*kernel + bias, whose x are the values of an activation.
// A channel that exceeds the limit t is copied: the clipped values of act(v), act(v-t), act(v-2t), ... add up to
// act(v) where act returns large numbers as they are and others as about 0. act is nil if it does not: then nothing
// is clipped. The rows of the kernel are copied with the channels.
func (q *Quantizer) Split(
	x *Sample, kernel Matrix, bias []float32, act func(float32) float32,
) (*Product, []Copy, error) {
	exact, err := q.MatMul(x.Rows, kernel)
	if err != nil {
		return nil, nil, err
	}
	low, high := float32(0), float32(0)
	for c := range x.Low {
		low, high = min(low, x.Low[c]), max(high, x.High[c])
	}
	if act == nil {
		high *= margin // with copies, a wider range costs more than it saves
	}
	var best *Product
	var copies []Copy
	var offset []float32
	try := func(limit float32) error {
		s := asymmetric(low, limit)
		made, ok := copiesOf(x.High, s.High())
		if !ok || act == nil && len(made) > 0 {
			return nil
		}
		k := withCopies(kernel, made)
		p := &Product{Input: s, Kernel: round(k, q.Bits, made)}
		got, err := q.MatMul(roundCopies(x.Rows, made, s, act), p.Kernel.matrix())
		if err != nil {
			return err
		}
		mean, noise := compare(exact, got, make([]float32, kernel.Columns))
		if p.Noise = noise; best == nil || noise < best.Noise {
			best, copies, offset = p, made, mean
		}
		return nil
	}
	if err := try(high); err != nil {
		return nil, nil, err
	}
	if least := max(1, high/20); act != nil && least < high {
		// The error has one valley: the steps around the best of the long ones are tried, too.
		const steps, long = 40, 5
		at, noise := 0, math.Inf(1)
		step := func(i int) error {
			err := try(least * float32(math.Pow(float64(high/least), float64(i)/steps)))
			if best.Noise < noise {
				at, noise = i, best.Noise
			}
			return err
		}
		for i := 0; i < steps; i += long {
			if err := step(i); err != nil {
				return nil, nil, err
			}
		}
		middle := at
		for i := max(middle-long+1, 0); i < min(middle+long, steps); i++ {
			if err := step(i); err != nil {
				return nil, nil, err
			}
		}
	}
	best.Bias = sum(bias, offset)
	return best, copies, nil
}

// copiesOf returns the copies of the channels whose largest values exceed a limit, filled up, or false if they are
// too many.
func copiesOf(high []float32, limit float32) (copies []Copy, ok bool) {
	// The second copies of all channels come after the first ones, so that hardly any pair of rows is of one channel:
	// with 7 bits, its sum would take the range from all others.
	for n := 1; ; n++ {
		before := len(copies)
		for c, v := range high {
			if v/limit*(1-1e-6) > float32(n) { // a limit of just v needs no copy
				copies = append(copies, Copy{c, float32(n) * limit})
			}
			if len(copies) > maxCopies {
				return nil, false
			}
		}
		if len(copies) == before {
			break
		}
	}
	for len(copies)%copiesAligned != 0 {
		copies = append(copies, Copy{Channel: -1})
	}
	return copies, true
}

// withCopies appends to a kernel the rows of copied channels, and zeros for what fills them up.
func withCopies(k Matrix, copies []Copy) Matrix {
	wide := New(k.Rows+len(copies), k.Columns)
	copy(wide.Data, k.Data)
	for i, c := range copies {
		if c.Channel >= 0 {
			copy(wide.Row(k.Rows+i), k.Row(c.Channel))
		}
	}
	return wide
}

// roundCopies rounds the values of an activation and of its copies. The input of a copied channel is about its value,
// because it is large wherever the copy is not 0.
func roundCopies(x Matrix, copies []Copy, s Scale, act func(float32) float32) Matrix {
	rounded := New(x.Rows, x.Columns+len(copies))
	for r := range x.Rows {
		from, to := x.Row(r), rounded.Row(r)
		for c, v := range from {
			to[c] = s.Round(v)
		}
		for i, c := range copies {
			if c.Channel >= 0 {
				to[len(from)+i] = s.Round(act(from[c.Channel] - c.Lower))
			}
		}
	}
	return rounded
}

// AppendCopies appends copies of its channels to the product that an activation follows.
func (p *Product) AppendCopies(copies []Copy) {
	columns := make([]int, len(copies))
	for i, c := range copies {
		columns[i] = c.Channel
		bias := float32(0)
		if c.Channel >= 0 {
			bias = p.Bias[c.Channel] - c.Lower
		}
		p.Bias = append(p.Bias, bias)
	}
	p.Kernel.appendColumns(columns)
}

// compare returns the mean of each column of exact - (got + offset), and the squared error that remains when the mean
// is added to the product, as a share of the variance of exact.
func compare(exact, got Matrix, offset []float32) (mean []float32, noise float64) {
	n := float64(exact.Rows)
	columns := exact.Columns
	sums := make([][4]float64, columns) // of the difference, its square, the value and its square
	for r := range exact.Rows {
		a, b := exact.Row(r), got.Row(r)
		for c := range columns {
			v := float64(a[c])
			d := v - (float64(b[c]) + float64(offset[c]))
			s := &sums[c]
			s[0] += d
			s[1] += d * d
			s[2] += v
			s[3] += v * v
		}
	}
	mean = make([]float32, columns)
	errors, variance := 0.0, 0.0
	for c, s := range sums {
		mean[c] = float32(s[0] / n)
		errors += s[1] - s[0]*s[0]/n
		variance += s[3] - s[2]*s[2]/n
	}
	return mean, max(errors, 0) / max(variance, tiny)
}

func sum(a, b []float32) []float32 {
	s := make([]float32, len(a))
	for i := range s {
		s[i] = a[i] + b[i]
	}
	return s
}

// Divide folds a shift and a scale into the columns from first on of the product that computes x.
func (f *Fold) Divide(kernel Matrix, bias []float32, first int) {
	for r := range kernel.Rows {
		row := kernel.Row(r)[first:]
		for c, v := range f.Factor {
			row[c] /= v
		}
	}
	for c := range f.Shift {
		bias[first+c] = (bias[first+c] - f.Shift[c]) / f.Factor[c]
	}
}
