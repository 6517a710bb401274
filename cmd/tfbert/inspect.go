package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

func newInspect() *cobra.Command {
	var asJSON, all, ops bool
	var allowOps opsValue
	var precision precisionFlags
	var signature signatureFlags
	cmd := &cobra.Command{
		Use:   "inspect PATH",
		Short: "Show what a SavedModel or a checkpoint holds",
		Long: `Inspect shows the tags, signatures, operations and assets of a SavedModel
(its folder, its saved_model.pb, or a folder of versions, of which the newest is
taken), or the variables of a checkpoint (a folder, or a prefix such as
model.ckpt). Either may be in an archive. It needs no TensorFlow. Of a SavedModel
it says whether tfbert can answer questions with it, and which inputs and outputs
it uses for what; --tags and --signature choose what it looks at.

With --precision it loads a model that answers questions, runs it once and shows
in which types its operations really ran, after every rewrite of the graph.

With --ops it lists what a SavedModel can make TensorFlow execute, functions
included, by what that can reach: files, the network, Python, or only its own
tensors ("compute"). Read the list before you load a model from someone you do
not trust. With --allow_ops standard, here and in the commands that load models,
operations that reach further are refused.`,
		Args: args("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withModel(cmd, args[0], func(out io.Writer, path string) error {
				if asked, err := precision.asked(cmd.Flags()); err != nil || asked != "" || precision.require {
					if err != nil {
						return err
					}
					if ops {
						return usagef("--ops and --precision exclude each other")
					}
					m := modelFlags{model: path, signature: signature, precision: precision, allowOps: allowOps}
					return inspectPrecision(cmd, out, &m, asJSON)
				}
				if ops {
					return inspectOps(out, path, allowOps.OpPolicy, asJSON, all)
				}
				dir, err := findModel(path)
				if err == nil {
					return inspectSavedModel(out, dir, signature, asJSON, all)
				}
				// What is not a SavedModel may be a checkpoint, whose prefix is not a file.
				notFound, none := errors.AsType[*savedmodel.NotFoundError](err)
				if !none && !errors.Is(err, fs.ErrNotExist) || none && len(notFound.Models) > 0 {
					return err
				}
				r, err := checkpoint.Open(path)
				if err != nil {
					return err
				}
				defer r.Close()
				if asJSON {
					return printJSON(out, checkpointJSON(r))
				}
				return printCheckpoint(out, r, all)
			})
		},
	}
	precision.add(cmd.Flags())
	cmd.Flags().Lookup("precision").NoOptDefVal = string(tfbert.AutoPrecision)
	allowOps.add(cmd.Flags())
	signature.add(cmd.Flags())
	cmd.Flags().BoolVar(&ops, "ops", false, "list every operation type by what it can reach, without loading the model")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&all, "all", false,
		"list every operation type, with --ops every node, or the optimizer's slots too")
	return cmd
}

func inspectPrecision(cmd *cobra.Command, out io.Writer, flags *modelFlags, asJSON bool) (err error) {
	m, err := flags.open(cmd)
	if err != nil {
		return err
	}
	defer closing(&err, m.Close)
	report, err := m.Precision(cmd.Context())
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, report)
	}
	return printPrecision(out, report)
}

// answersJSON says whether a model answers questions.
type answersJSON struct {
	Answers bool            `json:"answers_questions"`
	Because string          `json:"because,omitempty"` // it does not
	Mapping *tfbert.Mapping `json:"mapping,omitempty"`
}

func inspectSavedModel(out io.Writer, dir string, signature signatureFlags, asJSON, all bool) error {
	info, err := savedmodel.Inspect(dir)
	if err != nil {
		return err
	}
	var opts tfbert.Options
	signature.set(&opts)
	answers := answersJSON{Answers: true}
	if answers.Mapping, err = tfbert.ReadMapping(dir, &opts); err != nil {
		answers = answersJSON{Because: withAdvice(err)}
	}
	if asJSON {
		return printJSON(out, struct {
			*savedmodel.Info
			answersJSON
		}{info, answers})
	}
	if err := printSavedModel(out, info, all); err != nil {
		return err
	}
	if !answers.Answers {
		_, err = fmt.Fprintf(out, "\n%s\n", answers.Because)
		return err
	}
	_, err = fmt.Fprintf(out, "\ntfbert answers questions with it:\n%s", indent(answers.Mapping.String()))
	return err
}

