package main

import (
	"errors"

	"github.com/tfbert/go/squad"
)

// dataAdvice returns what to do about an error in data or in logits, in terms of the command line, or
// "".
func dataAdvice(err error) string {
	if logit := (*squad.LogitError)(nil); errors.As(err, &logit) {
		return "the model's weights are broken or overflow in its precision; try it in float32"
	}
	return ""
}
