package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

// precisionFlags choose the type that a model computes in.
type precisionFlags struct {
	precision    string
	amp, useFP16 bool
	require      bool
	lists        rewriteLists
}

func (f *precisionFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.precision, "precision", "", "`type` to compute in: fp32, fp16 (rewrite for GPUs), bf16 (rewrite for CPUs) or auto (default: fp32, or that of a fused graph)")
	flags.BoolVar(&f.amp, "amp", false, "automatic mixed precision, as --precision auto; --noamp is --precision fp32")
	flags.BoolVar(&f.useFP16, "use_fp16", false, "")
	flags.Lookup("use_fp16").Hidden = true // the name of --amp in the scripts of 19.03
	flags.BoolVar(&f.require, "require_precision", false, "fail if nothing runs in the precision that was asked for")
	f.lists.add(flags)
}

// asked gives the precision that the command line names, "" where it names none.
func (f *precisionFlags) asked(flags *pflag.FlagSet) (string, error) {
	asked := f.precision
	for name, on := range map[string]bool{"amp": f.amp, "use_fp16": f.useFP16} {
		if !flags.Changed(name) {
			continue
		}
		if flags.Changed("precision") {
			return "", usagef("--%s and --precision exclude each other", name)
		}
		if asked = savedmodel.FP32.String(); on {
			asked = autoPrecision
		}
	}
	return asked, nil
}

// choose gives the precision to run a model in and the rewrite that this takes.
func (f *precisionFlags) choose(cmd *cobra.Command, dir string) (p, rewrite savedmodel.Precision, err error) {
	asked, err := f.asked(cmd.Flags())
	if err != nil {
		return 0, 0, err
	}
	settings, err := tfbert.ReadSettings(dir)
	if err != nil {
		return 0, 0, err
	}
	if settings.Graph == tfbert.FusedGraph {
		if asked != "" && asked != autoPrecision && asked != settings.Precision.String() {
			return 0, 0, fmt.Errorf("the weights of %s are of %v: leave --precision out, or export the model in %s", dir, settings.Precision, asked)
		}
		return settings.Precision, savedmodel.FP32, nil
	}
	if asked == "" {
		asked = savedmodel.FP32.String()
	}
	p, err = choosePrecision(asked)
	return p, p, err
}

const autoPrecision = "auto"

// choosePrecision reads --precision. It says what auto has chosen, for which it loads TensorFlow: the
// rewrite's lists are changed before.
func choosePrecision(name string) (savedmodel.Precision, error) {
	if name != autoPrecision {
		p, err := savedmodel.ParsePrecision(name)
		if err != nil {
			return 0, usagef("--precision is fp32, fp16, bf16 or auto, not %q", name)
		}
		return p, nil
	}
	host := machine.Diagnose(context.Background())
	if lib := host.Library; lib != nil && lib.GPU && len(lib.MissingForGPU) == 0 {
		for _, gpu := range host.GPUs.Devices {
			if c, err := strconv.ParseFloat(gpu.ComputeCapability, 64); err == nil && c >= 7 {
				say("precision: fp16, because %s has compute capability %s", gpu.Name, gpu.ComputeCapability)
				return savedmodel.FP16, nil
			}
		}
	}
	var units []string
	for _, unit := range []string{"amx_bf16", "avx512_bf16"} {
		if host.CPU.Has(unit) {
			units = append(units, unit)
		}
	}
	if units == nil {
		say("precision: fp32, because this CPU has no units for bfloat16 (amx_bf16, avx512_bf16)")
		return savedmodel.FP32, nil
	}
	if err := loadTensorFlow(); err != nil {
		return 0, err
	}
	cost, err := tfbert.BFloat16Cost()
	if err != nil {
		return 0, err
	}
	because := fmt.Sprintf("because a matrix product in bfloat16 takes %.2f times as long as in float32 on this CPU (%s)", cost, strings.Join(units, ", "))
	if cost > worthwhile {
		say("precision: fp32, %s", because)
		return savedmodel.FP32, nil
	}
	say("precision: bf16, %s", because)
	return savedmodel.BF16, nil
}

// worthwhile is the cost of products in bfloat16 up to which it is chosen: above, the casts of a
// rewrite take what the products gain.
const worthwhile = 0.75

// rewriteLists are changes of the rewrite's lists: --amp_allow +Op,-Op.
type rewriteLists struct{ allow, infer, deny, clear []string }

func (l *rewriteLists) add(flags *pflag.FlagSet) {
	for _, list := range l.all() {
		flags.StringSliceVar(list.ops, list.flag, nil, "`changes` of the rewrite's "+strings.TrimPrefix(list.flag, "amp_")+" list, as in +Softmax,-Add")
	}
}

type rewriteList struct {
	flag, name string
	ops        *[]string
}

func (l *rewriteLists) all() []rewriteList {
	return []rewriteList{
		{"amp_allow", savedmodel.AllowList, &l.allow}, {"amp_infer", savedmodel.InferList, &l.infer},
		{"amp_deny", savedmodel.DenyList, &l.deny}, {"amp_clear", savedmodel.ClearList, &l.clear},
	}
}

// apply hands the changes to TensorFlow, which is not loaded yet.
func (l *rewriteLists) apply() error {
	for _, list := range l.all() {
		var add, remove []string
		for _, op := range *list.ops {
			switch name := strings.TrimLeft(op, "+-"); {
			case strings.HasPrefix(op, "+") && name != "":
				add = append(add, name)
			case strings.HasPrefix(op, "-") && name != "":
				remove = append(remove, name)
			default:
				return usagef("--%s takes operations with + or - before them, as in +Softmax,-Add, not %q", list.flag, op)
			}
		}
		if len(add)+len(remove) == 0 {
			continue
		}
		if err := savedmodel.ChangeRewriteList(list.name, add, remove); err != nil {
			return err
		}
	}
	return nil
}

// printPrecision prints a report as a table.
func printPrecision(out io.Writer, r *savedmodel.PrecisionReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "kind\toperation\ttype\tdevice\tcount")
	for _, c := range r.Ops {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", c.Kind, c.Op, c.Type, c.Device, c.Count)
	}
	if r.Clusters > 0 {
		fmt.Fprintf(w, "XLA\t\t\t%s\t%d\n", strings.Join(r.Devices, ","), r.Clusters)
	}
	return w.Flush()
}
