package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/file"
)

// addRunSquadFlags accepts the flags of run_squad.py that prediction does not use, so that its command lines can be
// pasted. The help does not show them. A flag that asks for something other than prediction is refused, not ignored.
func addRunSquadFlags(flags *pflag.FlagSet) {
	for _, name := range []string{
		"display_loss_steps", "gcp_project", "iterations_per_loop",
		"learning_rate", "master", "num_accumulation_steps", "num_tpu_cores", "num_train_epochs",
		"save_checkpoints_steps", "tpu_name", "tpu_zone", "train_batch_size",
		"warmup_proportion",
	} {
		flags.VarPF(unused("value"), name, "", "").Hidden = true
	}
	for _, name := range []string{"dllog_path", "train_file"} {
		flags.VarPF(unusedPath{}, name, "", "").Hidden = true
	}
	for _, name := range []string{"horovod", "verbose_logging"} {
		f := flags.VarPF(unused("bool"), name, "", "")
		f.Hidden, f.NoOptDefVal = true, "true"
	}
	for name, v := range map[string]settled{
		"do_predict":    {true, "'tfbert predict' does nothing else"},
		"do_train":      {false, "tfbert does not train"},
		"export_triton": {false, "'tfbert export' writes a SavedModel"},
		"use_tpu":       {false, "tfbert does not run on TPUs"},
		"use_trt":       {false, "tfbert does not run TensorRT"},
	} {
		f := flags.VarPF(v, name, "", "")
		f.Hidden, f.NoOptDefVal = true, "true"
	}
}

// replaced says what to use in place of flags of other scripts: those of NVIDIA's Triton, those of Hugging Face's
// run_qa.py and run_squad.py, and names that people take for run_squad.py's.
var replaced = map[string]string{
	"batch_size":                 "it is --predict_batch_size",
	"checkpoint":                 "it is --init_checkpoint",
	"config_file":                "it is --bert_config_file",
	"config_name":                "it is --bert_config_file",
	"data_dir":                   "name the file with --predict_file",
	"do_eval":                    "'tfbert evaluate' scores predictions",
	"eval_batch_size":            "it is --predict_batch_size",
	"max_seq_len":                "it is --max_seq_length",
	"model_dir":                  "it is --model",
	"model_name_or_path":         "it is --model for a SavedModel, or --init_checkpoint",
	"per_device_eval_batch_size": "it is --predict_batch_size",
	"per_gpu_eval_batch_size":    "it is --predict_batch_size",
	"predict_json":               "it is --predict_file",
	"saved_model_dir":            "it is --model",
	"seq_length":                 "it is --max_seq_length",
	"tokenizer_name":             "it is --vocab_file",
	"trt_engine":                 "tfbert does not run TensorRT",
	"vocab":                      "it is --vocab_file",
}

// replacement returns what to use in place of a flag of another script, or "".
func replacement(flag string) string {
	for _, server := range []string{"triton_", "trtis_", "export_trtis"} {
		if strings.HasPrefix(flag, server) {
			return "'tfbert serve' serves a SavedModel, in Triton's layout too"
		}
	}
	return replaced[flag]
}

// unused is the value of a flag that changes nothing. Its text is the name of the type.
type unused string

func (unused) Set(string) error { return nil }
func (unused) String() string   { return "" }
func (u unused) Type() string   { return string(u) }

// unusedPath is the value of a flag that names a file and changes nothing. Such a flag, too, is refused with the
// scheme of a URL, so that no command line with one runs.
type unusedPath struct{ unused }

func (unusedPath) Set(path string) error { return file.CheckLocal(path) }
func (unusedPath) Type() string          { return "value" }

// settled is the value of a boolean flag that allows only one.
type settled struct {
	value  bool
	reason string
}

func (v settled) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err == nil && b != v.value {
		err = errors.New(v.reason + ": leave it out")
	}
	return err
}

func (v settled) String() string { return fmt.Sprint(v.value) }
func (settled) Type() string     { return "bool" }
