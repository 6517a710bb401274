package checkpoint

import (
	"fmt"
	"math"
	"math/bits"
	"path"
	"strings"
)

// Variable describes one entry of a checkpoint.
type Variable struct {
	Name  string
	DType DType
	Shape []int64 // empty for a scalar
	Size  int64   // bytes in the data file
	Kind  Kind
}

// Kind tells what a variable is for, judged by its name and those of the others.
type Kind int

const (
	// Weight is a parameter of the model: any variable that is neither of the others.
	Weight Kind = iota
	// Slot is the training's state of one weight, such as "w/adam_m": what stands below another variable's name.
	Slot
	// Bookkeeping is the training's own state, such as "global_step" or a loss scale.
	Bookkeeping
)

// String returns "weight", "slot" or "bookkeeping".
func (k Kind) String() string {
	switch k {
	case Weight:
		return "weight"
	case Slot:
		return "slot"
	case Bookkeeping:
		return "bookkeeping"
	}
	return fmt.Sprintf("kind(%d)", int(k))
}

// Last components of slot names: BERT's Adam and LAMB, NVIDIA's fp16 shadows and gradient
// accumulators, then the slots of TensorFlow 1's own optimizers.
var slotNames = map[string]bool{
	"adam_m": true, "adam_v": true, "lamb_m": true, "lamb_v": true, "shadow": true, "accum": true,
	"Adam": true, "Adam_1": true, "LAMB": true, "LAMB_1": true, "Momentum": true,
	"Adagrad": true, "Adadelta": true, "Adadelta_1": true, "Ftrl": true, "Ftrl_1": true,
	"RMSProp": true, "RMSProp_1": true, "ExponentialMovingAverage": true,
}

var bookkeepingNames = map[string]bool{
	"global_step": true, "local_step": true, "save_counter": true, "batch_finite": true,
	"beta1_power": true, "beta2_power": true,
	"loss_scale": true, "current_loss_scale": true, "good_steps": true, "bad_steps": true,
	"num_good_steps": true, "num_bad_steps": true,
	"_CHECKPOINTABLE_OBJECT_GRAPH": true,
}

// maxWeightName is a length that no weight's name has. Longer names are not searched for that of a weight.
const maxWeightName = 1 << 10

// findSlots makes slots of the weights whose names stand below another variable's, whatever their optimizer calls them.
func findSlots(entries []entry) {
	names := make(map[string]bool, len(entries))
	for i := range entries {
		names[entries[i].Name] = true
	}
	for i := range entries {
		e := &entries[i]
		if len(e.Name) > maxWeightName {
			continue
		}
		for above := path.Dir(e.Name); e.Kind == Weight && len(above) > 1; above = path.Dir(above) {
			if names[above] {
				e.Kind = Slot
			}
		}
	}
}

// kindOf judges by one name alone.
func kindOf(name string) Kind {
	// Keras writes w/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE.
	if strings.Contains(name, "/.OPTIMIZER_SLOT/") {
		return Slot
	}
	if strings.HasPrefix(name, "optimizer/") {
		return Bookkeeping
	}
	name = strings.TrimSuffix(name, "/.ATTRIBUTES/VARIABLE_VALUE")
	dir, last := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, last = name[:i], name[i+1:]
	}
	switch {
	case bookkeepingNames[last]:
		return Bookkeeping
	case slotNames[last] && dir != "":
		return Slot
	}
	return Weight
}

// byteSize returns the bytes a tensor of dtype and shape takes; ok is false for a negative
// dimension, a size beyond int64, or a type whose elements have no fixed size.
func byteSize(dtype DType, shape []int64) (n int64, ok bool) {
	n = dtype.Size()
	if n == 0 {
		return 0, false
	}
	for _, d := range shape {
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if d < 0 || hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = int64(lo)
	}
	return n, true
}
