package main

import (
	"errors"
	"fmt"

	"github.com/tfbert/go/tfbert"
)

// advice returns what to do about an error, in terms of the command line, or "". Libraries state facts
// in typed errors; what their user can do about them depends on the program, so it stands here.
func advice(err error) string {
	if mismatch := (*tfbert.PrecisionMismatchError)(nil); errors.As(err, &mismatch) {
		return fmt.Sprintf("leave --precision out, or export the model in %s", mismatch.Asked)
	}
	return ""
}