func indent(lines string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(lines, "\n"), "\n", "\n  ") + "\n"
}

func printSavedModel(out io.Writer, info *savedmodel.Info, all bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "SavedModel %s, %d bytes\n", info.Dir, info.Size)
	for _, m := range info.MetaGraphs {
		fmt.Fprintf(w, "\nmeta graph {%s}, written by TensorFlow %s\n",
			strings.Join(m.Tags, ","), cmp.Or(m.TensorFlowVersion, "of unknown version"))
		for _, s := range m.Signatures {
			fmt.Fprintf(w, "  signature %s\t%s\n", s.Key, s.Method)
			for _, t := range s.Inputs {
				note := ""
				if t.Optional {
					note = " (has a default)"
				}
				fmt.Fprintf(w, "    input %v\t%s%s\n", t, t.Name, note)
				for _, f := range t.Features {
					fmt.Fprintf(w, "      feature %v\n", f)
				}
			}
			for _, t := range s.Outputs {
				fmt.Fprintf(w, "    output %v\t%s\n", t, t.Name)
			}
		}
		for _, a := range m.Assets {
			fmt.Fprintf(w, "  asset %s\n", a)
		}
		total := 0
		types := slices.SortedFunc(maps.Keys(m.Ops), func(a, b string) int {
			return cmp.Or(cmp.Compare(m.Ops[b], m.Ops[a]), cmp.Compare(a, b))
		})
		for _, t := range types {
			total += m.Ops[t]
		}
		fmt.Fprintf(w, "  %d operations of %d types", total, len(types))
		if m.Functions > 0 {
			fmt.Fprintf(w, ", %d functions", m.Functions)
		}
		fmt.Fprintln(w)
		const most = 12
		for i, t := range types {
			if i == most && !all {
				fmt.Fprintf(w, "    ...\t(--all shows %d more)\n", len(types)-most)
				break
			}
			fmt.Fprintf(w, "    %s\t%d\n", t, m.Ops[t])
		}
	}
	return w.Flush()
}

type checkpointVariable struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	Bytes int64   `json:"bytes"`
	Kind  string  `json:"kind"`
}

func checkpointJSON(r *checkpoint.Reader) any {
	var list []checkpointVariable
	for _, v := range r.Variables() {
		list = append(list, checkpointVariable{v.Name, v.DType.String(), v.Shape, v.Size, v.Kind.String()})
	}
	return struct {
		Checkpoint string               `json:"checkpoint"`
		Variables  []checkpointVariable `json:"variables"`
	}{r.Prefix(), list}
}

func printCheckpoint(out io.Writer, r *checkpoint.Reader, all bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	type sum struct {
		variables       int
		elements, bytes int64
	}
	sums := map[checkpoint.Kind]*sum{}
	fmt.Fprintf(w, "checkpoint %s\n\n", r.Prefix())
	for _, v := range r.Variables() {
		s := sums[v.Kind]
		if s == nil {
			s = &sum{}
			sums[v.Kind] = s
		}
		elements := int64(1)
		for _, d := range v.Shape {
			elements *= d
		}
		s.variables++
		s.elements += elements
		s.bytes += v.Size
		if v.Kind == checkpoint.Weight || all {
			fmt.Fprintf(w, "%s\t%v\t%v\n", v.Name, v.DType, v.Shape)
		}
	}
	fmt.Fprintln(w)
	for _, kind := range slices.Sorted(maps.Keys(sums)) {
		s := sums[kind]
		note := ""
		if kind != checkpoint.Weight && !all {
			note = " (--all shows them)"
		}
		fmt.Fprintf(w, "%v: %d variables, %d elements, %d bytes%s\n", kind, s.variables, s.elements, s.bytes, note)
	}
	return w.Flush()
}
