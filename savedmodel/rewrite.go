package savedmodel

import (
	"fmt"
	"os"
	"strings"

	"github.com/tfbert/go/tf"
)

// The lists of operation types by which the mixed-precision rewrite decides.
const (
	AllowList = "ALLOWLIST" // gain from the smaller type
	InferList = "INFERLIST" // follow their inputs
	DenyList  = "DENYLIST"  // need float32
	ClearList = "CLEARLIST" // have no effect on the decision
)

// ChangeRewriteList adds operation types to a list of the rewrite and removes others from it, for the whole
// process. It sets environment variables, which TensorFlow reads when it is loaded.
func ChangeRewriteList(list string, add, remove []string) error {
	if tf.Loaded() {
		return fmt.Errorf("the %s of the mixed-precision rewrite must be set before TensorFlow is loaded",
			strings.ToLower(list))
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
