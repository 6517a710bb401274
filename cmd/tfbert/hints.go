package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tfbert/go/internal/models"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
	"github.com/tfbert/go/tfbert"
)

// advice returns what a person at the command line can do about an error, or "". Libraries state facts in typed
// errors; what follows from them depends on the program, so it stands here.
func advice(err error) string {
	var (
		weights   *tfbert.PrecisionMismatchError
		precision *savedmodel.PrecisionError
		int8      *tfbert.Int8Error
		refused   *savedmodel.RefusedOpsError
		tags      *savedmodel.TagsError
		signature *tfbert.SignatureError
		file      *tfbert.FileError
		length    *tfbert.LengthError
		exists    *tfbert.ExistsError
		head      *tfbert.HeadError
		name      *models.NameError
		digest    *models.NoDigestError
		taken     *models.ExistsError
		unknown   *models.NotFoundError
		proxy     *models.ProxyError
		logit     *squad.LogitError
		count     *logits.CountError
	)
	switch {
	case errors.As(err, &weights):
		return fmt.Sprintf("leave --precision out, or export the model in %s", weights.Asked)
	case errors.As(err, &precision) && precision.Unread:
		return "leave --use_xla out"
	case errors.As(err, &int8) && int8.Dir == "":
		return "choose --precision fp32"
	case errors.As(err, &int8):
		return "export the checkpoint again on this machine, or with --precision fp32"
	case errors.As(err, &refused):
		return "'tfbert inspect --ops' lists them all"
	case errors.As(err, &tags) && len(tags.Have) == 1:
		return "choose it with --tags " + commandLine([]string{strings.Join(tags.Have[0], ",")})
	case errors.As(err, &tags):
		return "choose one with --tags"
	case errors.As(err, &signature) && len(signature.Fits) == 1:
		return "choose it with --signature " + commandLine(signature.Fits)
	case errors.As(err, &signature) && len(signature.Fits) > 1:
		return "choose one with --signature"
	case errors.As(err, &file):
		flag, which := "bert_config_file", "another"
		if file.Name == "vocab.txt" {
			flag = "vocab_file"
		}
		if file.Path == "" {
			which = "one"
		}
		return fmt.Sprintf("name %s with --%s", which, flag)
	case errors.As(err, &length) && length.Fixed > 0:
		return fmt.Sprintf("set --max_seq_length %d or export it with another", length.Fixed)
	case errors.As(err, &length):
		return "lower --max_seq_length"
	case errors.As(err, &head):
		return "name one with --head"
	case errors.As(err, &name):
		return "choose one with --name"
	case errors.As(err, &digest):
		return "pass the one that its owner publishes with --sha256"
	case errors.As(err, &taken):
		return "choose another name with --name, or replace it with --overwrite"
	case errors.As(err, &unknown):
		return "'tfbert model pull' takes its folder, archive or address"
	case errors.As(err, &proxy):
		return "set GOPROXY to one that has it, run in a clone of the repository, or name a model with --model"
	case errors.As(err, &exists):
		return "name another directory or pass --overwrite"
	case errors.As(err, &logit):
		return "the model's weights are broken or overflow in its precision; try it in float32"
	case errors.As(err, &count):
		return "check --predict_file, --doc_stride and --max_query_length"
	}
	return ""
}
