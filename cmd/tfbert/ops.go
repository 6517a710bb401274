package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/escape"
	"github.com/tfbert/go/savedmodel"
)

// opsValue is a savedmodel.OpPolicy as a flag.
type opsValue struct{ savedmodel.OpPolicy }

func (v *opsValue) Set(s string) (err error) {
	v.OpPolicy, err = savedmodel.ParseOpPolicy(s)
	return err
}

func (v *opsValue) Type() string { return "operations" }

func (v *opsValue) add(flags *pflag.FlagSet) {
	flags.Var(v, "allow_ops", "`operations` that a model may hold: all, or standard, which refuses those that reach "+
		"files, the network or Python and any that TensorFlow does not have; standard,NAME,... allows more")
}

// inspectOps lists the operations of a SavedModel, and tells whether a policy allows them, which is by default
// the standard one.
func inspectOps(out io.Writer, dir string, policy savedmodel.OpPolicy, asJSON, all bool) error {
	if found, err := filepath.Glob(filepath.Join(dir, "*.index")); err == nil && len(found) > 0 {
		if _, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile)); err != nil {
			return fmt.Errorf("%s is a checkpoint, which holds no operations: --ops is for a SavedModel", dir)
		}
	}
	graphs, err := savedmodel.Ops(dir)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, struct {
			Dir        string                `json:"dir"`
			MetaGraphs []savedmodel.OpReport `json:"meta_graphs"`
		}{dir, graphs})
	}
	policy.Standard = true
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "SavedModel %s\n", dir)
	for _, g := range graphs {
		fmt.Fprintf(w, "\nmeta graph {%s}\n  operation\tclass\tcount\tnodes\n", escaped(g.Tags))
		for _, u := range g.Ops {
			fmt.Fprintf(w, "  %s\t%s\t%d", escaped([]string{u.Op}), u.Class, u.Count)
			if len(u.Nodes) > 0 {
				fmt.Fprintf(w, "\t%s", nodes(u, all))
			}
			fmt.Fprintln(w)
		}
		var names []string
		for _, u := range g.Refused(policy) {
			names = append(names, u.Op)
		}
		if names == nil {
			fmt.Fprintf(w, "--allow_ops %v loads it\n", policy)
		} else {
			fmt.Fprintf(w, "--allow_ops %v refuses it: %s\n", policy, escaped(names))
		}
	}
	return w.Flush()
}

// nodes writes the names of an operation's nodes, or the first few, and why it is not the saver's.
func nodes(u savedmodel.OpUse, all bool) string {
	const most = 3
	names, rest := u.Nodes, ""
	if len(names) > most && !all {
		names, rest = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}
	s := escaped(names) + rest
	if u.Why != "" {
		s += ", " + u.Why
	}
	return s
}

// escaped joins names out of a foreign file, which could be anything, for a terminal.
func escaped(names []string) string {
	safe := make([]string, len(names))
	for i, name := range names {
		safe[i] = escape.Name(name)
	}
	return strings.Join(safe, ", ")
}
