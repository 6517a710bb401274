package main

import (
	"errors"

	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
)

// dataAdvice returns what to do about an error in data or in logits, in terms of the command line, or
// "".
func dataAdvice(err error) string {
	if logit := (*squad.LogitError)(nil); errors.As(err, &logit) {
		return "the model's weights are broken or overflow in its precision; try it in float32"
	}
	if count := (*logits.CountError)(nil); errors.As(err, &count) {
		return "check --predict_file, --doc_stride and --max_query_length"
	}
	return ""
}
