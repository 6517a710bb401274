package savedmodel

import (
	"fmt"
	"os"
	"strings"

	"github.com/tfbert/go/tf"
)

// The lists by which the mixed-precision rewrite decides: operations that gain from the smaller
// type (allow), that follow their inputs (infer), that need float32 (deny), and that do not care
// (clear).
const (
	AllowList = "ALLOWLIST"
	InferList = "INFERLIST"
	DenyList  = "DENYLIST"
	ClearList = "CLEARLIST"
)

// ChangeRewriteList adds operation types to one of the rewrite's lists and removes others from it,
// for the whole process: it sets the environment variables that TensorFlow reads. It comes before
// the library is loaded.
func ChangeRewriteList(list string, add, remove []string) error {
	if tf.Loaded() {
		return fmt.Errorf("the %s of the mixed-precision rewrite is set before TensorFlow is loaded, not after", strings.ToLower(list))
	}
	for suffix, ops := range map[string][]string{"_ADD": add, "_REMOVE": remove} {
		if len(ops) == 0 {
			continue
		}
		if err := os.Setenv("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_"+list+suffix, strings.Join(ops, ",")); err != nil {
			return err
		}
	}
	return nil
}
