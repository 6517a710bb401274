package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

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
	flags.StringVar(&f.precision, "precision", "", "`type` to compute in: fp32, fp16 (rewrite for GPUs), "+
		"bf16 (rewrite for CPUs), int8 (of a fused graph) or auto (default: fp32, or that of a fused graph)")
	flags.BoolVar(&f.amp, "amp", false, "automatic mixed precision, as --precision auto; --noamp is --precision fp32")
	flags.BoolVar(&f.useFP16, "use_fp16", false, "")
	flags.Lookup("use_fp16").Hidden = true // the name of --amp in the scripts of 19.03
	flags.BoolVar(&f.require, "require_precision", false, "fail if nothing runs in the precision that was asked for")
	f.lists.add(flags)
}

// asked returns the precision that the command line names.
func (f *precisionFlags) asked(flags *pflag.FlagSet) (tfbert.Precision, error) {
	asked, err := parsePrecision(f.precision)
	if err != nil {
		return "", err
	}
	for name, on := range map[string]bool{"amp": f.amp, "use_fp16": f.useFP16} {
		if !flags.Changed(name) {
			continue
		}
		if flags.Changed("precision") {
			return "", usagef("--%s and --precision exclude each other", name)
		}
		if asked = tfbert.FP32; on {
			asked = tfbert.AutoPrecision
		}
	}
	return asked, nil
}

func parsePrecision(name string) (tfbert.Precision, error) {
	p, err := tfbert.ParsePrecision(name)
	if err != nil {
		return "", usagef("--precision is fp32, fp16, bf16, int8 or auto, not %q", name)
	}
	return p, nil
}

// choosePrecision returns the type to compute in, for the model in a folder if one is named, and tells the user what
// auto has chosen. It may load TensorFlow, so changes of the rewrite's lists come before.
func choosePrecision(p tfbert.Precision, model string) (savedmodel.Precision, error) {
	if p == tfbert.AutoPrecision {
		if err := loadTensorFlow(); err != nil { // with its log where it belongs
			return 0, err
		}
	}
	choice, err := p.Choose(model)
	if err != nil {
		return 0, err
	}
	sayChoice(choice)
	return choice.Precision, nil
}

// preferInt8 returns int8 if it can run here, else auto.
func preferInt8() (tfbert.Precision, error) {
	if err := loadTensorFlow(); err != nil {
		return "", err
	}
	if err := tfbert.Int8Support(); err != nil {
		say("precision: not int8, because %v", err)
		return tfbert.AutoPrecision, nil
	}
	return tfbert.INT8, nil
}

func sayChoice(c tfbert.Choice) {
	if c.Because != "" {
		say("precision: %v, because %s", c.Precision, c.Because)
	}
}

// rewriteLists are changes of the rewrite's lists: --amp_allow +Op,-Op.
type rewriteLists struct{ allow, infer, deny, clear []string }

func (l *rewriteLists) add(flags *pflag.FlagSet) {
	for _, list := range l.all() {
		name := strings.TrimPrefix(list.flag, "amp_")
		flags.StringSliceVar(list.ops, list.flag, nil, "`changes` of the rewrite's "+name+" list, as in +Softmax,-Add")
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
