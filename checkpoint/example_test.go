package checkpoint_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/tfbert/go/checkpoint"
)

// Copy the weights of a checkpoint without the optimizer's slots.
func Example() {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	r, err := checkpoint.Open("testdata/sharded")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	w, err := checkpoint.Create(filepath.Join(dir, "model.ckpt"))
	if err != nil {
		log.Fatal(err)
	}
	defer w.Abort()

	for _, v := range r.Variables() {
		fmt.Println(v.Name, v.DType, v.Shape, v.Kind)
		if v.Kind != checkpoint.Weight {
			continue
		}
		values, err := r.Float32s(v.Name)
		if err != nil {
			log.Fatal(err)
		}
		if err := w.AddFloat32s(v.Name, v.Shape, values); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// a float32 [2] weight
	// b float32 [1] weight
	// w float32 [2] weight
	// w/adam_m float32 [2] slot
}
