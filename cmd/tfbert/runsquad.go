package main

import (
	"errors"
	"fmt"
	"strconv"

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
